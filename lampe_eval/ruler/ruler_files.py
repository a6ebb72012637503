"""Samples that RULER itself generated, as JSON lines of its main branch or of 2024.

A row has ``input`` and ``outputs``. In files of the main branch the start of the answer is
``answer_prefix``; in those of 2024 it is the end of ``input``. The field ``index`` is ignored,
because upstream overwrites it in some tasks. Parquet mirrors hold all tasks of a length; their rows
have the prompt as ``context``, ``question`` and ``answer_prefix``, and the outputs as ``answer``.
"""

import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from lampe_eval.assets.containers import READY_FIELDS, container_rows, first_fields
from lampe_eval.assets.data_folder import list_folder
from lampe_eval.errors import UserError
from lampe_eval.texts.jsonl_rows import FaultyRow, parse_value, read_rows


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


class MirrorRow(BaseModel):
    """Row of a mirror, whose prompt stands in two columns."""

    model_config = ConfigDict(strict=True)

    context: str
    question: str
    answer_prefix: str
    answer: list[str]


def read_samples(folder: Path, task: str, length: int) -> Iterator[FileSample | FaultyRow]:
    """Yield the samples of a task at a length in tokens; one of another length is faulty.

    Raises:
        UserError: if files are missing, or one has no row without fault.
    """
    for path in find_files(folder, task, length):
        if path.suffix == ".parquet":
            yield from _mirror_samples(path, task, length)
        else:
            yield from read_rows(path, partial(_parse_sample, length))


def find_files(folder: Path, task: str, length: int) -> list[Path]:
    """Return the files of a task at a length, sorted by name.

    They are in ``<length>``, ``<length>/data``, ``data`` or the folder itself, named
    ``<task>/*.jsonl``, ``<task>.jsonl`` or ``<task>_*.jsonl``. A file whose name ends in another
    length, such as ``llama3-131072``, is left out. Without any, they are looked for in folders
    further down, where folders named after another length are left out, and at last in mirrors.

    Raises:
        UserError: if the folder has no such file, or has them in several folders.
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
    nested = [path for path in sample_files(folder, task) if _is_for_length(path, folder, length)]
    of_rows = [path for path in nested if path.suffix == ".jsonl"]
    if of_rows or nested:
        return _of_one_folder(of_rows or nested, task)
    raise UserError(
        f"{folder}: no file of {task} for {length} tokens; "
        f"expected {task}/*.jsonl, {task}.jsonl or {task}_*.jsonl"
    )


def sample_files(folder: Path, task: str) -> list[Path]:
    """Return the files at any depth of a folder that may hold samples of a task, at any length."""
    found: list[Path] = []
    for path in list_folder(folder).files.paths:
        is_called_so = task == path.parent.name or re.fullmatch(
            rf"{re.escape(task)}(_.*)?", path.stem
        )
        is_task = path.suffix == ".jsonl" and is_called_so
        if is_task or (path.suffix == ".parquet" and _is_mirror(folder / path)):
            found.append(folder / path)
    return sorted(found)


def _is_mirror(path: Path) -> bool:
    try:
        return first_fields(path) >= READY_FIELDS | {"answer", "task"}
    except UserError:
        return False


def _is_for_length(path: Path, folder: Path, length: int) -> bool:
    """Return whether neither the name of a file nor that of a folder is another length."""
    lengths = {int(step) for step in path.relative_to(folder).parts[:-1] if step.isdecimal()}
    # A mirror's name ends in the number of its shards.
    of_name = None if path.suffix == ".parquet" else _length_in_name(path)
    return (not lengths or length in lengths) and of_name in (None, length)


def _of_one_folder(paths: list[Path], task: str) -> list[Path]:
    """Return files, or refuse them if they are not all in one folder: whose are the samples?"""
    folders = sorted({path.parent for path in paths})
    if len(folders) > 1:
        raise UserError(
            f"{task}: samples are in {folders[0]} and in {folders[1]}; name one with --data-dir"
        )
    return paths


def _mirror_samples(path: Path, task: str, length: int) -> Iterator[FileSample | FaultyRow]:
    """Yield the samples of a task in a mirror, which holds all tasks."""
    for number, row in enumerate(container_rows(path), 1):
        if row["task"] == task:
            yield parse_value(row, f"{path}: row {number}", partial(_parse_mirror_row, length))


def _parse_mirror_row(length: int, value: Any) -> FileSample:
    """Return a mirror's row as a sample of a length.

    Raises:
        ValueError: for a row with a field of the wrong type, or of another length.
    """
    row = MirrorRow.model_validate(value)
    return _parse_sample(
        length,
        {
            "input": row.context + row.question,
            "answer_prefix": row.answer_prefix,
            "outputs": row.answer,
        },
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
