"""Loading: every layout of an offline folder, and files that changed behind our back."""

import json
import os
import zipfile
from pathlib import Path

import pytest

from lampe_eval.assets import Corrupt, cache, load, load_member, locate, pins, verify
from lampe_eval.errors import UserError
from tests.lampe_eval.assets_server import CONTENT, asset, sha256


@pytest.fixture(autouse=True)
def folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An offline folder, and an empty cache."""
    monkeypatch.setenv("LAMPE_EVAL_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("LAMPE_EVAL_DATA", raising=False)
    (tmp_path / "offline").mkdir()
    return tmp_path / "offline"


def put(path: Path, content: bytes = CONTENT) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


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
    tiny = asset(also=("json/renamed.bin",))
    path = put(folder / layout)
    assert load(tiny, folder) == path
    monkeypatch.setenv("LAMPE_EVAL_DATA", str(folder))
    assert load(tiny) == path


def test_an_offline_folder_is_only_read(folder: Path) -> None:
    path = put(folder / "tiny.bin")
    path.chmod(0o444)
    folder.chmod(0o555)
    assert load(asset(), folder) == path
    assert load(asset(content=None), folder) == path
    assert list(folder.iterdir()) == [path]
    folder.chmod(0o755)


def test_of_two_files_of_that_name_the_right_one_is_taken(folder: Path) -> None:
    put(folder / "data/tiny.bin", CONTENT[::-1])
    right = put(folder / "tiny.bin")
    assert load(asset(), folder) == right


def test_a_wrong_file_of_an_offline_folder_is_told(folder: Path) -> None:
    path = put(folder / "tiny.bin", CONTENT[::-1])
    with pytest.raises(Corrupt) as caught:
        load(asset(), folder)
    for told in (
        "tiny/tiny.bin",
        str(path),
        sha256(CONTENT),
        sha256(CONTENT[::-1]),
        "replace or remove it",
    ):
        assert told in str(caught.value)
    put(path, CONTENT[:10])
    with pytest.raises(Corrupt, match=rf"expected {len(CONTENT)} bytes, got 10"):
        load(asset(), folder)


def test_a_missing_file_or_folder_is_told(folder: Path) -> None:
    with pytest.raises(
        UserError, match=r"tiny/tiny.bin: is not here; .*lampe-eval data fetch .* --data-dir"
    ):
        load(asset(), folder)
    with pytest.raises(UserError, match=r"none: no such folder; --data-dir"):
        load(asset(), folder / "none")
    assert locate(asset()) == (None, "missing")


def test_a_file_that_cannot_be_read_is_told(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> str:
        raise PermissionError(13, "Permission denied")

    put(folder / "tiny.bin")
    monkeypatch.setattr(verify, "_sha256", refuse)
    with pytest.raises(UserError, match=r"tiny.bin cannot be read \(Permission denied\)"):
        load(asset(), folder)


def test_a_hash_is_taken_once_and_after_every_change(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = list[object]()
    real = verify._sha256
    monkeypatch.setattr(verify, "_sha256", lambda files: taken.append(files) or real(files))
    path = put(folder / "tiny.bin")
    for _ in range(3):
        load(asset(), folder)
    assert len(taken) == 1
    locate(asset(), folder, again=True)
    assert len(taken) == 2
    os.utime(path, ns=(1, 1))
    load(asset(), folder)
    assert len(taken) == 3
    put(path, CONTENT[::-1])
    with pytest.raises(Corrupt):
        load(asset(), folder)


@pytest.mark.parametrize(
    "manifest", ["", "[]", "{", '{"sha256": 3}', '{"sha256": "0", "stamps": [[1, 2]]}']
)
def test_a_broken_manifest_proves_nothing(folder: Path, manifest: str) -> None:
    path = put(folder / "tiny.bin")
    load(asset(), folder)
    cache.manifest(path).write_text(manifest)
    assert load(asset(), folder) == path
    put(cache.home(asset()))
    assert json.loads(cache.manifest(path).read_text())["sha256"] == sha256(CONTENT)


def test_a_copy_of_ones_own_decides_for_no_other(folder: Path) -> None:
    loose = asset(content=None)
    for content in (CONTENT, b"another"):
        put(folder / "tiny.bin", content)
        assert locate(loose, folder)[1] == "unpinned"
    assert not pins.lock_file().exists()


def test_what_was_fetched_is_recorded_and_holds_for_every_copy(folder: Path) -> None:
    loose = asset(content=None)
    fetched = put(cache.home(loose))
    verify.check(loose, fetched)
    assert json.loads(pins.lock_file().read_text()) == {
        loose.key: {"bytes": len(CONTENT), "sha256": sha256(CONTENT)},
    }
    fetched.unlink()
    put(folder / "tiny.bin", b"another")
    with pytest.raises(Corrupt, match=r"recorded on first use in .*assets.lock; remove it there"):
        load(loose, folder)


@pytest.mark.parametrize("text", ["{", "[]", '{"a": 1}', '{"a": {"bytes": "x", "sha256": 1}}'])
def test_a_broken_lock_file_is_told(folder: Path, text: str) -> None:
    put(folder / "tiny.bin")
    put(pins.lock_file(), text.encode())
    with pytest.raises(UserError, match=r"assets.lock: not a lock file; mend it, or remove it"):
        load(asset(content=None), folder)


def zipped(path: Path, *names: str) -> bytes:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            archive.writestr(name, name)
    return path.read_bytes()


@pytest.mark.parametrize("inside", ["data/one.jsonl", "one.jsonl"])
def test_a_member_comes_out_of_its_archive(folder: Path, inside: str) -> None:
    archive = asset("data.zip", zipped(folder / "data.zip", inside))
    path = load_member(archive, "data/one.jsonl", folder)
    assert path.read_text() == inside
    assert path.is_relative_to(cache.root() / "unpacked")
    assert load_member(archive, "data/one.jsonl", folder) == path
    with pytest.raises(UserError, match=r"tiny/data.zip: has no data/two.jsonl"):
        load_member(archive, "data/two.jsonl", folder)
    path.write_text("changed")
    with pytest.raises(Corrupt, match=r"to unpack tiny/data.zip anew"):
        load_member(archive, "data/one.jsonl", folder)


@pytest.mark.parametrize("layout", ["data/one.jsonl", "one.jsonl", "tiny/data/one.jsonl"])
def test_a_member_may_lie_unpacked_in_the_offline_folder(folder: Path, layout: str) -> None:
    path = put(folder / layout, b"{}")
    assert load_member(asset("data.zip"), "data/one.jsonl", folder) == path


def test_a_malicious_archive_is_not_unpacked(folder: Path) -> None:
    archive = asset("data.zip", zipped(folder / "data.zip", "one.jsonl", "../../up.txt"))
    with pytest.raises(
        UserError, match=r"data.zip: not unpacked: '../../up.txt' is no plain file below the target"
    ):
        load_member(archive, "data/one.jsonl", folder)
    assert not (cache.root() / "up.txt").exists()
