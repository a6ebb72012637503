"""What a benchmark is made of: ``tasks/<bench>/assets.yaml`` lists files by source, each pinned by revision and sha256.

A source is a GitHub repository at a commit, a dataset repository of the hub at a revision, or a folder of the web. An
asset is one file of it, or a folder of files (``parts``) that counts as one and is hashed as if it were. A hash may be
missing only where the revision is a full commit id, so that the source cannot move: what comes first is then noted in
``assets.lock`` (pins.py) and holds from then on.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Annotated
from urllib.parse import quote

from pydantic import AfterValidator, Field, model_validator

from lampe_eval.cards import Card, read_card, shipped_folder
from lampe_eval.errors import unknown_name

COMMIT = re.compile(r"[0-9a-f]{40}")
WEB = re.compile(r"https?://[^/]+/.*/|https?://[^/]+/")


def is_inside(path: str) -> bool:
    """Whether a relative path stays below the folder it is taken from, on every system."""
    steps = path.split("/")
    return not any(step in ("", ".", "..") or re.search(r"[\\:\0]", step) for step in steps)


def _inside(path: str) -> str:
    if not is_inside(path):
        raise ValueError(f"{path!r} must be a relative path that stays inside its folder")
    return path


def _web(url: str) -> str:
    if not WEB.fullmatch(url):
        raise ValueError(f"{url!r} must be a folder of the web: http(s)://.../")
    return url


Inside = Annotated[str, AfterValidator(_inside)]
Web = Annotated[str, AfterValidator(_web)]


class File(Card):
    """One file, or a folder of ``parts``.

    Attributes:
        path: in the source.
        name: as users call it; the last step of the path by default.
        bytes: exact size.
        roughly: size where the exact one is not known.
        sha256: of the contents.
        parts: files in the folder ``path``, in the order in which they count.
        also: other paths at which upstream's scripts leave the file.
    """

    path: Inside
    name: Inside = ""
    bytes: int | None = None
    roughly: int | None = None
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None
    parts: tuple[Inside, ...] = ()
    also: tuple[Inside, ...] = ()


class Source(Card):
    """Where files come from: exactly one of ``github``, ``hub`` and ``url``.

    Attributes:
        github: "owner/name".
        hub: id of a dataset repository.
        url: folder of the web.
        revision: commit of the repository.
        lfs: whether GitHub keeps the files in its large file storage.
        mirrors: folders of the web that hold the same paths, asked where the source does not answer.
    """

    github: Inside | None = None
    hub: Inside | None = None
    url: Web | None = None
    revision: str = ""
    lfs: bool = False
    mirrors: tuple[Web, ...] = ()
    files: tuple[File, ...]

    @property
    def kind(self) -> str:
        return "github" if self.github else "hub" if self.hub else "web"

    @property
    def place(self) -> str:
        """The repository, or host and folder."""
        return self.github or self.hub or str(self.url).partition("://")[2].strip("/")

    @property
    def base(self) -> str:
        """Folder of the web below which the paths lie."""
        if self.github:
            host = (
                "https://media.githubusercontent.com/media"
                if self.lfs
                else "https://raw.githubusercontent.com"
            )
            return f"{host}/{self.github}/{self.revision}/"
        return (
            f"https://huggingface.co/datasets/{self.hub}/resolve/{self.revision}/"
            if self.hub
            else str(self.url)
        )

    @model_validator(mode="after")
    def _sound(self) -> "Source":
        if sum(place is not None for place in (self.github, self.hub, self.url)) != 1:
            raise ValueError("needs exactly one of github, hub, url")
        if bool(self.revision) != (self.url is None):
            raise ValueError("needs a revision for github and hub, and none for url")
        loose = [file.path for file in self.files if not file.sha256]
        if loose and (self.mirrors or not COMMIT.fullmatch(self.revision)):
            raise ValueError(
                f"{loose[0]} needs a sha256: it has mirrors, or a revision that is no full commit id"
            )
        return self


class AssetCard(Card):
    """The assets of one bench."""

    sources: tuple[Source, ...]

    @model_validator(mode="after")
    def _names_differ(self) -> "AssetCard":
        names = [
            file.name or PurePosixPath(file.path).name
            for source in self.sources
            for file in source.files
        ]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice:
            raise ValueError(f"two files are called {twice!r}; give one a name")
        return self


@dataclass(frozen=True)
class Asset:
    """One file of a bench, with what is known of it."""

    bench: str
    source: Source
    file: File

    @property
    def name(self) -> str:
        """ "bench/file"."""
        return f"{self.bench}/{self.file.name or PurePosixPath(self.file.path).name}"

    @property
    def key(self) -> str:
        """What the lock file calls it: address and revision."""
        return self.source.base + quote(self.file.path)

    @property
    def pieces(self) -> tuple[str, ...]:
        """Paths in the source of the files it consists of."""
        return tuple(f"{self.file.path}/{part}" for part in self.file.parts) or (self.file.path,)

    def member(self, path: str) -> "Asset":
        """A file of this archive."""
        return Asset(self.bench, self.source, File(path=f"{self.file.path}!/{path}"))


def benches_with_assets() -> list[str]:
    """Names of the benches that need files."""
    return sorted(path.parent.name for path in shipped_folder("tasks").glob("*/assets.yaml"))


def assets(bench: str) -> list[Asset]:
    """All assets of a bench, in the order of its card.

    Raises:
        UserError: for a bench without a card, or a card that does not fit.
    """
    if bench not in benches_with_assets():
        raise unknown_name("bench with data", bench, benches_with_assets(), "lampe-eval data list")
    card = read_card(shipped_folder("tasks") / bench / "assets.yaml", AssetCard)
    return [Asset(bench, source, file) for source in card.sources for file in source.files]


def find(name: str) -> Asset:
    """An asset by "bench/file".

    Raises:
        UserError: for a name that has no asset; it offers the nearest.
    """
    known = {asset.name: asset for asset in assets(name.partition("/")[0])}
    if name not in known:
        raise unknown_name("asset", name, known, f"lampe-eval data list {name.partition('/')[0]}")
    return known[name]


def chosen(names: Iterable[str]) -> list[Asset]:
    """The assets that names such as "leval" and "longbench/data.zip" mean, each once; all for no name.

    Raises:
        UserError: for a name that does not exist.
    """
    found = [
        [find(name)] if "/" in name else assets(name) for name in names or benches_with_assets()
    ]
    return list({asset.name: asset for group in found for asset in group}.values())
