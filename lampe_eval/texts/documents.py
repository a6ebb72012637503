"""Texts for benchmarks: a known corpus, the user's files, or texts of the pocket language.

Files of structured data never become a prompt as they are: JSON and Parquet are read for their
texts, and other formats are refused.
"""

import json
import os
import unicodedata
from collections.abc import Iterator
from pathlib import Path

from lampe_eval import assets
from lampe_eval.errors import UserError
from lampe_eval.file_io import file_problem, sha256_of_files
from lampe_eval.texts import pocket_language
from lampe_eval.texts.corpora import (
    COLUMN,
    CORPORA,
    PYTHON_DOCS,
    TABLE_SUFFIXES,
    corpus_files,
    find_corpus,
    python_docs_file,
    table_texts,
)
from lampe_eval.texts.jsonl_rows import NO_TEXT, is_text

JSON_SUFFIX = ".json"
SUFFIXES = (JSON_SUFFIX, ".txt", ".md", *TABLE_SUFFIXES)
OTHER_FORMATS = frozenset(
    ".7z .arrow .avro .bin .bz2 .csv .db .doc .docx .epub .feather .gz .h5 .htm .html .ipynb .jpg "
    ".npy .npz .odt .orc .pdf .pickle .pkl .png .pptx .pt .rar .rtf .safetensors .sqlite "
    ".tar .tgz .toml .tsv .xlsx .xml .xz .yaml .yml .zip .zst".split()
)
"""Suffixes of files that hold no plain text, or text between the marks of a format."""
OTHER_BEGINNINGS = ("%pdf-", "{\\rtf", "<?xml", "<!doctype html", "<html")
"""Beginnings of such files under any other name, in lower case."""
MAX_FILES = 20_000
"""Files that a folder may have."""
CHECKED_LETTERS = 1 << 16
"""Letters at the beginning of a file in which control characters are counted."""
MAX_CONTROL_SHARE = 0.01
"""Share of control characters up to which a file is text: logs of terminals have some."""
MAX_TEXT_BYTES = 1 << 30
"""Bytes of a file that is read as a whole."""
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
        for text in _file_texts(path):
            if text.strip():
                empty = False
                yield text
    if empty:
        raise UserError(f"{source}: no text in it")


def check_texts(source: Path | None, data_dir: Path | None = None) -> None:
    """Read all texts of the user's own files, of which a sample may need any, before the first one.

    Known corpora were compared with their hashes.

    Raises:
        UserError: if one cannot be read; the message names file and line.
    """
    if source is not None and not find_corpus(source):
        for _ in documents(source, seed=0, words=0, data_dir=data_dir):
            pass


def _file_texts(path: Path) -> Iterator[str]:
    """Yield the texts of a file: the only one of a text file, all of a table or of JSON.

    Raises:
        UserError: if the file cannot be read, or is in a format that holds no plain text.
    """
    name = path.name.lower()
    if name.endswith(TABLE_SUFFIXES):
        yield from table_texts(path)
    elif name.endswith(JSON_SUFFIX):
        yield from _json_texts(path, read_text(path))
    elif path.suffix.lower() in OTHER_FORMATS:
        raise UserError(
            f"{path}: cannot be read as text: it is a {path.suffix.lower()} file; "
            f"convert it to one of: {', '.join(SUFFIXES)}"
        )
    else:
        text = read_text(path)
        structured = _structured_texts(path, text)
        yield from [text] if structured is None else structured


def _structured_texts(path: Path, text: str) -> Iterator[str] | None:
    """Return the texts of what is JSON or JSON lines whatever its name says, None for plain text.

    Raises:
        UserError: for another format.
    """
    beginning = text.lstrip()[:20].lower()
    if beginning.startswith(OTHER_BEGINNINGS):
        raise UserError(
            f"{path}: cannot be read as text: it begins like {beginning.split()[0]!r}, which is "
            f"another format; convert it to one of: {', '.join(SUFFIXES)}"
        )
    if not beginning.startswith(("{", "[")):
        return None
    if _is_json(text):
        return _json_texts(path, text)
    first, *others = (line for line in text.splitlines() if line.strip())
    if others and first.startswith("{") and _is_json(first):
        return table_texts(path)
    return None


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _json_texts(path: Path, content: str) -> Iterator[str]:
    """Yield the texts of a JSON file: of an object with a text, or of an array of such or of texts.

    Raises:
        UserError: if the file is not JSON, or one of its parts has no text.
    """
    try:
        value = json.loads(content)
    except ValueError as error:
        raise UserError(f"{path}: cannot be read: it is not JSON ({error})") from None
    except RecursionError:
        raise UserError(f"{path}: cannot be read: its JSON is nested too deeply") from None
    for number, part in enumerate(value if isinstance(value, list) else [value], 1):
        text = part.get(COLUMN) if isinstance(part, dict) else part
        place = f"{path}: part {number}" if isinstance(value, list) else f"{path}"
        if not isinstance(text, str):
            raise UserError(f"{place}: has no key {COLUMN!r} with text, so it is no haystack")
        if not is_text(text):
            raise UserError(f"{place}: {NO_TEXT}")
        yield text


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
    python_docs = python_docs_file(source)
    if python_docs:
        return [python_docs]
    # An empty option arrives as the current folder, so that one needs its full path.
    if source == Path():
        raise UserError("no text is named; name a file or folder, the current one by its full path")
    if source.is_dir():
        return _folder_files(source)
    if not source.exists():
        raise UserError(
            f"{source}: no such file or folder; give a text file, a folder of {_suffixes()} files, "
            f"or one of: {', '.join((*CORPORA, PYTHON_DOCS))}"
        )
    return [_plain_file(source)]


def _folder_files(folder: Path) -> list[Path]:
    """Return the text files of a folder and its subfolders; links to folders are not followed."""
    files = []
    count = 0
    for parent, _, names in os.walk(folder):
        count += len(names)
        if count > MAX_FILES:
            raise UserError(f"{folder}: has more than {MAX_FILES} files; name a smaller folder")
        files += [_plain_file(Path(parent, name)) for name in names if name.endswith(SUFFIXES)]
    if not files:
        raise UserError(f"{folder}: no text in this folder; it needs {_suffixes()} files")
    # Sorted, because file systems list files in orders of their own.
    return sorted(files)


def _plain_file(path: Path) -> Path:
    """Return a path after checking that it is a file of a size that can be read.

    Raises:
        UserError: for anything else: opening a pipe waits for a writer, and a device has no end.
    """
    problem = file_problem(path)
    if problem:
        raise UserError(f"{path}: cannot be read: {problem}; remove or replace it")
    # Tables are read row by row.
    if path.stat().st_size > MAX_TEXT_BYTES and not path.name.lower().endswith(TABLE_SUFFIXES):
        raise UserError(f"{path}: has more than {MAX_TEXT_BYTES >> 20} MiB; split it")
    return path


def read_text(path: Path) -> str:
    """Return the text of a file, without a byte order mark.

    Raises:
        UserError: if it cannot be read as UTF-8, or holds what no text does.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise UserError(f"{path}: cannot be read: {reason}") from None
    beginning = text[:CHECKED_LETTERS]
    controls = sum(unicodedata.category(letter) == "Cc" for letter in beginning)
    controls -= sum(beginning.count(space) for space in "\t\n\r\f\v")
    if "\0" in text or controls > MAX_CONTROL_SHARE * len(beginning):
        raise UserError(f"{path}: cannot be read: it holds control characters, so it is not text")
    return text


def _suffixes() -> str:
    return f"{', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]}"
