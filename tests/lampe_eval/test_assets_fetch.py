"""Fetching: broken transfers, servers that misbehave, wrong contents, two processes at once, and the hub."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lampe_eval.assets import Corrupt, Unreachable, cache, fetch, load, pins, web
from lampe_eval.assets.card import Asset, File, Source
from lampe_eval.assets.verify import check
from lampe_eval.errors import UserError
from tests.lampe_eval.assets_server import COMMIT, CONTENT, Server, asset, serving, sha256


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Server]:
    """A server in GitHub's place, and an empty cache."""
    monkeypatch.setenv("LAMPE_EVAL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(web, "PAUSE", 0.0)
    with serving() as server:
        base = property(lambda source: f"{server.url}/{source.place}/{source.revision}/")
        monkeypatch.setattr(Source, "base", base)
        yield server


def test_a_file_comes_once_and_is_there(server: Server) -> None:
    tiny, seen = asset(), list[int]()
    server.put(tiny, CONTENT)
    assert fetch(tiny, seen.append) == "present"
    assert load(tiny).read_bytes() == CONTENT
    assert seen[-1] == len(CONTENT)
    assert fetch(tiny) == "present"
    assert len(server.asked) == 1


@pytest.mark.parametrize("ranges", [True, False])
def test_a_broken_transfer_goes_on(server: Server, ranges: bool) -> None:
    tiny = asset()
    server.put(tiny, CONTENT)
    server.broken, server.ranges = 2, ranges
    assert fetch(tiny) == "present"
    assert load(tiny).read_bytes() == CONTENT
    assert [wanted for _, _, wanted in server.asked] == [
        None,
        f"bytes={len(CONTENT) // 2}-",
        f"bytes={len(CONTENT) * 3 // 4 if ranges else len(CONTENT) // 2}-",
    ]


def test_the_next_call_goes_on_with_what_an_earlier_one_got(server: Server) -> None:
    tiny = asset()
    server.put(tiny, CONTENT)
    draft = cache.home(tiny).with_name("tiny.bin.part")
    draft.parent.mkdir(parents=True)
    draft.write_bytes(CONTENT[:1000])
    assert fetch(tiny) == "present"
    assert server.asked[0][2] == "bytes=1000-"
    assert not draft.exists()


def test_a_draft_that_is_longer_than_the_file_is_dropped(server: Server) -> None:
    tiny = asset()
    server.put(tiny, CONTENT)
    draft = cache.home(tiny).with_name("tiny.bin.part")
    draft.parent.mkdir(parents=True)
    draft.write_bytes(CONTENT + b"more")
    assert fetch(tiny) == "present"
    assert load(tiny).read_bytes() == CONTENT


def test_a_server_in_trouble_is_asked_again(server: Server) -> None:
    tiny = asset()
    server.put(tiny, CONTENT)
    server.statuses = [503, 429]
    assert fetch(tiny) == "present"


@pytest.mark.parametrize("statuses", [[404], [503] * web.ATTEMPTS])
def test_a_file_that_does_not_come_is_told_in_one_line(server: Server, statuses: list[int]) -> None:
    server.statuses = list(statuses)
    with pytest.raises(Unreachable) as caught:
        fetch(asset())
    message = str(caught.value)
    assert message.startswith(
        f"tiny/tiny.bin: {server.url}/someone/tiny/{COMMIT}/data/tiny.bin cannot be fetched (HTTP"
    )
    assert "--data-dir" in message
    assert "\n" not in message
    assert len(server.asked) == len(statuses)


def test_no_network_is_told(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Source, "base", "http://127.0.0.1:1/")
    with pytest.raises(
        Unreachable, match=r"tiny.bin cannot be fetched \(Connection refused\); .* --data-dir"
    ):
        fetch(asset())


def test_a_mirror_is_asked_where_the_source_fails(server: Server) -> None:
    tiny = asset()
    server.files["/mirror/data/tiny.bin"] = CONTENT
    mirrored = tiny.source.model_copy(update={"mirrors": (f"{server.url}/mirror/",)})
    assert fetch(Asset("tiny", mirrored, tiny.file)) == "present"


@pytest.mark.parametrize(
    "wrong", [CONTENT[:-1] + b"?", CONTENT[:-1], CONTENT + b"?"], ids=["hash", "short", "long"]
)
def test_wrong_contents_are_refused_and_not_kept(server: Server, wrong: bytes) -> None:
    tiny = asset()
    server.put(tiny, wrong)
    with pytest.raises(Corrupt, match=r"tiny/tiny.bin.*nothing of it was kept"):
        fetch(tiny)
    assert [path.suffix for path in cache.home(tiny).parent.iterdir()] == [".lock"]
    with pytest.raises(UserError, match="is not here"):
        load(tiny)
    server.put(tiny, CONTENT)
    assert fetch(tiny) == "present"


def test_what_was_damaged_in_the_cache_is_fetched_anew(server: Server) -> None:
    tiny = asset()
    server.put(tiny, CONTENT)
    fetch(tiny)
    cache.home(tiny).write_bytes(CONTENT[::-1])
    with pytest.raises(Corrupt, match=r"get it anew with: lampe-eval data fetch tiny/tiny.bin"):
        load(tiny)
    assert fetch(tiny) == "present"
    assert load(tiny).read_bytes() == CONTENT


def test_a_file_without_a_manifest_is_not_complete(server: Server) -> None:
    loose = asset(content=None)
    server.put(loose, CONTENT)
    cache.home(loose).parent.mkdir(parents=True)
    cache.home(loose).write_bytes(CONTENT[:100])
    with pytest.raises(UserError, match="is not here"):
        load(loose)
    assert fetch(loose) == "unpinned"
    assert load(loose).read_bytes() == CONTENT


def test_a_hash_of_first_use_holds(server: Server) -> None:
    loose = asset(content=None)
    server.put(loose, CONTENT)
    assert fetch(loose) == "unpinned"
    assert pins.recorded(loose) == sha256(CONTENT)
    cache.manifest(cache.home(loose)).unlink()
    server.put(loose, b"another")
    with pytest.raises(Corrupt) as caught:
        fetch(loose)
    for told in ("tiny/tiny.bin", sha256(CONTENT), sha256(b"another"), str(pins.lock_file())):
        assert told in str(caught.value)
    server.put(loose, CONTENT)
    assert fetch(loose) == "unpinned"


def test_a_folder_counts_as_one_file(server: Server) -> None:
    essays = asset("essays", b"onetwo", parts=("a b.txt", "c.txt"))
    server.put(essays, b"one", "a%20b.txt")
    with pytest.raises(Unreachable, match=r"essays/c.txt cannot be fetched"):
        fetch(essays)
    server.put(essays, b"two", "c.txt")
    assert fetch(essays) == "present"
    assert sorted(path.name for path in load(essays).iterdir()) == ["a b.txt", "c.txt"]
    assert [path for _, path, _ in server.asked if "c.txt" not in path] == [server.asked[0][1]]
    (load(essays) / "c.txt").write_bytes(b"twi")
    with pytest.raises(Corrupt):
        load(essays)


def test_a_cache_that_cannot_be_written_is_told(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LAMPE_EVAL_CACHE", "/proc/none")
    with pytest.raises(
        UserError, match=r"cannot be written .*; LAMPE_EVAL_CACHE names another folder"
    ):
        fetch(asset())


def test_a_full_disk_is_not_taken_for_a_bad_network(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny = asset()
    server.put(tiny, CONTENT)
    monkeypatch.setattr(web, "_pour", _full)
    with pytest.raises(UserError, match=r"cannot be written \(No space left on device\)"):
        fetch(tiny)


def _full(*_: object) -> None:
    raise OSError(28, "No space left on device")


PROCESS = """
import sys
from lampe_eval.assets import fetch, web
from lampe_eval.assets.card import Source
from tests.lampe_eval.assets_server import asset
Source.base = property(lambda source: f"{sys.argv[1]}/{source.place}/{source.revision}/")
print(fetch(asset()))
"""


def test_two_processes_fetch_once(server: Server) -> None:
    server.put(asset(), CONTENT)
    server.pause = 0.3
    command = [sys.executable, "-W", "error", "-c", PROCESS, server.url]
    root = Path(__file__).parents[2]
    both = [
        subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, text=True) for _ in range(2)
    ]
    assert [process.communicate(timeout=30)[0] for process in both] == ["present\n", "present\n"]
    assert len(server.asked) == 1


HUB = """
import huggingface_hub.constants  # reads the environment, before the tests' package forbids the hub
from lampe_eval.assets import fetch, load
from lampe_eval.errors import UserError
from tests.lampe_eval.test_assets_fetch import hub_asset
try:
    print(fetch(hub_asset()), load(hub_asset()))
except UserError as error:
    print(type(error).__name__, error)
"""


def hub_asset() -> Asset:
    file = File(path="data/tiny.bin", bytes=len(CONTENT), sha256=sha256(CONTENT))
    return Asset("tiny", Source(hub="someone/tiny", revision=COMMIT, files=(file,)), file)


def _hub(server: Server) -> str:
    environment = {
        **os.environ,
        "HF_ENDPOINT": server.url,
        "HF_HUB_OFFLINE": "0",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    }
    command = [sys.executable, "-c", HUB]
    root = Path(__file__).parents[2]
    return subprocess.run(
        command, cwd=root, env=environment, capture_output=True, text=True, check=True
    ).stdout


def test_the_hub_is_read_through_its_own_client(server: Server) -> None:
    server.files[f"/datasets/someone/tiny/resolve/{COMMIT}/data/tiny.bin"] = CONTENT
    assert _hub(server) == f"present {cache.home(hub_asset())}\n"
    assert cache.home(hub_asset()).read_bytes() == CONTENT
    assert check(hub_asset(), cache.home(hub_asset()), again=True) == "present"


def test_wrong_contents_from_the_hub_are_refused(server: Server) -> None:
    server.files[f"/datasets/someone/tiny/resolve/{COMMIT}/data/tiny.bin"] = CONTENT[::-1]
    assert _hub(server).startswith("Corrupt tiny/tiny.bin:")
    assert not cache.home(hub_asset()).exists()


def test_a_hub_that_does_not_have_it_is_told_in_one_line(server: Server) -> None:
    told = _hub(server)
    assert told.startswith("Unreachable tiny/tiny.bin: ")
    assert told.count("\n") == 1
    assert "--data-dir" in told
