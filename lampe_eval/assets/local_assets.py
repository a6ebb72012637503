"""Assets on this machine: where copies may be, and the one that is right.

Downloads lie in the cache, laid out as the sources are:

<cache>/assets/<kind>/<repository>/<revision>/<path>    downloaded file
<cache>/unpacked/<sha256>/                              files of the archive with that hash

An offline folder (``--data-dir``, ``LAMPE_EVAL_DATA``) comes before the cache and is never written.
It may be a clone of the source, a mirror of several sources, or a flat folder as upstream's scripts
leave it: a file is looked for by its path in the source or any tail of that path, in the folder
itself and in its folders named after the repository or the benchmark. A file that is not there is
looked for by its name at any depth and in archives (data_folder.py), and rows in another container
are converted (containers.py).
"""

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

from lampe_eval import user_cache
from lampe_eval.assets.archive import unpack
from lampe_eval.assets.asset_cards import Asset, AssetSource, find
from lampe_eval.assets.containers import (
    READY_FIELDS,
    Container,
    container_of,
    first_fields,
    write_rows,
)
from lampe_eval.assets.data_folder import FoundFile, Listing, derived_folder, list_folder
from lampe_eval.assets.verify import CorruptAsset, LocalAsset, read_manifest, verify
from lampe_eval.errors import UserError

REPLACE = "replace or remove it"
"""What to do about a wrong file of an offline folder."""


class ReadyPrompts(UserError):
    """File with ready prompts where rows of a benchmark are expected."""


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


def unsearched(data_dir: Path | None = None) -> list[str]:
    """Return what of an offline folder is not looked through, and why; one line each.

    Raises:
        UserError: if the folder does not exist.
    """
    folder = offline_folder(data_dir)
    return list_folder(folder).unsearched() if folder else []


def locate(asset: Asset, data_dir: Path | None = None, *, rehash: bool = False) -> LocalAsset:
    """Find an asset on this machine and verify it; unpack or convert what holds it, if needed.

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
    search = _Search(rehash)
    folder = offline_folder(data_dir)
    local = search.in_folder(asset, folder) if folder else None
    local = local or search.in_cache(asset)
    # Of an archive's file only the archive can be fetched.
    local = local or LocalAsset(asset.archive or asset, "missing")
    if local.state == "missing" and search.corrupt:
        local = LocalAsset(asset, "corrupt", problem=search.corrupt[0])
    if local.state == "missing" and folder:
        search.unused += list_folder(folder).notes
    return replace(local, ready=tuple(search.ready), unused=tuple(search.unused))


def cache_folder(source: AssetSource) -> Path:
    """Return the folder of the cache that mirrors a source."""
    return user_cache.root() / "assets" / source.kind / source.place / source.revision


def cache_path(asset: Asset) -> Path:
    """Return where an asset is in the cache once it was downloaded."""
    return cache_folder(asset.source) / asset.file.path


@dataclass
class _Search:
    """Search for the copy of an asset that is right.

    Attributes:
        rehash: whether hashes are taken even if nothing changed.
        corrupt: what is wrong with copies that lie where the asset belongs, and what to do.
        ready: files with ready prompts instead of the asset's rows.
        unused: what else has the asset's name but cannot be used, and why.
    """

    rehash: bool
    corrupt: list[str] = field(default_factory=list)
    ready: list[str] = field(default_factory=list)
    unused: list[str] = field(default_factory=list)

    def in_folder(self, asset: Asset, folder: Path) -> LocalAsset | None:
        """Return the copy in an offline folder, loose or in an archive."""
        local = self._loose(asset, folder)
        if local:
            return local
        archive = self._loose(asset.archive, folder) if asset.archive else None
        if archive:
            return self._member(asset, archive)
        return self._first(asset, list_folder(folder).archives())

    def in_cache(self, asset: Asset) -> LocalAsset | None:
        """Return the copy that was downloaded."""
        path = cache_path(asset)
        # A download is complete only when its manifest, written last, exists.
        if read_manifest(path) and path.exists():
            advice = f"get it again with: lampe-eval data fetch {asset.name}"
            return self._verified(asset, path, advice)
        archive = self.in_cache(asset.archive) if asset.archive else None
        return self._member(asset, archive) if archive else None

    def _loose(self, asset: Asset, folder: Path) -> LocalAsset | None:
        """Return the copy that is a file of an offline folder: where it belongs, or anywhere."""
        # Several files of an offline folder may have this name; only contents tell them apart.
        for path in _usual_paths(asset, folder):
            if self._is_official(asset, path):
                local = self._verified(asset, path, REPLACE)
                if local:
                    return local
        return self._first(asset, [list_folder(folder).files])

    def _first(self, asset: Asset, listings: Iterable[Listing]) -> LocalAsset | None:
        """Return the first file of listings that has the asset's name and its contents."""
        for listing in listings:
            for file in listing.find(asset):
                try:
                    local = self._rows(asset, file) if asset.row_fields else self._file(asset, file)
                except ReadyPrompts as error:
                    self.ready.append(str(error))
                    continue
                except (UserError, OSError) as error:
                    # An OSError where the file was removed since it was listed.
                    self.unused.append(str(error))
                    continue
                if local:
                    return local
        return None

    def _file(self, asset: Asset, file: FoundFile) -> LocalAsset | None:
        """Return a file that was found by its name, if its contents are the asset's."""
        steps = PurePosixPath(asset.path_in_archive).parts[-2:]
        # Without a hash a name alone proves nothing; with its folder it is upstream's file.
        if asset.file.sha256 is None and file.paths[0].parts[-2:] != steps:
            return None
        try:
            local = verify(asset, file.open()[0], rehash=self.rehash)
        except CorruptAsset:
            # Another file with this name, which need not lie here.
            return None
        return replace(local, found=str(file), layout=file.layout)

    def _rows(self, asset: Asset, file: FoundFile) -> LocalAsset | None:
        """Return a file with the asset's rows in any container, converted if it is another one.

        Raises:
            UserError: if it cannot be read, or has other rows.
        """
        if not file.is_whole:
            raise UserError(f"{file}: not all shards are there")
        paths = file.open()
        container = container_of(paths[0])
        layout = " in ".join(filter(None, (container, file.layout)))
        if container == _official_container(asset) and len(paths) == 1:
            _check_fields(asset, paths[0], str(file))
            local = self._verified(asset, paths[0], REPLACE)
            return replace(local, found=str(file), layout=layout) if local else None
        folder = derived_folder(paths)
        target = folder / _converted_name(asset)
        with user_cache.lock(folder):
            if not target.exists():
                _check_fields(asset, paths[0], str(file))
                folder.mkdir(exist_ok=True)
                write_rows(paths, target)
        # Other bytes than the official file's, so that no hash of it applies.
        local = verify(asset.member(folder.name), target, rehash=self.rehash)
        return replace(local, asset=asset, found=str(file), layout=layout)

    def _member(self, asset: Asset, archive: LocalAsset) -> LocalAsset | None:
        """Return a file of an official archive, which is unpacked into the cache under its hash.

        Raises:
            UserError: if the archive cannot be unpacked, or lacks the file.
        """
        # Under the hash, so that files of two versions of an archive never mix.
        folder = user_cache.root() / "unpacked" / archive.sha256
        with user_cache.lock(folder):
            if not folder.is_dir():
                unpack(archive.open_path(), folder)
        path = _path_unpacked(folder, asset.path_in_archive)
        name = archive.asset.name
        if path is None:
            raise UserError(f"{name}: has no {asset.path_in_archive}; is it the official file?")
        # Recorded under the hash of the archive: another archive's file may be another one.
        member = archive.asset.member(f"{archive.sha256}/{asset.path_in_archive}")
        local = self._verified(member, path, f"remove {folder} to unpack {name} again")
        if local is None:
            return None
        return replace(local, asset=asset, state=archive.state, found=archive.found)

    def _verified(self, asset: Asset, path: Path, advice: str) -> LocalAsset | None:
        """Return what is at a path where the asset belongs, if it is right."""
        try:
            return replace(verify(asset, path, rehash=self.rehash), found=str(path))
        except CorruptAsset as error:
            self.corrupt.append(f"{error}; {advice}")
            return None

    def _is_official(self, asset: Asset, path: Path) -> bool:
        """Return whether a file where the asset belongs may be it, by the container of its rows."""
        if not asset.row_fields or asset.file.sha256:
            return True
        try:
            _check_fields(asset, path, str(path))
        except ReadyPrompts:
            # It is found again by its name, which is where it is noted.
            return False
        except UserError:
            # Whoever reads the rows says which line is wrong.
            return True
        return container_of(path) == _official_container(asset)


