"""Files of an offline folder by name, at whatever depth and in whatever archive they lie.

A folder is listed once, and again only after one of its folders has changed. Hidden folders and
links to folders are not followed, so no link leads around in a circle.
"""

import re
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import chain
from pathlib import Path, PurePosixPath

from lampe_eval import user_cache
from lampe_eval.assets.archive import list_files, unpack
from lampe_eval.assets.asset_cards import Asset
from lampe_eval.assets.verify import DERIVED
from lampe_eval.errors import UserError
from lampe_eval.file_io import sha256_of_text

MAX_DEPTH = 24
MAX_ENTRIES = 200_000
MAX_ARCHIVE_BYTES = 8 << 30
"""Size of the largest archive whose files are listed: a compressed tar is read whole for that."""

ARCHIVE_ENDINGS = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
ROW_ENDINGS = (".jsonl", ".json", ".parquet")
SPLITS = ("test", "validation", "train", "data", "")
"""Names of files with rows that are called after a folder above them; the likeliest first."""

PARENTS = 3
"""Folders above a file that it may be called after, as in ``hotpotqa/test/0000.parquet``."""

SHARD = re.compile(
    r"(?:(?P<base>.+)-)?(?P<number>\d{5})-of-(?P<total>\d{5})(?:-[0-9a-f]+)?|(?P<only>\d{4})"
)


@dataclass(frozen=True)
class FoundFile:
    """File of an offline folder that is called as an asset is.

    Attributes:
        root: the folder, or an archive in it.
        paths: paths below the root; several for rows that are split into shards.
        in_archive: whether the root is an archive.
        is_whole: whether all shards are there.
    """

    root: Path
    paths: tuple[PurePosixPath, ...]
    in_archive: bool = False
    is_whole: bool = True

    def __str__(self) -> str:
        more = f" and {len(self.paths) - 1} more" if len(self.paths) > 1 else ""
        return f"{self.root}{'!' if self.in_archive else ''}/{self.paths[0]}{more}"

    @property
    def layout(self) -> str:
        """Return the kind of the archive that holds it; empty for a file of the folder."""
        return self.root.name.partition(".")[2].lower() if self.in_archive else ""

    def open(self) -> list[Path]:
        """Return the paths at which it can be read; its archive is unpacked into the cache.

        Raises:
            UserError: if the archive cannot be unpacked.
        """
        root = _unpacked(self.root) if self.in_archive else self.root
        return [root / path for path in self.paths]


@dataclass(frozen=True)
class Listing:
    """Files below a folder, or in an archive.

    Attributes:
        root: the folder or the archive.
        paths: paths below it, sorted.
        in_archive: whether the root is an archive.
    """

    root: Path
    paths: tuple[PurePosixPath, ...]
    in_archive: bool = False

    def find(self, asset: Asset) -> list[FoundFile]:
        """Return the files that are called as an asset is, the likeliest first."""
        wanted = [asset.path_in_archive, *asset.file.alternative_paths]
        if asset.file.parts:
            return self._find_folders(wanted, asset.file.parts)
        if asset.row_fields:
            found: list[FoundFile] = []
            for name in dict.fromkeys(PurePosixPath(path).stem for path in wanted):
                found += self._row_files.get(name, ())
        else:
            names = dict.fromkeys(PurePosixPath(path).name for path in wanted)
            paths = chain.from_iterable(self._by_name.get(name, ()) for name in names)
            found = [FoundFile(self.root, (path,), self.in_archive) for path in paths]
        return sorted(found, key=lambda file: _rank(file, asset))

    def _find_folders(self, wanted: Iterable[str], parts: tuple[str, ...]) -> list[FoundFile]:
        """Return the folders of an asset of several parts that have all of them."""
        names = {PurePosixPath(path).name for path in wanted}
        first = PurePosixPath(parts[0])
        folders: list[FoundFile] = []
        for path in self._by_name.get(first.name, ()):
            folder = path.parents[len(first.parts) - 1]
            # All files are listed, so the parts need no look at the disk.
            if folder.name in names and all(folder / part in self._known for part in parts):
                folders.append(FoundFile(self.root, (folder,), self.in_archive))
        return folders

    @cached_property
    def _known(self) -> frozenset[PurePosixPath]:
        return frozenset(self.paths)

    @cached_property
    def _by_name(self) -> dict[str, list[PurePosixPath]]:
        by_name: dict[str, list[PurePosixPath]] = {}
        for path in self.paths:
            by_name.setdefault(path.name, []).append(path)
        return by_name

    @cached_property
    def _row_files(self) -> dict[str, list[FoundFile]]:
        """Return the files with rows by every name that they go by; shards of one file are one."""
        shards: dict[tuple[PurePosixPath, str, str], list[PurePosixPath]] = {}
        for path in self.paths:
            if path.suffix in ROW_ENDINGS:
                key = (path.parent, _base(path.stem), path.suffix)
                shards.setdefault(key, []).append(path)
        by_name: dict[str, list[FoundFile]] = {}
        for (folder, base, _), paths in shards.items():
            file = FoundFile(self.root, tuple(paths), self.in_archive, _is_whole(paths))
            above = [parent.name for parent in (folder / "_").parents][:PARENTS]
            for name in {base, *above, self.root.name} if base in SPLITS else {base}:
                by_name.setdefault(name, []).append(file)
        return by_name


