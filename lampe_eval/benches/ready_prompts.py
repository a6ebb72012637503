"""Parquet mirrors of benchmarks, whose rows are ready prompts.

A row has the prompt in two parts, `context` and `question`, and the start of the answer. The
instruction stands in them already, so no other prompt can be made from such rows; prompts and
limits of answers are those of whoever made the mirror, and never the official protocol.
"""

from collections.abc import Iterator, Mapping
from itertools import chain, islice
from pathlib import Path
from typing import Any

from pydantic import AliasChoices, BaseModel, ConfigDict, Field

from lampe_eval.assets import offline_folder
from lampe_eval.assets.containers import READY_FIELDS, first_fields
from lampe_eval.assets.data_folder import list_folder
from lampe_eval.benches.bench import Prompt, SampleRequest, Task
from lampe_eval.errors import UserError
from lampe_eval.file_io import sha256_of_text
from lampe_eval.prompts.chat_template import Message
from lampe_eval.prompts.prompt_fitting import fit_prompt
from lampe_eval.texts.jsonl_rows import FaultyRow, read_container

FOLDERS = 3
"""Folders above a file that it may be called after."""


class ReadyRow(BaseModel):
    """Row of a mirror; its other columns are what the original has.

    Attributes:
        references: the right answers, in a column called `answer` or `answers`.
    """

    model_config = ConfigDict(frozen=True, strict=True, extra="allow")

    context: str
    question: str
    answer_prefix: str
    max_new_tokens: int
    references: list[str] | str = Field(validation_alias=AliasChoices("answers", "answer"))


def ready_files(task: Task, config: str, data_dir: Path | None) -> list[Path]:
    """Return the files of a mirror's configuration in the offline folder.

    Args:
        task: the task, for messages.
        config: name of the configuration: that of a file, or of a folder above it.
        data_dir: the offline folder.

    Raises:
        UserError: if no folder is named.
    """
    folder = offline_folder(data_dir)
    if folder is None:
        raise UserError(
            f"{task.full_name}: prompts=ready reads samples from files; name their folder with "
            "--data-dir"
        )
    found: list[Path] = []
    for path in list_folder(folder).files.paths:
        names = {path.stem, *(parent.name for parent in [*path.parents][:FOLDERS])}
        if path.suffix == ".parquet" and config in names and _is_ready(folder / path):
            found.append(folder / path)
    return found


def _is_ready(path: Path) -> bool:
    try:
        return first_fields(path) >= READY_FIELDS
    except UserError:
        return False


def ready_rows(mirror: str, files: list[Path], limit: int) -> Iterator[ReadyRow | FaultyRow]:
    """Yield the rows of a mirror's files.

    Raises:
        UserError: if there are no files.
    """
    if not files:
        columns = ", ".join(sorted(READY_FIELDS))
        raise UserError(
            f"--data-dir has no parquet file of {mirror} with the columns "
            f"{columns}; put its folder there, or leave prompts=ready out"
        )
    rows = (read_container(path, ReadyRow.model_validate) for path in files)
    return islice(chain.from_iterable(rows), limit)


def ready_samples(
    rows: Iterator[ReadyRow | FaultyRow],
    request: SampleRequest,
    extras: Mapping[str, str],
    *,
    chat: bool = True,
) -> Iterator[Prompt]:
    """Yield the samples of a mirror's rows.

    Args:
        rows: the rows.
        request: what is requested.
        extras: columns that scores depend on, by the name that the bench has for them.
        chat: whether the task uses the chat template at all.
    """
    for index, row in enumerate(rows):
        if isinstance(row, FaultyRow):
            yield Prompt.of_faulty_row(f"{index:04d}", row)
            continue
        prompt = fit_prompt(
            request.tokenizer,
            request.protocol,
            Message(row.context + row.question, answer_prefix=row.answer_prefix),
            length=request.length,
            answer_tokens=row.max_new_tokens,
            chat=chat,
        )
        columns: Mapping[str, Any] = row.model_extra or {}
        references = row.references
        yield Prompt(
            id=f"{index:04d}",
            ids=prompt.ids,
            max_new_tokens=row.max_new_tokens,
            references=[references] if isinstance(references, str) else references,
            extras={name: columns.get(column) for name, column in extras.items()},
            document_sha256=sha256_of_text(row.context),
            cut_tokens=prompt.cut_tokens,
            skip=prompt.skip,
        )
