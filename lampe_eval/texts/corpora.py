"""Corpora by name, and texts from tables: Parquet, and JSON objects, one per line.

Both have a column ``text``. Files are read through the ``datasets`` library as streams, so that no
copy is stored and one batch is in memory at a time. JSON objects are read as lines of text: the
library's own reader wants one schema for all rows, and a field such as ``meta`` of Proof-pile may
have several.
"""

import glob
import gzip
import logging
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from lampe_eval import assets, user_cache
from lampe_eval.errors import UserError
from lampe_eval.file_io import sha256_of_text
from lampe_eval.texts.jsonl_rows import parse_line

CORPORA: Mapping[str, str] = {
    "pg19-test": "ppl/pg19-test.parquet",
    "pg19-validation": "ppl/pg19-validation.parquet",
    "proof-pile": "ppl/proof-pile-test.jsonl.gz",
    "essays": "niah/PaulGrahamEssays",
    "ruler-essays": "ruler/PaulGrahamEssays.json",
}
"""Assets by the name of a corpus."""
PYTHON_DOCS = "python-docs"
"""Name of the corpus that comes with Python: the topics of its `help`, from its own reference."""

PARQUET_SUFFIXES = (".parquet",)
JSON_LINES_SUFFIXES = (".jsonl", ".jsonl.gz")
TABLE_SUFFIXES = (*PARQUET_SUFFIXES, *JSON_LINES_SUFFIXES)
COLUMN = "text"
MAX_LINE_LETTERS = 1 << 26
"""Letters of a line of a table; a book has a few million."""


def find_corpus(source: Path | None) -> str | None:
    """Return the asset of the corpus that a source names.

    None if it names none, or if a file or folder of that name exists.
    """
    return CORPORA.get(str(source)) if source and not source.exists() else None


def corpus_files(asset: str, data_dir: Path | None) -> list[Path]:
    """Return the verified files of a corpus in their order.

    Raises:
        UserError: if one is missing or corrupt.
    """
    return assets.find(asset).files_at(assets.path_of(asset, data_dir))


def python_docs_file(source: Path) -> Path | None:
    """Return a file of the cache with the topics of Python's `help`, in the order of their names.

    None if the source does not name them, or if a file or folder of that name exists.

    Raises:
        UserError: if this Python comes without them, or the cache cannot be written.
    """
    if str(source) != PYTHON_DOCS or source.exists():
        return None
    try:
        from pydoc_data.topics import topics
    except ImportError:
        raise UserError(
            f"{PYTHON_DOCS}: this Python comes without pydoc_data, which has the text; "
            "use another Python, or another text"
        ) from None
    text = "\n\n".join(topics[name].strip() for name in sorted(topics)) + "\n"
    # Versions of Python have other texts, so each has a file of its own.
    path = user_cache.root() / "texts" / f"{PYTHON_DOCS}-{sha256_of_text(text)[:16]}.txt"
    if not path.exists():
        user_cache.write(path, text)
    return path


def table_texts(path: Path) -> Iterator[str]:
    """Yield the texts of a table, row by row.

    Raises:
        UserError: if the file is broken, or a row has no text; the message names file and row.
    """
    if path.name.endswith(PARQUET_SUFFIXES):
        for number, row in enumerate(_stream(path, "parquet", columns=[COLUMN]), 1):
            yield _text(row, f"{path}: row {number}")
        return
    for number, line in enumerate(_lines(path), 1):
        if line.strip("\ufeff \t\r\n"):
            yield _text(parse_line(line, f"{path}:{number}"), f"{path}:{number}")


def _lines(path: Path) -> Iterator[str]:
    """Yield the lines of a text file, unpacked on the way where its name ends in `.gz`.

    Raises:
        UserError: if the file is broken, or has a line that is too long: a few bytes of an archive
            can become gigabytes.
    """
    try:
        with (gzip.open if path.suffix == ".gz" else open)(path, "rt", encoding="utf-8") as file:
            number = 0
            while line := file.readline(MAX_LINE_LETTERS + 1):
                number += 1
                if len(line) > MAX_LINE_LETTERS:
                    raise UserError(
                        f"{path}:{number}: has a line of more than {MAX_LINE_LETTERS >> 20} "
                        "million letters; is it the right file?"
                    )
                yield line
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{path}: cannot be read ({reason[:200]})") from None


def _stream(path: Path, builder: str, **settings: Any) -> Iterator[Mapping[str, Any]]:
    """Yield the rows of a file, read by one of the builders of ``datasets``."""
    # Imported here because it takes seconds.
    import datasets  # type: ignore[import-untyped]
    import pyarrow  # type: ignore[import-untyped]

    # The library also logs every error that it raises.
    datasets.logging.set_verbosity(logging.CRITICAL)
    # Each format has its own errors for a broken file, and the library passes them on.
    read_errors = (
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
            cache_dir=str(user_cache.root() / "datasets"),
            **settings,
        )
    except read_errors as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"{path}: cannot be read ({reason[:200]})") from None


def _text(row: Any, location: str) -> str:
    text = row.get(COLUMN) if isinstance(row, Mapping) else None
    if not isinstance(text, str):
        raise UserError(f"{location}: has no column {COLUMN!r} with text")
    return text
