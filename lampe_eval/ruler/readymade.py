"""Samples that somebody else generated: RULER's jsonl files, of its main branch or as of 2024.

A row has ``input`` and ``outputs``; in files of the main branch the start of the answer stands in ``answer_prefix``, in
those of 2024 at the end of ``input``. The field ``index`` is ignored: upstream overwrites it in some tasks.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lampe_eval.errors import UserError
from lampe_eval.texts.rows import rows


@dataclass(frozen=True)
class Readymade:
    """A sample of a file; ``id`` counts the rows of all of its task's files."""

    id: int
    input: str
    answer_prefix: str
    outputs: tuple[str, ...]


def read(folder: Path, task: str) -> Iterator[Readymade]:
    """The samples of a task.

    Raises:
        UserError: for files that are missing, a line that is no row, and a row that lacks something.
    """
    count = 0
    for path in files(folder, task):
        for number, row in enumerate(rows(path, {"input": str, "outputs": list}), 1):
            prefix, outputs = row.get("answer_prefix", ""), row["outputs"]
            if not isinstance(prefix, str):
                raise UserError(f"{path}: row {number}: 'answer_prefix' is {type(prefix).__name__}, expected str")
            if not outputs or not all(isinstance(output, str) for output in outputs):
                raise UserError(f"{path}: row {number}: 'outputs' is not a list of one or more texts")
            yield Readymade(count, row["input"], prefix, tuple(outputs))
            count += 1


def files(folder: Path, task: str) -> list[Path]:
    """Files of a task: ``<task>/*.jsonl``, else ``<task>.jsonl``, else ``<task>_*.jsonl``, in the order of their names.

    Raises:
        UserError: for a folder without any.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; it must hold RULER's files, such as {task}/validation.jsonl")
    for pattern in (f"{task}/*.jsonl", f"{task}.jsonl", f"{task}_*.jsonl"):
        if found := sorted(folder.glob(pattern)):
            return found
    raise UserError(f"{folder}: no file of {task}; expected {task}/*.jsonl, {task}.jsonl or {task}_*.jsonl")
