"""Verification of a file on this machine: its size each time, its sha256 whenever it has changed.

A manifest in the cache records the size and modification time that each file had when its hash was
taken. While these stay the same, the recorded hash is used: files of a benchmark have up to a
gigabyte, and a run looks at them several times.

<cache>/assets/.../<path>.manifest.json          manifest of a downloaded file, written last
<cache>/offline/<absolute path>.manifest.json    manifest of a file in an offline folder
<cache>/derived/<hash>/...                       files unpacked and converted from an offline folder
"""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from lampe_eval import user_cache
from lampe_eval.assets import pins
from lampe_eval.assets.asset_cards import Asset
from lampe_eval.errors import UserError
from lampe_eval.file_io import sha256_of_files

DERIVED = "derived"
"""Folder of the cache for what is unpacked and converted from files of an offline folder."""

AssetState = Literal["present", "unpinned", "missing", "corrupt"]


class MissingAsset(UserError):
    """Asset that is neither in the offline folder nor in the cache."""


class CorruptAsset(UserError):
    """File that has another size or hash than its asset."""


@dataclass(frozen=True)
class LocalAsset:
    """State of an asset on this machine.

    Attributes:
        asset: the asset that was looked for.
        state: "present" (its hash is the one on the card), "unpinned" (the card has no hash; at
            most that of the first download was compared), "missing" or "corrupt".
        path: verified file, or folder for an asset of several parts; None unless there is one.
        sha256: hash of the contents; empty without a path.
        problem: what is wrong with a corrupt file, and what to do about it.
        found: where it was found; the container that holds it, if it is in one.
        layout: how it lies there, such as "parquet in zip"; empty for a file as the official one.
        ready: files of the offline folder that hold ready prompts instead of its rows; a line each.
        unused: what else has its name there and cannot be used, and why; a line each.
    """

    asset: Asset
    state: AssetState
    path: Path | None = None
    sha256: str = ""
    problem: str = ""
    found: str = ""
    layout: str = ""
    ready: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()

    def open_path(self) -> Path:
        """Return the verified path.

        Raises:
            MissingAsset: if the asset is missing; the message says how to get it.
            CorruptAsset: if the asset is corrupt; the message names file, expected and got.
        """
        if self.state == "corrupt":
            raise CorruptAsset(self.problem)
        if self.path is None:
            file, source = Path(self.asset.file.path).name, self.asset.source
            get = f"get it with: lampe-eval data fetch {self.asset.name}, or"
            if source.user_copies:
                get = f"get it from {source.place} and"
            raise MissingAsset(
                f"{self.asset.name}: is not on this machine; "
                f"{get} name a folder that has {file} with --data-dir"
                f"{describe_unused([self])}"
            )
        return self.path


def describe_unused(assets: Iterable[LocalAsset]) -> str:
    """Return the end of a message: what has an asset's name but cannot be used, if any."""
    found = list(assets)
    unused = [local.problem for local in found if local.problem]
    for local in found:
        unused += local.ready
    for local in found:
        unused += local.unused
    if not unused:
        return ""
    more = f" ({len(unused) - 1} more: lampe-eval data where)" if len(unused) > 1 else ""
    return f"; not used: {unused[0]}{more}"


@dataclass(frozen=True)
class Manifest:
    """Record of a file at the time its hash was taken.

    Attributes:
        sha256: hash of the contents.
        stamps: size in bytes and modification time in nanoseconds of each of its files.
    """

    sha256: str
    stamps: list[list[int]]


def verify(asset: Asset, path: Path, *, rehash: bool = False) -> LocalAsset:
    """Return the state of an asset after checking the size and hash of what is at a path.

    Args:
        asset: what should be there.
        path: file, or folder for an asset of several parts.
        rehash: take the hash even if nothing changed since the last time.

    Raises:
        CorruptAsset: if the size or hash is wrong; the message names file, expected and got.
        UserError: if the file cannot be read, or the cache cannot be written.
    """
    files = asset.files_at(path)
    try:
        stamps = [_stamp(file) for file in files]
        size = sum(stamp[0] for stamp in stamps)
        _check_size(asset, path, size)
        manifest = None if rehash else read_manifest(path)
        unchanged = manifest is not None and manifest.stamps == stamps
        sha256 = manifest.sha256 if manifest and unchanged else sha256_of_files(files)
    except FileNotFoundError as error:
        raise CorruptAsset(
            f"{asset.name}: {path} is not complete: {error.filename} is missing"
        ) from None
    except OSError as error:
        raise UserError(f"{asset.name}: {path} cannot be read ({error.strerror})") from None
    _check_sha256(asset, path, sha256, size)
    # Only now, or a corrupt file would count as hashed the next time.
    if not unchanged:
        user_cache.write(manifest_path(path), json.dumps(asdict(Manifest(sha256, stamps))))
    state: AssetState = "unpinned" if asset.file.sha256 is None else "present"
    return LocalAsset(asset, state, path, sha256)


def read_manifest(path: Path) -> Manifest | None:
    """Return the manifest for a file or folder; None if there is none that can be read."""
    try:
        return Manifest(**json.loads(manifest_path(path).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def manifest_path(path: Path) -> Path:
    """Return where the manifest for a file or folder is, which is always in the cache."""
    path = path.absolute()
    # An offline folder is never written, so the manifests for its files lie in the cache.
    if not path.is_relative_to(user_cache.root()):
        path = user_cache.root() / "offline" / path.relative_to(path.anchor)
    return path.with_name(f"{path.name}.manifest.json")


def _stamp(file: Path) -> list[int]:
    status = file.stat()
    # Quick to read where a hash reads up to a gigabyte, and a run looks at a file several times.
    return [status.st_size, status.st_mtime_ns]


def _is_official(path: Path) -> bool:
    """Return whether a file was downloaded, or unpacked from a download."""
    cache = user_cache.root()
    return path.is_relative_to(cache) and not path.is_relative_to(cache / DERIVED)


def _check_size(asset: Asset, path: Path, size: int) -> None:
    if asset.file.bytes not in (None, size):
        raise CorruptAsset(
            f"{asset.name}: {path} is corrupt: expected {asset.file.bytes} bytes, got {size}"
        )


def _check_sha256(asset: Asset, path: Path, sha256: str, size: int) -> None:
    expected = asset.file.sha256
    origin = ""
    if expected is None:
        expected = pins.recorded_sha256(asset.url)
        if expected is None and not _is_official(path.absolute()):
            # A user's local file is never recorded: it would then be the reference for the
            # official file, should that be downloaded later.
            return
        if expected is None:
            expected = pins.record(asset.url, {"bytes": size, "sha256": sha256})
        origin = f" (recorded on first use in {pins.lock_file()}; remove it there if it was wrong)"
    if sha256 != expected:
        raise CorruptAsset(
            f"{asset.name}: {path} is corrupt: expected sha256 {expected}{origin}, got {sha256}"
        )
