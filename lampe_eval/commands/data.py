"""``lampe-eval data``: benchmark files from their official sources or from an offline folder."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.filesize import decimal
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn
from rich.table import Table

from lampe_eval import user_cache
from lampe_eval.assets import (
    Asset,
    LocalAsset,
    UnreachableSource,
    describe_unused,
    fetch,
    find,
    locate,
    pins,
    select,
    unsearched,
)
from lampe_eval.errors import UserError
from lampe_eval.terminal import TerminalConsole

if TYPE_CHECKING:
    from lampe_eval.benches.bench import Bench, Task
    from lampe_eval.prompts.protocol import Protocol

MODELS = "models"
"""Group of the assets that are models; `fetch` converts them to checkpoints."""
LAYOUTS = """\
A file is looked for in --data-dir (or LAMPE_EVAL_DATA), then in the cache of downloads:
  by its path in the source, or any end of that path; else by its name at any depth
  rows also as JSON lines, as a JSON array or as parquet, whole or in shards,
  named after the task, or test, validation or train in a folder named after it
  all of this also in zip and tar archives; links to folders and hidden folders are not followed
"""


def list_files(names: Sequence[str], data_dir: Path | None) -> None:
    """Print files with size, state and source.

    Args:
        names: benchmarks, or files such as "longbench/data.zip"; all if there is none.
        data_dir: offline folder, looked at before the cache.
    """
    _print_table(locate(asset, data_dir) for asset in select(names))


def fetch_files(names: Sequence[str], data_dir: Path | None) -> None:
    """Download the files that are not on this machine yet; arguments are those of ``list_files``.

    Raises:
        UserError: if a source cannot be reached, or a file is not as pinned; the other files are
            downloaded first.
    """
    failures: list[UserError] = []
    for asset in select(names):
        if asset.source.user_copies and asset.name not in names:
            print(f"{asset.name}: not fetched; {asset.source.place} has it")
            continue
        try:
            local = _fetch(asset, data_dir)
            if asset.bench == MODELS:
                _convert(local)
        except UserError as error:
            failures.append(error)
    if failures:
        count = len(failures) - 1
        more = f" ({count} more files failed)" if count else ""
        raise UserError(f"{failures[0]}{more}")


def _fetch(asset: Asset, data_dir: Path | None) -> LocalAsset:
    local = locate(asset, data_dir)
    if local.path:
        print(f"{asset.name}: on this machine already")
        return local
    is_first = asset.file.sha256 is None and pins.recorded_sha256(asset.url) is None
    local = _fetch_with_progress(asset)
    print(f"{asset.name}: fetched, {_describe_hash(local, is_first=is_first)}")
    return local


def _convert(local: LocalAsset) -> None:
    # Here, because transformers takes seconds to import.
    from lampe_eval.conversion import convert_model

    print(f"{local.asset.name}: checkpoint in {convert_model(local)}")


def fetch_missing(names: Sequence[str], data_dir: Path | None) -> None:
    """Download what is missing of the files that a run needs; say on stderr what is downloaded.

    Args:
        names: files as ``assets.path_of`` takes them, files of archives included.
        data_dir: offline folder, looked at before the cache.

    Raises:
        UserError: if a source cannot be reached, or a file is not as pinned.
    """
    unpinned: list[str] = []
    not_here: list[LocalAsset] = []
    unreachable: UserError | None = None
    missing: list[tuple[str, Asset]] = []
    for name, asset in [(name, find(name)) for name in names]:
        download = asset.archive or asset
        local = locate(asset, data_dir)
        if local.state == "missing":
            not_here.append(local)
            # Without a network every further file would wait as long as the first.
            if unreachable:
                missing.append((name, asset))
                continue
            if not download.source.user_copies:
                size, place = _describe_size(download), download.source.place
                print(f"fetching {download.name} ({size}) from {place}", file=sys.stderr)
            try:
                _fetch_with_progress(download)
            except UnreachableSource as error:
                alone = f"; its {asset.path_in_archive} alone is enough" if asset.archive else ""
                unreachable = UserError(f"{error}{alone}")
                continue
            local = locate(asset, data_dir)
        local.open_path()
        if local.state == "unpinned":
            unpinned.append(name)
    if unreachable:
        more = f"; also missing: {_names_by_place(missing)}" if missing else ""
        raise UserError(f"{unreachable}{more}{describe_unused(not_here)}")
    unused = describe_unused(not_here).removeprefix("; ")
    if unused:
        print(unused, file=sys.stderr)
    if unpinned:
        print(f"not pinned by a hash: {', '.join(unpinned)}", file=sys.stderr)


def _names_by_place(assets: Iterable[tuple[str, Asset]]) -> str:
    """Return the names of files, those of each source together and followed by it."""
    names: dict[str, list[str]] = {}
    for name, asset in assets:
        names.setdefault(asset.source.place, []).append(name)
    return "; ".join(f"{', '.join(files)} ({place})" for place, files in names.items())


def verify_files(names: Sequence[str], data_dir: Path | None) -> None:
    """Take the hash of every file again and print the states; arguments as ``list_files``.

    Raises:
        UserError: if a file is corrupt, or one that was named is missing.
    """
    found = [locate(asset, data_dir, rehash=True) for asset in select(names)]
    _print_table(found)
    wrong = []
    for local in found:
        if local.state == "corrupt" or (names and local.state == "missing"):
            wrong.append(local.asset.name)
    if wrong:
        raise UserError(
            f"{len(wrong)} of {len(found)} files are corrupt or missing: {', '.join(wrong)}"
        )


def print_paths(names: Sequence[str], data_dir: Path | None) -> None:
    """Print the paths of files; without a name, that of the cache.

    Raises:
        UserError: if a file is missing or corrupt.
    """
    if not names:
        print(user_cache.root())
        return
    paths: list[Path] = []
    failures: dict[str, UserError] = {}
    for asset in select(names):
        try:
            paths.append(locate(asset, data_dir).open_path())
        except UserError as error:
            failures[asset.name] = error
    # All are located before the first is printed, so that an error leaves stdout empty.
    if failures:
        (_, first), *others = failures.items()
        more = f"; also missing or corrupt: {', '.join(name for name, _ in others)}"
        raise type(first)(f"{first}{more if others else ''}")
    for path in paths:
        print(path)


def print_places(names: Sequence[str], protocol: str, data_dir: Path | None) -> None:
    """Print for each file of tasks where it was found and in which layout, or that it is missing.

    Args:
        names: benchmarks or tasks; all if there is none.
        protocol: protocol as users write it, such as "official"; tasks need other files in each.
        data_dir: offline folder, looked at before the cache.

    Raises:
        UserError: for a name or a protocol that does not exist, and for a file that is unreadable.
    """
    # Here, because benches import transformers.
    from lampe_eval.benches import BENCHES, find_tasks

    all_benches = [name for name, bench in BENCHES.items() if bench.lists_tasks]
    tasks = find_tasks(names or all_benches)
    protocols = {task.bench: BENCHES[task.bench].protocol(protocol) for task in tasks}
    print(LAYOUTS)
    places: dict[str, str] = {}

    def describe(name: str) -> str:
        if name not in places:
            places[name] = _describe_place(locate(find(name), data_dir))
        return f"{name}: {places[name]}"

    for task in tasks:
        bench, fields = BENCHES[task.bench], protocols[task.bench]
        if not bench.has_task(task, fields):
            print(f"{task.full_name}  is no task of {protocol}")
            continue
        files = bench.required_files(task, fields)
        by_length = bench.files_by_length(task, fields)
        own = _describe_user_files(bench, task, fields, data_dir)
        print(task.full_name + ("" if files or by_length or own else "  needs no file"))
        lines = [describe(name) for name in files] + own
        for length, names_of_length in by_length.items():
            lines += [f"{length}  {describe(name)}" for name in names_of_length]
        for line in lines:
            print(f"  {line}")
    for note in unsearched(data_dir):
        print(note)


def _describe_user_files(
    bench: Bench, task: Task, protocol: Protocol, data_dir: Path | None
) -> list[str]:
    """Return where a task's ready-made samples of the user are, or what is missing; a line each."""
    try:
        return [
            f"{path.name}: present, {path}" for path in bench.user_files(task, protocol, data_dir)
        ]
    except UserError as error:
        return [f"missing: {error}"]


