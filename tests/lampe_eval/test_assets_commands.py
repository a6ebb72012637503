"""``lampe-eval data``: its output and its errors."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from lampe_eval import user_cache
from lampe_eval.assets import Asset, MissingAsset, download
from lampe_eval.assets.asset_cards import AssetSource
from lampe_eval.assets.local_assets import cache_path
from lampe_eval.commands import data
from lampe_eval.errors import UserError
from tests.lampe_eval.assets_server import CONTENT, Server, asset, serving, sha256

PINNED = asset("pinned.bin")
UNPINNED = asset("loose.bin", content=None, approximate_bytes=2_000_000)
ASSETS = (PINNED, UNPINNED)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Server]:
    """Serve two assets, one of them without a hash."""
    monkeypatch.setenv("LAMPE_EVAL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr(data, "select", _select)
    monkeypatch.setattr(download, "PAUSE_SECONDS", 0.0)
    with serving() as server:
        monkeypatch.setattr(
            AssetSource,
            "base_url",
            property(lambda source: f"{server.url}/{source.place}/{source.revision}/"),
        )
        for item in (PINNED, UNPINNED):
            server.put(item, CONTENT)
        yield server


def _select(names: list[str]) -> list[Asset]:
    return [
        item
        for item in (PINNED, UNPINNED)
        if not names or item.name in names or item.bench in names
    ]


def output(capsys: pytest.CaptureFixture[str]) -> str:
    return capsys.readouterr().out


def test_fetch_prints_where_the_hash_of_a_file_comes_from(
    server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    data.fetch_files([], None)
    pinned, unpinned = output(capsys).splitlines()
    assert pinned.startswith("tiny/pinned.bin: fetched")
    assert sha256(CONTENT) not in pinned
    assert unpinned.startswith("tiny/loose.bin: fetched")
    assert sha256(CONTENT) in unpinned
    assert str(user_cache.root() / "assets.lock") in unpinned
    data.fetch_files([], None)
    first, second = output(capsys).splitlines()
    assert first.startswith("tiny/pinned.bin: ")
    assert second.startswith("tiny/loose.bin: ")
    assert len(server.requests) == 2
    cache_path(UNPINNED).unlink()
    data.fetch_files(["tiny/loose.bin"], None)
    again = output(capsys)
    assert again.startswith("tiny/loose.bin: fetched")
    assert str(user_cache.root() / "assets.lock") in again
    assert sha256(CONTENT) not in again


def test_fetch_skips_files_of_the_offline_folder(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "pinned.bin").write_bytes(CONTENT)
    data.fetch_files(["tiny/pinned.bin"], tmp_path)
    assert output(capsys).startswith("tiny/pinned.bin: ")
    assert not server.requests


def test_fetch_without_a_network_is_one_line(
    server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    server.files.clear()
    with pytest.raises(UserError, match=r"^tiny/pinned.bin: http://.*--data-dir \(1 more"):
        data.fetch_files([], None)
    assert capsys.readouterr() == ("", "")


def test_all_files_that_a_run_lacks_are_named_at_once(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.files.clear()
    monkeypatch.setattr(data, "find", lambda name: {item.name: item for item in ASSETS}[name])
    with pytest.raises(UserError, match=r"^tiny/pinned.bin: .*tiny/loose.bin"):
        data.fetch_missing(["tiny/pinned.bin", "tiny/loose.bin"], None)


def test_list_shows_states(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    data.list_files([], None)
    assert [line.split()[0] for line in output(capsys).splitlines()] == [
        "file",
        "tiny/pinned.bin",
        "tiny/loose.bin",
    ]
    data.fetch_files([], None)
    output(capsys)
    data.list_files([], None)
    _, pinned, loose = output(capsys).splitlines()
    assert pinned.split() == [
        "tiny/pinned.bin",
        "256.0",
        "kB",
        "present",
        "someone/tiny",
        "0123456",
    ]
    assert loose.split() == [
        "tiny/loose.bin",
        "about",
        "2.0",
        "MB",
        "unpinned",
        "someone/tiny",
        "0123456",
    ]
    cache_path(PINNED).write_bytes(b"")
    data.list_files([], None)
    assert "corrupt" in output(capsys)


def test_verify_takes_hashes_again_and_fails_on_wrong_files(
    server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    data.verify_files([], None)
    assert output(capsys).count("missing") == 2
    with pytest.raises(UserError, match=r"2 of 2 .*: tiny/pinned.bin, tiny/loose.bin"):
        data.verify_files(["tiny"], None)
    data.fetch_files([], None)
    data.verify_files(["tiny"], None)
    cache_path(UNPINNED).write_bytes(CONTENT[::-1])
    with pytest.raises(UserError, match=r"1 of 2 .*: tiny/loose.bin"):
        data.verify_files([], None)


def test_path_prints_paths_and_nothing_else(
    server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    data.print_paths([], None)
    assert output(capsys) == f"{user_cache.root()}\n"
    with pytest.raises(MissingAsset):
        data.print_paths(["tiny"], None)
    data.fetch_files([], None)
    output(capsys)
    data.print_paths(["tiny"], None)
    assert output(capsys) == f"{cache_path(PINNED)}\n{cache_path(UNPINNED)}\n"
