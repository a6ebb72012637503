"""Getting an asset from its source into the cache, one process at a time.

Files of the hub come through huggingface_hub, others through web.py; both go on with a broken transfer. Nothing is used
before it was verified, and the manifest that says so is written last.
"""

import errno
import shutil
from http.client import HTTPException
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.parse import quote

from lampe_eval.assets import cache
from lampe_eval.assets.card import Asset
from lampe_eval.assets.verify import Corrupt, State, check, manifest
from lampe_eval.assets.web import Progress, TooLong, download
from lampe_eval.errors import UserError

LARGEST = 4 << 30  # bytes of a file whose size is not known
DISK = (
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EROFS,
    errno.EFBIG,
    errno.EACCES,
    errno.ENOTDIR,
    errno.EISDIR,
)


class Unreachable(UserError):
    """A source that does not answer."""


def fetch(asset: Asset, progress: Progress = lambda _: None) -> State:
    """Brings an asset into the cache, unless it is there and sound.

    Raises:
        Unreachable: where no address of it answers; what came is kept and the next call goes on with it.
        Corrupt: where something else came; nothing of it is kept.
        UserError: where the cache cannot be written.
    """
    home = cache.home(asset)
    with cache.locked(home):
        try:
            state = _state(asset, home)
            return state or _bring(asset, home, progress)
        except OSError as error:
            raise cache.unwritable(home, error) from None


def _state(asset: Asset, home: Path) -> State | None:
    """State of what is in the cache. What is not sound is thrown away, and what neither manifest nor hash can prove."""
    try:
        if manifest(home):
            return check(asset, home)
        sound = asset.file.sha256 is not None
    except Corrupt:
        sound = False
    if not sound:
        _discard(home)
    return None


def _bring(asset: Asset, home: Path, progress: Progress) -> State:
    try:
        if asset.source.hub:
            _from_hub(asset, progress)
        else:
            _from_web(asset, progress)
        return check(asset, home, again=True)
    except (Corrupt, TooLong) as error:
        _discard(home)
        what = (
            str(error)
            if isinstance(error, Corrupt)
            else f"{asset.name}: {asset.key} is not what it was: {error}"
        )
        raise Corrupt(
            f"{what}; nothing of it was kept, try again or give the file with --data-dir"
        ) from None


def _from_hub(asset: Asset, progress: Progress) -> None:
    from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url

    repository, revision, shelf = (
        str(asset.source.hub),
        asset.source.revision,
        cache.shelf(asset.source),
    )
    for piece in asset.pieces:
        try:
            get_hf_file_metadata(
                hf_hub_url(repository, piece, repo_type="dataset", revision=revision)
            )  # fails at once
            hf_hub_download(
                repository, piece, repo_type="dataset", revision=revision, local_dir=shelf
            )
        except (
            Exception
        ) as error:  # of the hub's http client, and which one that is differs by version
            raise _unreachable(asset, piece, error) from None
        progress((shelf / piece).stat().st_size)


def _from_web(asset: Asset, progress: Progress) -> None:
    for piece in asset.pieces:
        target = cache.shelf(asset.source) / piece
        target.parent.mkdir(parents=True, exist_ok=True)
        if not target.exists():
            draft = target.with_name(f"{target.name}.part")
            _download(asset, piece, draft, progress)
            draft.replace(target)


def _download(asset: Asset, piece: str, draft: Path, progress: Progress) -> None:
    """From the first address that answers; the error is the first one's."""
    first: Exception | None = None
    for base in (asset.source.base, *asset.source.mirrors):
        try:
            return download(base + quote(piece), draft, asset.file.bytes or LARGEST, progress)
        except (OSError, HTTPException) as error:
            first = first or error
    assert first
    raise _unreachable(asset, piece, first)


def _unreachable(asset: Asset, piece: str, error: Exception) -> Exception:
    """The error of a source, or of the disk where that is what failed."""
    if isinstance(error, OSError) and error.errno in DISK:
        return error
    return Unreachable(
        f"{asset.name}: {asset.source.base}{quote(piece)} cannot be fetched ({_reason(error)}); "
        f"try again with a network, or put {Path(piece).name} into a folder and name that with --data-dir"
    )


def _reason(error: Exception) -> str:
    if isinstance(error, HTTPError):
        return f"HTTP {error.code} {error.reason}"
    cause = error.reason if isinstance(error, URLError) else error
    text = getattr(cause, "strerror", None) or str(cause) or type(cause).__name__
    return str(text).splitlines()[0].rstrip(".")


def _discard(home: Path) -> None:
    cache.manifest(home).unlink(missing_ok=True)
    if home.is_dir():
        shutil.rmtree(home)
    else:
        home.unlink(missing_ok=True)
