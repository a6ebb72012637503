"""Samples that RULER itself generated, as JSON lines of its main branch or of 2024.

A row has ``input`` and ``outputs``. In files of the main branch the start of the answer is
``answer_prefix``; in those of 2024 it is the end of ``input``. The field ``index`` is ignored,
because upstream overwrites it in some tasks.
"""

import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from lampe_eval.errors import UserError
from lampe_eval.texts.jsonl_rows import FaultyRow, read_rows


class FileSample(BaseModel):
    """Sample of a file.

    Attributes:
        input: the prompt.
        answer_prefix: start of the answer, possibly empty.
        outputs: texts that the answer must contain.
        length: tokens that it was generated with, if the file says so.
    """

    model_config = ConfigDict(frozen=True, strict=True)

    input: str
    answer_prefix: str = ""
    outputs: list[str] = Field(min_length=1)
    length: Any = None


def read_samples(folder: Path, task: str, length: int) -> Iterator[FileSample | FaultyRow]:
    """Yield the samples of a task at a length in tokens; one of another length is faulty.

    Raises:
        UserError: if files are missing, or one has no row without fault.
    """
    for path in find_files(folder, task, length):
        yield from read_rows(path, partial(_parse_sample, length))


def find_files(folder: Path, task: str, length: int) -> list[Path]:
    """Return the files of a task at a length, sorted by name.

    They are in ``<length>``, ``<length>/data``, ``data`` or the folder itself, named
    ``<task>/*.jsonl``, ``<task>.jsonl`` or ``<task>_*.jsonl``. A file whose name ends in another
    length, such as ``llama3-131072``, is left out.

    Raises:
        UserError: if the folder has no such file.
    """
    if not folder.is_dir():
        raise UserError(
            f"{folder}: no such folder; it must hold RULER's files, such as {task}/validation.jsonl"
        )
    for place in (f"{length}/data", f"{length}", "data", "."):
        for pattern in (f"{task}/*.jsonl", f"{task}.jsonl", f"{task}_*.jsonl"):
            paths = sorted((folder / place).glob(pattern))
            matching = [path for path in paths if _length_in_name(path) in (None, length)]
            if matching:
                return matching
    raise UserError(
        f"{folder}: no file of {task} for {length} tokens; "
        f"expected {task}/*.jsonl, {task}.jsonl or {task}_*.jsonl"
    )


def _parse_sample(length: int, value: Any) -> FileSample:
    """Return a row as a sample of a length.

    Raises:
        ValueError: for a row with a field of the wrong type, or of another length.
    """
    sample = FileSample.model_validate(value)
    tokens = sample.length
    # Upstream stops at whole units, so its samples are a little shorter than their length.
    if isinstance(tokens, int) and not length / 2 < tokens <= length:
        raise ValueError(f"has {tokens} tokens, so it is not for a length of {length}")
    return sample


def _length_in_name(path: Path) -> int | None:
    """Return the length at the end of a file's name, or None where there is none."""
    number = re.search(r"(?<=[-_])(\d{3,})$", path.stem)
    return int(number[0]) if number else None
