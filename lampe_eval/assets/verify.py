"""Whether a file is what it should be: its size on every look, its sha256 whenever it changed since the last one.

A manifest notes each file's size and time of change beside the hash they had; while these stand, the hash does.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from lampe_eval.assets import cache, pins
from lampe_eval.assets.card import Asset
from lampe_eval.errors import UserError

CHUNK = 1 << 20
State = Literal["present", "unpinned", "missing", "corrupt"]


class Corrupt(UserError):
    """A file that is not what it should be."""


@dataclass(frozen=True)
class Manifest:
    """What a file was when its hash was taken.

    Attributes:
        sha256: of its contents.
        stamps: size and time of change in nanoseconds of each of its files.
    """

    sha256: str
    stamps: list[list[int]]


def check(asset: Asset, path: Path, *, again: bool = False) -> State:
    """Verifies an asset at a path; ``again`` takes its hash even where nothing changed. Ends by writing its manifest.

    Returns:
        "present", or "unpinned" where there is no hash, or only that of the first fetch.

    Raises:
        Corrupt: for a file of another size or hash; it names file, expected and got.
        UserError: for a file that cannot be read.
    """
    files = [path / part for part in asset.file.parts] or [path]
    try:
        stamps = [[file.stat().st_size, file.stat().st_mtime_ns] for file in files]
        known = None if again else manifest(path)
        _check_size(asset, path, sum(size for size, _ in stamps))
        fresh = known is not None and known.stamps == stamps
        got = known.sha256 if known and fresh else _sha256(files)
    except FileNotFoundError as error:
        raise Corrupt(
            f"{asset.name}: {path} is not complete: {error.filename} is missing"
        ) from None
    except OSError as error:
        raise UserError(f"{asset.name}: {path} cannot be read ({error.strerror})") from None
    state = _check_hash(asset, path, got, sum(size for size, _ in stamps))
    if not fresh:
        cache.write(cache.manifest(path), json.dumps(asdict(Manifest(got, stamps))))
    return state


def manifest(path: Path) -> Manifest | None:
    """The manifest of an asset at a path; None where there is none that can be read."""
    try:
        return Manifest(**json.loads(cache.manifest(path).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def _check_size(asset: Asset, path: Path, got: int) -> None:
    if asset.file.bytes not in (None, got):
        raise Corrupt(
            f"{asset.name}: {path} is corrupt: expected {asset.file.bytes} bytes, got {got}"
        )


def _check_hash(asset: Asset, path: Path, got: str, size: int) -> State:
    expected, where = asset.file.sha256, ""
    if expected is None:
        expected = pins.recorded(asset)
        if expected is None and not path.absolute().is_relative_to(cache.root()):
            return "unpinned"  # a copy of the user's own decides for no other
        expected = expected or pins.record(asset, {"bytes": size, "sha256": got})
        where = f" (recorded on first use in {pins.lock_file()}; remove it there if that was wrong)"
    if got != expected:
        raise Corrupt(
            f"{asset.name}: {path} is corrupt: expected sha256 {expected}{where}, got {got}"
        )
    return "unpinned" if asset.file.sha256 is None else "present"


def _sha256(files: Sequence[Path]) -> str:
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as stream:
            while chunk := stream.read(CHUNK):
                digest.update(chunk)
    return digest.hexdigest()
