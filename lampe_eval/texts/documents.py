"""Text for benchmarks: a known corpus, the user's files, or as much of the pocket language as is needed."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

from lampe_eval import assets
from lampe_eval.errors import UserError
from lampe_eval.texts import pocket_language
from lampe_eval.texts.corpora import CORPORA, LINES, PARQUET, corpus_files, find_corpus, table_texts

SUFFIXES = (".txt", ".md", *PARQUET, *LINES)
CHUNK = 1 << 20


def documents(
    source: Path | None, *, seed: int, words: int, data_dir: Path | None = None
) -> Iterator[str]:
    """Texts of a source: a corpus by name, a folder's files in the order of their names, one file, or pocket texts.

    Args:
        words: of a pocket text.
        data_dir: folder with benchmark files, looked at before the cache.

    Raises:
        UserError: for a file or folder that cannot be read or has no text.
    """
    if source is None:
        yield from (
            pocket_language.text(1_000_000 * (seed + 1) + index, words)
            for index in range(1_000_000)
        )
        return
    empty = True
    for path in text_files(source, data_dir):
        for text in (
            table_texts(path) if path.name.endswith((*PARQUET, *LINES)) else (read_text(path),)
        ):
            if text.strip():
                empty = False
                yield text
    if empty:
        raise UserError(f"{source}: no text in it")


def required_files(source: Path | None) -> list[str]:
    """Names of the files, as ``lampe_eval.assets`` has them, that a source is made of."""
    asset = find_corpus(source)
    return [asset] if asset else []


def digest(source: Path, data_dir: Path | None = None) -> str:
    """A source by its content, so that a changed file is another configuration.

    Raises:
        UserError: for a file or folder that cannot be read.
    """
    asset = find_corpus(source)
    sha256 = assets.digest(asset, data_dir) if asset else digest_of(text_files(source, data_dir))
    return f"{source.name} sha256:{sha256[:16]}"


def text_files(source: Path, data_dir: Path | None = None) -> list[Path]:
    """The files of a corpus, the file, or the text files of a folder in the order of their names.

    Raises:
        UserError: where there is none.
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
    found = sorted(file for file in source.rglob("*") if file.name.endswith(SUFFIXES))
    if not found:
        raise UserError(f"{source}: no text in this folder; it needs {_suffixes()} files")
    return found


def read_text(path: Path) -> str:
    """A file's text.

    Raises:
        UserError: where it cannot be read as UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise UserError(f"{path}: cannot be read: {reason}") from None


def _suffixes() -> str:
    return f"{', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]}"


def digest_of(files: list[Path]) -> str:
    """The sha256 of files one after the other.

    Raises:
        UserError: for one that cannot be read.
    """
    digest = hashlib.sha256()
    for file in files:
        try:
            with file.open("rb") as stream:
                while chunk := stream.read(CHUNK):
                    digest.update(chunk)
        except OSError as error:
            raise UserError(f"{file}: cannot be read: {error.strerror}") from None
    return digest.hexdigest()
