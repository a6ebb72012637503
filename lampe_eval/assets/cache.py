"""Where assets lie.

The cache is the user's own (``LAMPE_EVAL_CACHE`` moves it) and laid out as the sources are:

<cache>/assets/<kind>/<repository>/<revision>/<path>                   what was fetched
<cache>/assets/<kind>/<repository>/<revision>/<path>.manifest.json     written last: without it the file is not complete
<cache>/offline/<absolute path>.manifest.json                          the same for files of an offline folder
<cache>/unpacked/<sha256>/                                             an archive's files
<cache>/assets.lock                                                    hashes recorded on first fetch

An offline folder (``--data-dir``, ``LAMPE_EVAL_DATA``) is only read. A file is looked for by its path in the source or
any tail of that, in the folder itself or in one called like the repository or the bench. So the folder may be a clone,
a mirror of several sources, or files side by side as upstream's scripts leave them.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from filelock import FileLock
from platformdirs import user_cache_path

from lampe_eval.assets.card import Asset, Source
from lampe_eval.errors import UserError


def root() -> Path:
    """The cache."""
    chosen = os.environ.get("LAMPE_EVAL_CACHE")
    return (
        Path(chosen).expanduser().absolute()
        if chosen
        else user_cache_path("lampe-eval", appauthor=False)
    )


def shelf(source: Source) -> Path:
    """Folder of the cache that mirrors a source."""
    return root() / "assets" / source.kind / source.place / source.revision


def home(asset: Asset) -> Path:
    """Where an asset lies once it was fetched."""
    return shelf(asset.source) / asset.file.path


def manifest(path: Path) -> Path:
    """The file that vouches for an asset at a path, in the cache or elsewhere."""
    path = path.absolute()
    if not path.is_relative_to(root()):
        path = root() / "offline" / path.relative_to(path.anchor)
    return path.with_name(f"{path.name}.manifest.json")


def offline(folder: Path | None) -> Path | None:
    """The offline folder: the one given, or the environment's.

    Raises:
        UserError: for one that does not exist.
    """
    chosen = folder or (Path(value) if (value := os.environ.get("LAMPE_EVAL_DATA")) else None)
    if chosen is None:
        return None
    if not chosen.expanduser().is_dir():
        raise UserError(
            f"{chosen}: no such folder; --data-dir and LAMPE_EVAL_DATA name a folder with benchmark files"
        )
    return chosen.expanduser()


def candidates(asset: Asset, folder: Path) -> Iterator[Path]:
    """Paths in an offline folder at which an asset is, those that say most about it first."""
    repository = asset.source.place
    tops = [
        folder / repository,
        folder / PurePosixPath(repository).name,
        folder / asset.bench,
        folder,
    ]
    steps = PurePosixPath(asset.file.path.rpartition("!/")[2]).parts
    tails = ["/".join(steps[start:]) for start in range(len(steps))]
    return (
        path
        for way in (*tails, *asset.file.also)
        for top in tops
        if _holds(asset, path := top / way)
    )


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Keeps other processes from a path of the cache, whose folder is made.

    Raises:
        UserError: where the cache cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path.with_name(f"{path.name}.lock"))
        lock.acquire()
    except OSError as error:
        raise unwritable(path, error) from None
    try:
        yield
    finally:
        lock.release()


def write(path: Path, text: str) -> None:
    """Writes a small file whole or not at all.

    Raises:
        UserError: where the cache cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_name(f"{path.name}.{os.getpid()}.part")
        draft.write_text(text, encoding="utf-8")
        draft.replace(path)
    except OSError as error:
        raise unwritable(path, error) from None


def unwritable(path: Path, error: OSError) -> UserError:
    """The error for a cache that cannot be written."""
    return UserError(
        f"{path}: cannot be written ({error.strerror}); LAMPE_EVAL_CACHE names another folder"
    )


def _holds(asset: Asset, path: Path) -> bool:
    return (
        all((path / part).is_file() for part in asset.file.parts)
        if asset.file.parts
        else path.is_file()
    )
