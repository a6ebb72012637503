"""A verified path of an asset, from the offline folder or the cache. This is all that benches need."""

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from lampe_eval.assets import cache
from lampe_eval.assets.archive import unpack
from lampe_eval.assets.card import Asset, find
from lampe_eval.assets.verify import Corrupt, State, check, manifest
from lampe_eval.errors import UserError


class Missing(UserError):
    """A file that is neither in the offline folder nor in the cache."""


def path_of(name: str, data_dir: Path | None = None) -> Path:
    """Where a file is, verified: "bench/file", or "bench/archive!/member" for one of an archive.

    Raises:
        Missing: where it is not here.
        UserError: where there is no such asset, or it is corrupt.
    """
    name, _, member = name.partition("!/")
    return load_member(find(name), member, data_dir) if member else load(find(name), data_dir)


def digest(name: str, data_dir: Path | None = None) -> str:
    """The sha256 of a file; arguments and errors are those of ``path_of``."""
    known = manifest(path_of(name, data_dir))
    assert known, f"{name} was verified"
    return known.sha256


def load(asset: Asset, data_dir: Path | None = None) -> Path:
    """Where an asset is, verified.

    Raises:
        Missing: where it is not here; it says how to get it.
        UserError: where it is corrupt.
    """
    path, _ = locate(asset, data_dir)
    if path is None:
        raise Missing(
            f"{asset.name}: is not here; get it with: lampe-eval data fetch {asset.name}, "
            f"or name a folder that has {PurePosixPath(asset.file.path).name} with --data-dir"
        )
    return path


def load_member(asset: Asset, member: str, data_dir: Path | None = None) -> Path:
    """Where a file of an archive is, verified: unpacked in an offline folder, or unpacked from the archive.

    Args:
        member: path in the archive; its first folder may be missing there.

    Raises:
        UserError: where archive and file are missing, corrupt or unsafe.
    """
    inner = asset.member(member)
    path, _ = locate(inner, data_dir)
    if path:
        return path
    folder = _unpacked(asset, load(asset, data_dir))
    ways = [folder / way for way in (member, member.partition("/")[2]) if way]
    path = next((way for way in ways if way.is_file()), None)
    if path is None:
        raise UserError(f"{asset.name}: has no {member}; is it the official file?")
    try:
        check(
            asset.member(f"{folder.name}/{member}"), path
        )  # the archive vouches for it, no copy of elsewhere
    except Corrupt as error:
        raise Corrupt(f"{error}; remove {folder} to unpack {asset.name} anew") from None
    return path


def locate(
    asset: Asset, data_dir: Path | None = None, *, again: bool = False
) -> tuple[Path | None, State]:
    """Path and state of an asset; no path for one that is missing. ``again`` takes its hash in any case.

    Raises:
        Corrupt: where it is there, but nowhere as it should be.
    """
    folder = cache.offline(data_dir)
    wrong: Corrupt | None = None
    for path, advice in [*_offline(asset, folder), *_cached(asset)]:
        try:
            return path, check(asset, path, again=again)
        except Corrupt as error:
            wrong = wrong or Corrupt(f"{error}; {advice}")
    if wrong:
        raise wrong
    return None, "missing"


def _offline(asset: Asset, folder: Path | None) -> Iterator[tuple[Path, str]]:
    """Places in the offline folder, each with what to do about a wrong file there."""
    for path in cache.candidates(asset, folder) if folder else ():
        yield path, "replace or remove it"


def _cached(asset: Asset) -> Iterator[tuple[Path, str]]:
    home = cache.home(asset)
    if manifest(home) and home.exists():
        yield home, f"get it anew with: lampe-eval data fetch {asset.name}"


def _unpacked(asset: Asset, archive: Path) -> Path:
    """Folder with an archive's files, kept in the cache under the archive's hash."""
    known = manifest(archive)
    assert known, f"{asset.name} was verified"
    target = cache.root() / "unpacked" / known.sha256
    with cache.locked(target):
        if not target.is_dir():
            unpack(archive, target)
    return target
