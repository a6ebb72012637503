"""Unpacking: sound archives come out whole, others leave nothing behind."""

import io
import stat
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from lampe_eval.assets.archive import ArchiveLimits, unpack
from lampe_eval.errors import UserError

Damage = Callable[[Path], None]


def zipped(path: Path, **members: str) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in members.items():
            archive.writestr(name, text)
    return path


def tarred(path: Path, *members: tarfile.TarInfo, content: bytes = b"text") -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for member in members:
            member.size = len(content) if member.isreg() else 0
            archive.addfile(member, io.BytesIO(content) if member.isreg() else None)
    return path


def entry(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info


def assert_refused(archive: Path, match: str, **limits: int) -> None:
    """Assert that an archive is refused and that nothing is left on the disk."""
    before = sorted(archive.parent.rglob("*"))
    with pytest.raises(UserError, match=match) as caught:
        unpack(archive, archive.parent / "out", ArchiveLimits(**limits))
    assert "\n" not in str(caught.value)
    assert sorted(archive.parent.rglob("*")) == before


def test_a_zip_comes_out_whole(tmp_path: Path) -> None:
    archive = zipped(tmp_path / "a.zip", **{"data/": "", "data/one.jsonl": "1", "two.txt": "2"})
    unpack(archive, tmp_path / "out")
    assert (tmp_path / "out/data/one.jsonl").read_text() == "1"
    assert sorted(path.name for path in (tmp_path / "out").rglob("*")) == [
        "data",
        "one.jsonl",
        "two.txt",
    ]


def test_a_tar_comes_out_whole(tmp_path: Path) -> None:
    archive = tarred(tmp_path / "a.tar.gz", entry("data", tarfile.DIRTYPE), entry("data/one.txt"))
    unpack(archive, tmp_path / "out")
    assert (tmp_path / "out/data/one.txt").read_bytes() == b"text"


OUTSIDE = [
    "../up.txt",
    "/etc/up.txt",
    "a/../../up.txt",
    "..\\up.txt",
    "C:/up.txt",
    "a//up.txt",
    "./up.txt",
]


@pytest.mark.parametrize("name", OUTSIDE)
def test_no_path_leaves_the_target(tmp_path: Path, name: str) -> None:
    assert_refused(
        zipped(tmp_path / "a.zip", **{"fine.txt": "1", name: "2"}), "no plain file below the target"
    )


@pytest.mark.parametrize("name", ["../up.txt", "/etc/up.txt", "a/../../up.txt"])
def test_no_path_leaves_the_target_of_a_tar(tmp_path: Path, name: str) -> None:
    assert_refused(
        tarred(tmp_path / "a.tgz", entry("fine.txt"), entry(name)), "no plain file below the target"
    )


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE]
)
def test_no_links_or_devices(tmp_path: Path, kind: bytes) -> None:
    assert_refused(
        tarred(tmp_path / "a.tgz", entry("one", kind, "/etc/passwd"), entry("one/two")),
        "'one' is no plain file",
    )


def test_no_links_in_a_zip(tmp_path: Path) -> None:
    link = zipfile.ZipInfo("link")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(link, "/etc/passwd")
    assert_refused(tmp_path / "a.zip", "'link' is no plain file")


@pytest.mark.parametrize(
    ("limits", "match"),
    [
        ({"file_bytes": 999}, r"'one.txt' .* 999 bytes"),
        ({"total_bytes": 1500}, r"'two.txt' .* 500 bytes"),
        ({"files": 1}, " 1 files"),
    ],
)
def test_sizes_are_counted_while_unpacking(
    tmp_path: Path, limits: dict[str, int], match: str
) -> None:
    text = "0" * 1000
    assert_refused(
        zipped(tmp_path / "a.zip", **{"one.txt": text, "two.txt": text}), match, **limits
    )
    (tmp_path / "a.zip").unlink()
    assert_refused(
        tarred(tmp_path / "a.tgz", entry("one.txt"), entry("two.txt"), content=text.encode()),
        match,
        **limits,
    )


def test_a_zip_that_states_false_sizes_is_stopped(tmp_path: Path) -> None:
    archive = zipped(tmp_path / "a.zip", **{"one.txt": "0" * 100_000})
    data = archive.read_bytes()
    archive.write_bytes(data.replace((100_000).to_bytes(4, "little"), (10).to_bytes(4, "little")))
    assert_refused(archive, r"broken archive|too large", file_bytes=1000)


def test_a_file_that_is_in_it_twice_is_refused(tmp_path: Path) -> None:
    assert_refused(tarred(tmp_path / "a.tgz", entry("one"), entry("one")), "'one' is in it twice")


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[40] ^= 0xFF
    path.write_bytes(bytes(data))


@pytest.mark.parametrize("damage", [_cut, _flip, lambda path: path.write_bytes(b"no archive")])
@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_a_damaged_archive_is_reported(tmp_path: Path, kind: str, damage: Damage) -> None:
    text = "".join(map(str, range(5000)))
    if kind == "zip":
        archive = zipped(tmp_path / "a.zip", **{"one.txt": text})
    else:
        archive = tarred(tmp_path / "a.tgz", entry("one.txt"), content=text.encode())
    damage(archive)
    assert_refused(archive, r"is a broken archive|cannot write|not unpacked")


def test_a_name_that_is_no_text_is_reported(tmp_path: Path) -> None:
    archive = zipped(tmp_path / "a.zip", **{"\u00e9.txt": "1"})
    archive.write_bytes(archive.read_bytes().replace("\u00e9".encode(), b"\xff\xff"))
    assert_refused(archive, "is a broken archive")


def test_a_missing_archive_is_reported(tmp_path: Path) -> None:
    assert_refused(tmp_path / "none.zip", r"none.zip: .*No such file or directory")
