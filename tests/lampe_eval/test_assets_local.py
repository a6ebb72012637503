"""Assets on this machine: layouts of an offline folder, changed files, members of archives."""

import json
import os
import zipfile
from pathlib import Path

import pytest

from lampe_eval import user_cache
from lampe_eval.assets import Asset, CorruptAsset, MissingAsset, locate, pins, verify
from lampe_eval.assets.local_assets import cache_path
from lampe_eval.assets.verify import manifest_path
from lampe_eval.errors import UserError
from tests.lampe_eval.assets_server import CONTENT, asset, sha256


@pytest.fixture(autouse=True)
def folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Return an offline folder; the cache is empty."""
    monkeypatch.setenv("LAMPE_EVAL_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("LAMPE_EVAL_DATA", raising=False)
    (tmp_path / "offline").mkdir()
    return tmp_path / "offline"


def put(path: Path, content: bytes = CONTENT) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def path_of(asset: Asset, folder: Path | None = None) -> Path:
    return locate(asset, folder).open_path()


def path_of_member(archive: Asset, member: str, folder: Path) -> Path:
    return path_of(archive.member(member), folder)


LAYOUTS = {
    "mirror": "someone/tiny/data/tiny.bin",
    "clones": "tiny/data/tiny.bin",
    "clone": "data/tiny.bin",
    "bench": "tiny/tiny.bin",
    "flat": "tiny.bin",
    "script": "json/renamed.bin",
}


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_layouts_of_an_offline_folder(
    folder: Path, layout: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny = asset(alternative_paths=("json/renamed.bin",))
    path = put(folder / layout)
    assert path_of(tiny, folder) == path
    monkeypatch.setenv("LAMPE_EVAL_DATA", str(folder))
    assert path_of(tiny) == path


def test_an_offline_folder_is_only_read(folder: Path) -> None:
    path = put(folder / "tiny.bin")
    path.chmod(0o444)
    folder.chmod(0o555)
    assert path_of(asset(), folder) == path
    assert path_of(asset(content=None), folder) == path
    assert list(folder.iterdir()) == [path]
    folder.chmod(0o755)


def test_the_file_with_the_right_contents_is_taken(folder: Path) -> None:
    put(folder / "data/tiny.bin", CONTENT[::-1])
    right = put(folder / "tiny.bin")
    assert path_of(asset(), folder) == right


def test_a_wrong_file_in_an_offline_folder_is_named(folder: Path) -> None:
    path = put(folder / "tiny.bin", CONTENT[::-1])
    with pytest.raises(CorruptAsset) as caught:
        path_of(asset(), folder)
    for part in (
        "tiny/tiny.bin",
        str(path),
        sha256(CONTENT),
        sha256(CONTENT[::-1]),
    ):
        assert part in str(caught.value)
    put(path, CONTENT[:10])
    with pytest.raises(CorruptAsset, match=rf"{len(CONTENT)} bytes.* 10"):
        path_of(asset(), folder)


def test_a_missing_file_or_folder_is_named(folder: Path) -> None:
    with pytest.raises(MissingAsset, match=r"tiny/tiny.bin.*lampe-eval data fetch .* --data-dir"):
        path_of(asset(), folder)
    with pytest.raises(UserError, match=r"none: .*--data-dir"):
        path_of(asset(), folder / "none")
    local = locate(asset())
    assert (local.path, local.state) == (None, "missing")


def test_a_file_that_cannot_be_read_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> str:
        raise PermissionError(13, "Permission denied")

    put(folder / "tiny.bin")
    monkeypatch.setattr(verify, "sha256_of_files", refuse)
    with pytest.raises(UserError, match=r"tiny.bin.*Permission denied"):
        path_of(asset(), folder)


def test_a_hash_is_taken_once_and_after_every_change(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed: list[list[Path]] = []
    sha256_of_files = verify.sha256_of_files

    def record(files: list[Path]) -> str:
        hashed.append(files)
        return sha256_of_files(files)

    monkeypatch.setattr(verify, "sha256_of_files", record)
    path = put(folder / "tiny.bin")
    for _ in range(3):
        path_of(asset(), folder)
    assert len(hashed) == 1
    locate(asset(), folder, rehash=True)
    assert len(hashed) == 2
    os.utime(path, ns=(1, 1))
    path_of(asset(), folder)
    assert len(hashed) == 3
    put(path, CONTENT[::-1])
    with pytest.raises(CorruptAsset):
        path_of(asset(), folder)


@pytest.mark.parametrize(
    "manifest", ["", "[]", "{", '{"sha256": 3}', '{"sha256": "0", "stamps": [[1, 2]]}']
)
def test_a_broken_manifest_proves_nothing(folder: Path, manifest: str) -> None:
    path = put(folder / "tiny.bin")
    path_of(asset(), folder)
    manifest_path(path).write_text(manifest)
    assert path_of(asset(), folder) == path
    put(cache_path(asset()))
    assert json.loads(manifest_path(path).read_text())["sha256"] == sha256(CONTENT)


def test_a_local_copy_is_never_recorded_as_the_reference(folder: Path) -> None:
    loose = asset(content=None)
    for content in (CONTENT, b"another"):
        put(folder / "tiny.bin", content)
        assert locate(loose, folder).state == "unpinned"
    assert not pins.lock_file().exists()


def test_the_hash_of_a_download_is_recorded_and_required_of_every_copy(folder: Path) -> None:
    loose = asset(content=None)
    downloaded = put(cache_path(loose))
    verify.verify(loose, downloaded)
    assert json.loads(pins.lock_file().read_text()) == {
        loose.url: {"bytes": len(CONTENT), "sha256": sha256(CONTENT)},
    }
    downloaded.unlink()
    put(folder / "tiny.bin", b"another")
    with pytest.raises(CorruptAsset, match=r"assets.lock"):
        path_of(loose, folder)


@pytest.mark.parametrize("text", ["{", "[]", '{"a": 1}', '{"a": {"bytes": "x", "sha256": 1}}'])
def test_a_broken_lock_file_is_named(folder: Path, text: str) -> None:
    put(folder / "tiny.bin")
    put(pins.lock_file(), text.encode())
    with pytest.raises(UserError, match=r"assets.lock"):
        path_of(asset(content=None), folder)


def zipped(path: Path, *names: str) -> bytes:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            archive.writestr(name, name)
    return path.read_bytes()


@pytest.mark.parametrize("inside", ["data/one.jsonl", "one.jsonl"])
def test_a_member_comes_out_of_its_archive(folder: Path, inside: str) -> None:
    archive = asset("data.zip", zipped(folder / "data.zip", inside))
    path = path_of_member(archive, "data/one.jsonl", folder)
    assert path.read_text() == inside
    assert path.is_relative_to(user_cache.root() / "unpacked")
    assert path_of_member(archive, "data/one.jsonl", folder) == path
    with pytest.raises(UserError, match=r"tiny/data.zip.*data/two.jsonl"):
        path_of_member(archive, "data/two.jsonl", folder)
    path.write_text("changed")
    with pytest.raises(CorruptAsset, match=r"unpack tiny/data.zip"):
        path_of_member(archive, "data/one.jsonl", folder)


@pytest.mark.parametrize("layout", ["data/one.jsonl", "one.jsonl", "tiny/data/one.jsonl"])
def test_a_member_may_lie_unpacked_in_the_offline_folder(folder: Path, layout: str) -> None:
    path = put(folder / layout, b"{}")
    assert path_of_member(asset("data.zip"), "data/one.jsonl", folder) == path


def test_a_malicious_archive_is_not_unpacked(folder: Path) -> None:
    archive = asset("data.zip", zipped(folder / "data.zip", "one.jsonl", "../../up.txt"))
    with pytest.raises(UserError, match=r"data.zip.*'../../up.txt'"):
        path_of_member(archive, "data/one.jsonl", folder)
    assert not (user_cache.root() / "up.txt").exists()