def _describe_place(local: LocalAsset) -> str:
    """Return where a file was found and in which layout, or what is wrong."""
    place: str = local.state
    if local.found:
        place += f", {local.layout or 'official file'}, {local.found}"
    if local.problem:
        place += f", {local.problem}"
    return "".join([place, *(f"\n    not used: {text}" for text in (*local.ready, *local.unused))])


def _fetch_with_progress(asset: Asset) -> LocalAsset:
    columns = TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn()
    console = TerminalConsole(stderr=True)
    # huggingface_hub shows a progress bar of its own.
    disable = bool(asset.source.hub) or not console.is_terminal
    with Progress(*columns, console=console, transient=True, disable=disable) as progress:
        bar = progress.add_task(asset.name, total=asset.file.bytes)
        return fetch(asset, lambda size: progress.update(bar, completed=size))


def _describe_hash(local: LocalAsset, *, is_first: bool) -> str:
    if local.asset.file.sha256:
        return "sha256 as pinned"
    if is_first:
        return f"sha256 {local.sha256} recorded in {pins.lock_file()}"
    return f"sha256 as recorded in {pins.lock_file()}"


def _print_table(rows: Iterable[LocalAsset]) -> None:
    table = Table(box=None, header_style="bold", pad_edge=False)
    for title in ("file", "size", "state", "source"):
        table.add_column(title, overflow="fold", no_wrap=title != "source")
    for local in rows:
        source = local.asset.source
        table.add_row(
            local.asset.name,
            _describe_size(local.asset),
            local.state,
            f"{source.place} {source.revision[:7]}".strip(),
        )
    TerminalConsole().print(table)


def _describe_size(asset: Asset) -> str:
    if asset.file.bytes:
        return decimal(asset.file.bytes)
    if asset.file.approximate_bytes:
        return f"about {decimal(asset.file.approximate_bytes)}"
    return "?"
