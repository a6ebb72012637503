"""``lampe-eval data``: what it prints, and how it refuses."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from lampe_eval.assets import Asset, cache, web
from lampe_eval.assets.card import Source
from lampe_eval.commands import data
from lampe_eval.errors import UserError
from tests.lampe_eval.assets_server import CONTENT, Server, asset, serving, sha256

PINNED, LOOSE = asset("pinned.bin"), asset("loose.bin", content=None, roughly=2_000_000)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Server]:
    """Two assets, one of them without a hash."""
    monkeypatch.setenv("LAMPE_EVAL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr(data, "chosen", _chosen)
    monkeypatch.setattr(web, "PAUSE", 0.0)
    with serving() as server:
        monkeypatch.setattr(
            Source,
            "base",
            property(lambda source: f"{server.url}/{source.place}/{source.revision}/"),
        )
        for item in (PINNED, LOOSE):
            server.put(item, CONTENT)
        yield server


def _chosen(names: list[str]) -> list[Asset]:
    return [
        item for item in (PINNED, LOOSE) if not names or item.name in names or item.bench in names
    ]


def told(capsys: pytest.CaptureFixture[str]) -> str:
    return capsys.readouterr().out


def test_fetch_says_what_vouches_for_a_file(
    server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    data.bring([], None)
    lock = cache.root() / "assets.lock"
    assert told(capsys) == (
        "tiny/pinned.bin: fetched, sha256 as pinned\n"
        f"tiny/loose.bin: fetched, sha256 {sha256(CONTENT)} recorded in {lock}\n"
    )
    data.bring([], None)
    assert told(capsys) == "tiny/pinned.bin: here\ntiny/loose.bin: here\n"
    cache.home(LOOSE).unlink()
    data.bring(["tiny/loose.bin"], None)
    assert told(capsys) == f"tiny/loose.bin: fetched, sha256 as recorded in {lock}\n"


def test_fetch_leaves_out_what_the_offline_folder_has(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "pinned.bin").write_bytes(CONTENT)
    data.bring(["tiny/pinned.bin"], tmp_path)
    assert told(capsys) == "tiny/pinned.bin: here\n"
    assert not server.asked


def test_fetch_without_a_network_is_one_line(
    server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    server.files.clear()
    with pytest.raises(
        UserError, match=r"^tiny/pinned.bin: http://.* cannot be fetched .*--data-dir \(1 more"
    ):
        data.bring([], None)
    assert capsys.readouterr() == ("", "")


def test_list_shows_states(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    data.show([], None)
    assert [line.split()[0] for line in told(capsys).splitlines()] == [
        "file",
        "tiny/pinned.bin",
        "tiny/loose.bin",
    ]
    data.bring([], None)
    told(capsys)
    data.show([], None)
    _, pinned, loose = told(capsys).splitlines()
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
    cache.home(PINNED).write_bytes(b"")
    data.show([], None)
    assert "corrupt" in told(capsys)


def test_verify_takes_hashes_anew_and_fails_on_what_is_wrong(
    server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    data.verify([], None)
    assert told(capsys).count("missing") == 2
    with pytest.raises(
        UserError, match=r"2 of 2 files are corrupt or missing: tiny/pinned.bin, tiny/loose.bin"
    ):
        data.verify(["tiny"], None)
    data.bring([], None)
    data.verify(["tiny"], None)
    cache.home(LOOSE).write_bytes(CONTENT[::-1])
    with pytest.raises(UserError, match=r"1 of 2 files are corrupt or missing: tiny/loose.bin"):
        data.verify([], None)


def test_path_prints_paths_and_nothing_else(
    server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    data.paths([], None)
    assert told(capsys) == f"{cache.root()}\n"
    with pytest.raises(UserError, match="is not here"):
        data.paths(["tiny"], None)
    data.bring([], None)
    told(capsys)
    data.paths(["tiny"], None)
    assert told(capsys) == f"{cache.home(PINNED)}\n{cache.home(LOOSE)}\n"
