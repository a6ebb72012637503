"""Samples that somebody else generated: RULER's jsonl files, of its main branch or as of 2024.

A row has ``input`` and ``outputs``; in files of the main branch the start of the answer stands in ``answer_prefix``, in
those of 2024 at the end of ``input``. The field ``index`` is ignored: upstream overwrites it in some tasks.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lampe_eval.errors import UserError
from lampe_eval.texts.jsonl_rows import read_rows


@dataclass(frozen=True)
class FileSample:
    """A sample of a file; ``id`` counts the rows of all of its task's files."""

    id: int
    input: str
    answer_prefix: str
    outputs: tuple[str, ...]


def read(folder: Path, task: str, length: int) -> Iterator[FileSample]:
    """The samples of a task at a length.

    Raises:
        UserError: for files that are missing, a line that is no row, and a row that lacks something or is of another
            length.
    """
    count = 0
    for path in files(folder, task, length):
        for number, row in enumerate(read_rows(path, {"input": str, "outputs": list}), 1):
            prefix, outputs = row.get("answer_prefix", ""), row["outputs"]
            if not isinstance(prefix, str):
                raise UserError(
                    f"{path}: row {number}: 'answer_prefix' is {type(prefix).__name__}, expected str"
                )
            if not outputs or not all(isinstance(output, str) for output in outputs):
                raise UserError(
                    f"{path}: row {number}: 'outputs' is not a list of one or more texts"
                )
            made = row.get("length")
            if isinstance(made, int) and not length / 2 < made <= length:
                raise UserError(
                    f"{path}: row {number}: is of {made} tokens, not for a length of {length}"
                )
            yield FileSample(count, row["input"], prefix, tuple(outputs))
            count += 1


def files(folder: Path, task: str, length: int) -> list[Path]:
    """Files of a task at a length, in the order of their names.

    They are in ``<length>``, ``<length>/data``, ``data`` or the folder itself, as ``<task>/*.jsonl``, ``<task>.jsonl``
    or ``<task>_*.jsonl``. Where names of files end in lengths, as ``llama3-131072``, those of others are left out.

    Raises:
        UserError: for a folder without any.
    """
    if not folder.is_dir():
        raise UserError(
            f"{folder}: no such folder; it must hold RULER's files, such as {task}/validation.jsonl"
        )
    for place in (f"{length}/data", f"{length}", "data", "."):
        for pattern in (f"{task}/*.jsonl", f"{task}.jsonl", f"{task}_*.jsonl"):
            found = sorted((folder / place).glob(pattern))
            if found := [path for path in found if _length(path) in (None, length)]:
                return found
    raise UserError(
        f"{folder}: no file of {task} for {length} tokens; expected {task}/*.jsonl, {task}.jsonl or {task}_*.jsonl"
    )


def _length(path: Path) -> int | None:
    """The length at the end of a file's name; None where it has none."""
    number = re.search(r"(?<=[-_])(\d{3,})$", path.stem)
    return int(number[0]) if number else None