@dataclass(frozen=True)
class DataFolder:
    """Listing of an offline folder and of the archives in it.

    Attributes:
        files: the files of the folder.
        notes: what was not looked through, and why; one line each.
        stamps: modification times of the folders in nanoseconds, by path.
    """

    files: Listing
    notes: tuple[str, ...]
    stamps: dict[str, int]

    @property
    def is_current(self) -> bool:
        """Return whether no file was added, removed or renamed since it was listed."""
        try:
            return all(
                Path(folder).stat().st_mtime_ns == stamp for folder, stamp in self.stamps.items()
            )
        except OSError:
            return False

    def archives(self) -> Iterator[Listing]:
        """Yield the listings of the archives that can be read."""
        for path in self._archive_paths():
            try:
                yield _list_archive(path, _stamp(path))
            except UserError:
                continue

    def unsearched(self) -> list[str]:
        """Return what is not looked through, archives included, and why; one line each."""
        notes = list(self.notes)
        for path in self._archive_paths():
            try:
                _list_archive(path, _stamp(path))
            except UserError as error:
                notes.append(str(error))
        return notes

    def _archive_paths(self) -> list[Path]:
        return [
            self.files.root / path
            for path in self.files.paths
            if path.name.lower().endswith(ARCHIVE_ENDINGS)
        ]


_listed: dict[Path, DataFolder] = {}


def list_folder(root: Path) -> DataFolder:
    """Return the listing of an offline folder; it is made once, unless a folder changes."""
    known = _listed.get(root)
    if known is None or not known.is_current:
        known = _listed[root] = _walk(root)
    return known


def _walk(root: Path) -> DataFolder:
    """List a folder breadth first, so that the limits leave out what lies deepest."""
    paths: list[PurePosixPath] = []
    notes: list[str] = []
    stamps: dict[str, int] = {}
    pending = deque([PurePosixPath()])
    entries = 0
    while pending:
        folder = pending.popleft()
        try:
            stamps[str(root / folder)] = (root / folder).stat().st_mtime_ns
            inside = sorted((root / folder).iterdir())
            files = [path for path in inside if path.is_file()]
        except OSError as error:
            notes.append(f"{root / folder}: cannot be read ({error.strerror})")
            continue
        entries += len(inside)
        if entries > MAX_ENTRIES or len(folder.parts) > MAX_DEPTH:
            limits = f"{MAX_ENTRIES} entries and {MAX_DEPTH} folders deep"
            notes.append(f"{root / folder}: not looked through, nor what follows: over {limits}")
            break
        paths += [folder / path.name for path in files]
        for path in inside:
            if path.is_dir() and not path.is_symlink() and not path.name.startswith("."):
                pending.append(folder / path.name)
    return DataFolder(Listing(root, tuple(paths)), tuple(notes), stamps)


@cache
def _list_archive(path: Path, stamp: str) -> Listing:
    """Return the listing of an archive as it is at a stamp."""
    if path.stat().st_size > MAX_ARCHIVE_BYTES:
        raise UserError(f"{path}: not looked through: larger than {MAX_ARCHIVE_BYTES} bytes")
    return Listing(path, tuple(map(PurePosixPath, sorted(list_files(path)))), in_archive=True)


def _unpacked(archive: Path) -> Path:
    """Return the folder of the cache into which an archive of an offline folder is unpacked."""
    folder = derived_folder([archive])
    with user_cache.lock(folder):
        if not folder.is_dir():
            unpack(archive, folder)
    return folder


def derived_folder(files: Iterable[Path]) -> Path:
    """Return the folder of the cache for what is made from files of an offline folder.

    It has another name as soon as one of the files has changed.
    """
    key = sha256_of_text("\n".join(f"{path.absolute()} {_stamp(path)}" for path in files))
    return user_cache.root() / DERIVED / key[:32]


def _stamp(path: Path) -> str:
    status = path.stat()
    return f"{status.st_size} {status.st_mtime_ns}"


def _rank(file: FoundFile, asset: Asset) -> tuple[object, ...]:
    """Return the sort key of a file: the smallest is the likeliest to be the asset."""
    path = file.paths[0]
    steps = reversed(PurePosixPath(asset.path_in_archive).parts)
    same = 0
    for step, other in zip(steps, reversed(path.parts), strict=False):
        if step != other:
            break
        same += 1
    origin = {asset.bench, *PurePosixPath(asset.source.place).parts}
    base = _base(path.stem)
    split = SPLITS.index(base) if base in SPLITS else 0
    return -same, not origin & {*path.parts}, split, len(path.parts), str(path)


def _base(stem: str) -> str:
    """Return the name of a file with rows without the number of its shard."""
    shard = SHARD.fullmatch(stem)
    return (shard["base"] or "") if shard else stem


def _is_whole(paths: Sequence[PurePosixPath]) -> bool:
    """Return whether paths with one name, which are sorted, are all the shards of a file."""
    shards = [SHARD.fullmatch(path.stem) for path in paths]
    numbers = [int(shard["number"] or shard["only"]) for shard in shards if shard]
    totals = [int(shard["total"]) for shard in shards if shard and shard["total"]]
    return numbers == [*range(len(numbers))] and set(totals) <= {len(paths)}
