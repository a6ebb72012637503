"""Corpora by name, and texts from tables: Parquet, and JSON objects one a line, both with a column ``text``.

Files are read through the ``datasets`` library as streams, so that no copy is kept and one batch is held at a time.
JSON lines are read as lines: the library's own reader wants one schema for every field of a file, and a field such as
``meta`` of Proof-pile may have several.
"""

import glob
import json
import logging
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from lampe_eval import assets
from lampe_eval.assets import cache
from lampe_eval.errors import UserError

CORPORA: Mapping[str, str] = {
    "pg19-test": "ppl/pg19-test.parquet",
    "pg19-validation": "ppl/pg19-validation.parquet",
    "proof-pile": "ppl/proof-pile-test.jsonl.gz",
    "essays": "niah/PaulGrahamEssays",
}
"""Files by the name of a corpus."""

PARQUET = (".parquet",)
LINES = (".jsonl", ".jsonl.gz")
COLUMN = "text"


def find_corpus(source: Path | None) -> str | None:
    """The asset that a source names, unless a file or folder of that name is here."""
    return CORPORA.get(str(source)) if source and not source.exists() else None


def corpus_files(asset: str, data_dir: Path | None) -> list[Path]:
    """The verified files of a corpus in their order.

    Raises:
        UserError: where one is missing or corrupt.
    """
    path = assets.path_of(asset, data_dir)
    return [path / part for part in assets.find(asset).file.parts] or [path]


def table_texts(path: Path) -> Iterator[str]:
    """The texts of a table, row by row.

    Raises:
        UserError: for a file that is not whole, or a row without text; it names the file.
    """
    return _parquet(path) if path.name.endswith(PARQUET) else _json_lines(path)


def _parquet(path: Path) -> Iterator[str]:
    for number, row in enumerate(_stream(path, "parquet", columns=[COLUMN]), 1):
        yield _text(row, f"{path}: row {number}")


def _json_lines(path: Path) -> Iterator[str]:
    for number, row in enumerate(_stream(path, "text"), 1):
        if row["text"].strip():
            yield _text(_parsed(row["text"], f"{path}:{number}"), f"{path}:{number}")


def _stream(path: Path, builder: str, **settings: Any) -> Iterator[Mapping[str, Any]]:
    """Rows of a file by one of the library's builders. What a broken file raises there is as varied as the formats."""
    import datasets  # type: ignore[import-untyped]  # here, as it takes seconds
    import pyarrow  # type: ignore[import-untyped]

    datasets.logging.set_verbosity(logging.CRITICAL)  # it reports the errors that it raises
    broken = (
        OSError,
        ValueError,
        EOFError,
        zlib.error,
        pyarrow.ArrowException,
        datasets.exceptions.DatasetsError,
    )
    if path.stat().st_size == 0:
        return
    try:
        yield from datasets.load_dataset(
            builder,
            data_files=glob.escape(str(path)),
            split="train",
            streaming=True,
            cache_dir=str(cache.root() / "datasets"),
            **settings,
        )
    except broken as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"{path}: cannot be read ({reason[:200]})") from None


def _parsed(line: str, where: str) -> Any:
    try:
        return json.loads(line)
    except ValueError:
        raise UserError(f"{where}: is not JSON; is the file whole?") from None


def _text(row: Any, where: str) -> str:
    text = row.get(COLUMN) if isinstance(row, Mapping) else None
    if not isinstance(text, str):
        raise UserError(f"{where}: has no column {COLUMN!r} with text")
    return text
