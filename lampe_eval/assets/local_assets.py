"""Assets on this machine: where copies may be, and the one that is right.

Downloads lie in the cache, laid out as the sources are:

<cache>/assets/<kind>/<repository>/<revision>/<path>    downloaded file
<cache>/unpacked/<sha256>/                              files of the archive with that hash

An offline folder (``--data-dir``, ``LAMPE_EVAL_DATA``) comes before the cache and is never written.
It may be a clone of the source, a mirror of several sources, or a flat folder as upstream's scripts
leave it: a file is looked for by its path in the source or any tail of that path, in the folder
itself and in its folders named after the repository or the benchmark.
"""

import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from lampe_eval import user_cache
from lampe_eval.assets.archive import unpack
from lampe_eval.assets.asset_cards import Asset, AssetSource, find
from lampe_eval.assets.verify import CorruptAsset, LocalAsset, read_manifest, verify
from lampe_eval.errors import UserError


def path_of(name: str, data_dir: Path | None = None) -> Path:
    """Return the verified path of an asset.

    Args:
        name: "bench/file", or "bench/archive!/path" for a file of an archive.
        data_dir: offline folder, looked at before the cache.

    Raises:
        MissingAsset: if it is not on this machine; the message says how to get it.
        UserError: if there is no such asset, or its file is corrupt.
    """
    return locate(find(name), data_dir).open_path()


def digest(name: str, data_dir: Path | None = None) -> str:
    """Return the sha256 of an asset in hexadecimal.

    Args:
        name: as for ``path_of``.
        data_dir: as for ``path_of``.

    Raises:
        UserError: as for ``path_of``.
    """
    local = locate(find(name), data_dir)
    local.open_path()
    return local.sha256


def locate(asset: Asset, data_dir: Path | None = None, *, rehash: bool = False) -> LocalAsset:
    """Find an asset on this machine and verify it; unpack the archive that holds it, if needed.

    Args:
        asset: what to look for.
        data_dir: offline folder, looked at before the cache.
        rehash: take the hash even if nothing changed since the last time.

    Returns:
        The first copy that is right. Without one, state and problem say what was found; they are
        those of the archive, if the asset is in one and the archive is missing or corrupt.

    Raises:
        UserError: if the offline folder does not exist, a file cannot be read, or an archive cannot
            be unpacked or lacks the file.
    """
    problem = ""
    for path, advice in _copies(asset, data_dir):
        # Several files of an offline folder may have this name; only contents tell them apart.
        try:
            return verify(asset, path, rehash=rehash)
        except CorruptAsset as error:
            problem = problem or f"{error}; {advice}"
    if problem:
        return LocalAsset(asset, "corrupt", problem=problem)
    if asset.archive:
        return _locate_unpacked(asset, asset.archive, data_dir)
    return LocalAsset(asset, "missing")


def cache_folder(source: AssetSource) -> Path:
    """Return the folder of the cache that mirrors a source."""
    return user_cache.root() / "assets" / source.kind / source.place / source.revision


def cache_path(asset: Asset) -> Path:
    """Return where an asset is in the cache once it was downloaded."""
    return cache_folder(asset.source) / asset.file.path


def _copies(asset: Asset, data_dir: Path | None) -> Iterator[tuple[Path, str]]:
    """Yield paths at which an asset exists, each with what to do if the file there is wrong."""
    folder = _offline_folder(data_dir)
    if folder:
        for path in _offline_paths(asset, folder):
            yield path, "replace or remove it"
    path = cache_path(asset)
    # A download is complete only when its manifest, written last, exists.
    if read_manifest(path) and path.exists():
        yield path, f"get it again with: lampe-eval data fetch {asset.name}"


def _offline_folder(data_dir: Path | None) -> Path | None:
    variable = os.environ.get("LAMPE_EVAL_DATA")
    if data_dir is None and not variable:
        return None
    folder = (data_dir or Path(str(variable))).expanduser()
    if not folder.is_dir():
        raise UserError(
            f"{folder}: no such folder; "
            "--data-dir and LAMPE_EVAL_DATA name a folder with benchmark files"
        )
    return folder


def _offline_paths(asset: Asset, folder: Path) -> Iterator[Path]:
    """Yield paths in an offline folder at which an asset exists, the most specific first."""
    repository = asset.source.place
    parents = [
        folder / repository,
        folder / PurePosixPath(repository).name,
        folder / asset.bench,
        folder,
    ]
    steps = PurePosixPath(asset.path_in_archive).parts
    tails = ["/".join(steps[start:]) for start in range(len(steps))]
    for tail in (*tails, *asset.file.alternative_paths):
        for parent in parents:
            # An asset of several parts counts as there only with all of them.
            if all(file.is_file() for file in asset.files_at(parent / tail)):
                yield parent / tail


def _locate_unpacked(asset: Asset, archive: Asset, data_dir: Path | None) -> LocalAsset:
    """Return a file of an archive, which is unpacked into the cache under its hash."""
    local = locate(archive, data_dir)
    if local.path is None:
        return local
    # Under the hash, so that files of two versions of an archive never mix.
    folder = user_cache.root() / "unpacked" / local.sha256
    with user_cache.lock(folder):
        if not folder.is_dir():
            unpack(local.path, folder)
    path = _path_unpacked(folder, asset.path_in_archive)
    if path is None:
        raise UserError(f"{archive.name}: has no {asset.path_in_archive}; is it the official file?")
    # The hash is recorded under that of the archive: another archive's file may be another one.
    unpacked = archive.member(f"{local.sha256}/{asset.path_in_archive}")
    try:
        return verify(unpacked, path)
    except CorruptAsset as error:
        advice = f"remove {folder} to unpack {archive.name} again"
        return LocalAsset(unpacked, "corrupt", problem=f"{error}; {advice}")


def _path_unpacked(folder: Path, member: str) -> Path | None:
    """Return the path of a member; some archives are packed without their first folder."""
    for name in (member, member.partition("/")[2]):
        if name and (folder / name).is_file():
            return folder / name
    return None
