"""Texts for benchmarks: a known corpus, the user's files, or texts of the pocket language."""

from collections.abc import Iterator
from pathlib import Path

from lampe_eval import assets
from lampe_eval.errors import UserError
from lampe_eval.file_io import sha256_of_files
from lampe_eval.texts import pocket_language
from lampe_eval.texts.corpora import (
    CORPORA,
    TABLE_SUFFIXES,
    corpus_files,
    find_corpus,
    table_texts,
)

SUFFIXES = (".txt", ".md", *TABLE_SUFFIXES)
POCKET_TEXTS = 1_000_000
"""Number of pocket texts per seed; the seeds' texts do not overlap."""


def documents(
    source: Path | None, *, seed: int, words: int, data_dir: Path | None = None
) -> Iterator[str]:
    """Yield the texts of a source; texts without any character but whitespace are skipped.

    Args:
        source: name of a corpus, a file, or a folder, whose files are read in the order of their
            names; None for texts of the pocket language.
        seed: chooses the pocket texts.
        words: length of a pocket text in words.
        data_dir: folder with benchmark files, looked at before the cache.

    Raises:
        UserError: if a file or folder cannot be read or has no text.
    """
    if source is None:
        # Not from 0 on: the pocket model's own scores are of the texts with those numbers.
        first = POCKET_TEXTS * (seed + 1)
        for number in range(first, first + POCKET_TEXTS):
            yield pocket_language.text(number, words)
        return
    empty = True
    for path in text_files(source, data_dir):
        is_table = path.name.endswith(TABLE_SUFFIXES)
        for text in table_texts(path) if is_table else [read_text(path)]:
            if text.strip():
                empty = False
                yield text
    if empty:
        raise UserError(f"{source}: no text in it")


def required_files(source: Path | None) -> list[str]:
    """Return the names of the assets that a source consists of; none for the user's own files."""
    asset = find_corpus(source)
    return [asset] if asset else []


def digest(source: Path, data_dir: Path | None = None) -> str:
    """Return name and hash of a source, so that a changed file is another configuration.

    Raises:
        UserError: if a file or folder cannot be read.
    """
    asset = find_corpus(source)
    sha256 = assets.digest(asset, data_dir) if asset else digest_of(text_files(source, data_dir))
    return f"{source.name} sha256:{sha256[:16]}"


def digest_of(files: list[Path]) -> str:
    """Return the sha256 of files, one after the other, in hexadecimal.

    Raises:
        UserError: if one cannot be read.
    """
    try:
        return sha256_of_files(files)
    except OSError as error:
        raise UserError(f"{error.filename}: cannot be read: {error.strerror}") from None


def text_files(source: Path, data_dir: Path | None = None) -> list[Path]:
    """Return the files of a corpus, a file itself, or the text files of a folder by name.

    Raises:
        UserError: if there is none.
    """
    asset = find_corpus(source)
    if asset:
        return corpus_files(asset, data_dir)
    if source.is_file():
        return [source]
    if not source.is_dir():
        raise UserError(
            f"{source}: no such file or folder; give a text file, a folder of {_suffixes()} files, "
            f"or one of: {', '.join(CORPORA)}"
        )
    # Sorted, because file systems list files in orders of their own.
    files = sorted(file for file in source.rglob("*") if file.name.endswith(SUFFIXES))
    if not files:
        raise UserError(f"{source}: no text in this folder; it needs {_suffixes()} files")
    return files


def read_text(path: Path) -> str:
    """Return the text of a file.

    Raises:
        UserError: if it cannot be read as UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise UserError(f"{path}: cannot be read: {reason}") from None


def _suffixes() -> str:
    return f"{', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]}"
