"""``lampe-eval data``: benchmark files, from their official sources or from an offline folder."""

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from rich.console import Console
from rich.filesize import decimal
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn
from rich.table import Table

from lampe_eval.assets import (
    Asset,
    Corrupt,
    Missing,
    Unreachable,
    chosen,
    fetch,
    find,
    load,
    locate,
    path_of,
)
from lampe_eval.assets.cache import root
from lampe_eval.assets.pins import lock_file, recorded
from lampe_eval.errors import UserError


def show(names: Sequence[str], data_dir: Path | None) -> None:
    """Files with their size, state and source."""
    _print((asset, _state(asset, data_dir)) for asset in chosen(names))


def bring(names: Sequence[str], data_dir: Path | None) -> None:
    """Fetches what is not here yet.

    Raises:
        UserError: for a source that cannot be reached, and a file that is not what it should be.
    """
    faults: list[UserError] = []
    for asset in chosen(names):
        if _state(asset, data_dir) in ("present", "unpinned"):
            print(f"{asset.name}: here")
            continue
        new = asset.file.sha256 is None and recorded(asset) is None
        try:
            _fetch(asset)
        except UserError as error:
            faults.append(error)
            continue
        print(f"{asset.name}: fetched, {_proof(asset, new)}")
    if faults:
        more = f" ({len(faults) - 1} more files failed)" if len(faults) > 1 else ""
        raise UserError(f"{faults[0]}{more}")


def provide(names: Sequence[str], data_dir: Path | None) -> None:
    """Sees to it that files are here, named as ``path_of`` takes them; says what it fetches on the error stream.

    Raises:
        UserError: as ``bring``.
    """
    unpinned = []
    for name in names:
        asset = find(name.partition("!/")[0])
        try:
            path_of(name, data_dir)
        except Missing:
            print(
                f"fetching {asset.name} ({_size(asset)}) from {asset.source.place}", file=sys.stderr
            )
            try:
                _fetch(asset)
            except Unreachable as error:
                alone = f"; its {name.partition('!/')[2]} alone will do" if "!/" in name else ""
                raise UserError(f"{error}{alone}") from None
            path_of(name, data_dir)
        if asset.file.sha256 is None or _copied(name, data_dir):
            unpinned.append(name)
    if unpinned:
        print(f"not pinned, taken as they are: {', '.join(unpinned)}", file=sys.stderr)


def _copied(name: str, data_dir: Path | None) -> bool:
    """Whether an archive's file is an offline copy, for which no archive vouches."""
    return "!/" in name and not path_of(name, data_dir).is_relative_to(root())


def verify(names: Sequence[str], data_dir: Path | None) -> None:
    """Takes the hash of everything anew.

    Raises:
        UserError: where a file is corrupt, or one that was asked for is missing.
    """
    states = [(asset, _state(asset, data_dir, again=True)) for asset in chosen(names)]
    _print(states)
    wrong = [
        asset.name
        for asset, state in states
        if state == "corrupt" or (names and state == "missing")
    ]
    if wrong:
        raise UserError(
            f"{len(wrong)} of {len(states)} files are corrupt or missing: {', '.join(wrong)}"
        )


def paths(names: Sequence[str], data_dir: Path | None) -> None:
    """Where files are; the cache for no name.

    Raises:
        UserError: for a file that is missing or corrupt.
    """
    for path in [load(asset, data_dir) for asset in chosen(names)] if names else [root()]:
        print(path)


def _fetch(asset: Asset) -> None:
    """Fetches behind a progress bar; huggingface_hub has its own."""
    columns = TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn()
    console = Console(stderr=True)
    disabled = bool(asset.source.hub) or not console.is_terminal
    with Progress(*columns, console=console, transient=True, disable=disabled) as progress:
        bar = progress.add_task(asset.name, total=asset.file.bytes)
        fetch(asset, lambda done: progress.update(bar, completed=done))


def _state(asset: Asset, data_dir: Path | None, *, again: bool = False) -> str:
    try:
        return locate(asset, data_dir, again=again)[1]
    except Corrupt:
        return "corrupt"


def _proof(asset: Asset, new: bool) -> str:
    if asset.file.sha256:
        return "sha256 as pinned"
    return (
        f"sha256 {recorded(asset)} recorded in {lock_file()}"
        if new
        else f"sha256 as recorded in {lock_file()}"
    )


def _print(rows: Iterable[tuple[Asset, str]]) -> None:
    table = Table(box=None, header_style="bold", pad_edge=False)
    for title in ("file", "size", "state", "source"):
        table.add_column(title, overflow="fold", no_wrap=title != "source")
    for asset, state in rows:
        table.add_row(
            asset.name,
            _size(asset),
            state,
            f"{asset.source.place} {asset.source.revision[:7]}".strip(),
        )
    Console().print(table)


def _size(asset: Asset) -> str:
    if asset.file.bytes:
        return decimal(asset.file.bytes)
    return f"about {decimal(asset.file.roughly)}" if asset.file.roughly else "?"
