"""Samples that RULER itself generated, as JSON lines of its main branch or of 2024.

A row has ``input`` and ``outputs``. In files of the main branch the start of the answer is
``answer_prefix``; in those of 2024 it is the end of ``input``. The field ``index`` is ignored,
because upstream overwrites it in some tasks.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lampe_eval.errors import UserError
from lampe_eval.texts.jsonl_rows import read_rows


@dataclass(frozen=True)
class FileSample:
    """Sample of a file.

    Attributes:
        id: number of the row, counted through all files of the task.
        input: the prompt.
        answer_prefix: start of the answer, possibly empty.
        outputs: texts that the answer must contain.
    """

    id: int
    input: str
    answer_prefix: str
    outputs: tuple[str, ...]


def read_samples(folder: Path, task: str, length: int) -> Iterator[FileSample]:
    """Yield the samples of a task at a length in tokens.

    Raises:
        UserError: if files are missing, a line is not a row, or a row lacks a field or was
            generated for another length.
    """
    count = 0
    for path in find_files(folder, task, length):
        for number, row in enumerate(read_rows(path, {"input": str, "outputs": list}), 1):
            _check_row(row, f"{path}: row {number}", length)
            prefix = row.get("answer_prefix", "")
            yield FileSample(count, row["input"], prefix, tuple(row["outputs"]))
            count += 1


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


def _check_row(row: Mapping[str, Any], where: str, length: int) -> None:
    """Refuse a row with a field of the wrong type, or of another length."""
    prefix, outputs = row.get("answer_prefix", ""), row["outputs"]
    if not isinstance(prefix, str):
        raise UserError(f"{where}: 'answer_prefix' is {type(prefix).__name__}, expected str")
    if not outputs or not all(isinstance(output, str) for output in outputs):
        raise UserError(f"{where}: 'outputs' is not a list of one or more texts")
    tokens = row.get("length")
    # Upstream stops at whole units, so its samples are a little shorter than their length.
    if isinstance(tokens, int) and not length / 2 < tokens <= length:
        raise UserError(f"{where}: has {tokens} tokens, so it is not for a length of {length}")


def _length_in_name(path: Path) -> int | None:
    """Return the length at the end of a file's name, or None where there is none."""
    number = re.search(r"(?<=[-_])(\d{3,})$", path.stem)
    return int(number[0]) if number else None