def _converted_name(asset: Asset) -> str:
    """Return the name of a file into which rows of another container are written."""
    path = PurePosixPath(asset.path_in_archive)
    # Parquet is read and never written.
    return path.with_suffix(".jsonl").name if path.suffix == ".parquet" else path.name


def _official_container(asset: Asset) -> Container:
    if asset.file.path.endswith(".parquet"):
        return "parquet"
    return "JSON array" if asset.file.path.endswith(".json") else "JSON lines"


def _check_fields(asset: Asset, path: Path, name: str) -> None:
    """Refuse a file whose first row is no row of an asset.

    Raises:
        UserError: if a field is missing, or the rows are ready prompts.
    """
    fields = first_fields(path)
    if fields >= READY_FIELDS:
        raise ReadyPrompts(
            f"{name}: holds ready prompts ({', '.join(sorted(READY_FIELDS))}), which need "
            "prompts=ready; no other wording can be made from them"
        )
    missing = [field for field in asset.row_fields if field not in fields]
    if missing:
        raise UserError(f"{name}: is not {asset.name}: its rows have no {', '.join(missing)}")


def offline_folder(data_dir: Path | None) -> Path | None:
    """Return the offline folder that an option or `LAMPE_EVAL_DATA` names; None if neither does.

    Raises:
        UserError: if there is no such folder.
    """
    variable = os.environ.get("LAMPE_EVAL_DATA")
    if data_dir is None and not variable:
        return None
    folder = (data_dir or Path(str(variable))).expanduser()
    if not folder.is_dir():
        raise UserError(
            f"{folder}: {'not a folder' if folder.exists() else 'no such folder'}; "
            "--data-dir and LAMPE_EVAL_DATA name a folder with benchmark files"
        )
    return folder


def _usual_paths(asset: Asset, folder: Path) -> Iterator[Path]:
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


def _path_unpacked(folder: Path, member: str) -> Path | None:
    """Return the path of a member; some archives are packed without their first folder."""
    for name in (member, member.partition("/")[2]):
        if name and (folder / name).is_file():
            return folder / name
    return None
