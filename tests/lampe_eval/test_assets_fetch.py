"""Downloads: broken transfers, faulty servers, wrong contents, two processes at once, the hub."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lampe_eval.assets import (
    Asset,
    CorruptAsset,
    MissingAsset,
    UnreachableSource,
    download,
    fetch,
    locate,
    pins,
)
from lampe_eval.assets.asset_cards import AssetFile, AssetSource
from lampe_eval.assets.local_assets import cache_path
from lampe_eval.assets.verify import manifest_path, verify
from lampe_eval.errors import UserError
from tests.lampe_eval.assets_server import COMMIT, CONTENT, Server, asset, serving, sha256


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Server]:
    """Serve in GitHub's place, with an empty cache."""
    monkeypatch.setenv("LAMPE_EVAL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(download, "PAUSE_SECONDS", 0.0)
    with serving() as server:
        base_url = property(lambda source: f"{server.url}/{source.place}/{source.revision}/")
        monkeypatch.setattr(AssetSource, "base_url", base_url)
        yield server


def path_of(asset: Asset) -> Path:
    return locate(asset).open_path()


def test_a_file_is_downloaded_once(server: Server) -> None:
    tiny = asset()
    sizes: list[int] = []
    server.put(tiny, CONTENT)
    assert fetch(tiny, sizes.append).state == "present"
    assert path_of(tiny).read_bytes() == CONTENT
    assert sizes[-1] == len(CONTENT)
    assert fetch(tiny).state == "present"
    assert len(server.requests) == 1


@pytest.mark.parametrize("ranges", [True, False])
def test_a_broken_transfer_is_resumed(server: Server, ranges: bool) -> None:
    tiny = asset()
    server.put(tiny, CONTENT)
    server.broken, server.ranges = 2, ranges
    assert fetch(tiny).state == "present"
    assert path_of(tiny).read_bytes() == CONTENT
    assert [range_header for _, _, range_header in server.requests] == [
        None,
        f"bytes={len(CONTENT) // 2}-",
        f"bytes={len(CONTENT) * 3 // 4 if ranges else len(CONTENT) // 2}-",
    ]


def test_the_next_call_resumes_the_draft_of_an_earlier_one(server: Server) -> None:
    tiny = asset()
    server.put(tiny, CONTENT)
    draft = cache_path(tiny).with_name("tiny.bin.part")
    draft.parent.mkdir(parents=True)
    draft.write_bytes(CONTENT[:1000])
    assert fetch(tiny).state == "present"
    assert server.requests[0][2] == "bytes=1000-"
    assert not draft.exists()


def test_a_draft_that_is_longer_than_the_file_is_dropped(server: Server) -> None:
    tiny = asset()
    server.put(tiny, CONTENT)
    draft = cache_path(tiny).with_name("tiny.bin.part")
    draft.parent.mkdir(parents=True)
    draft.write_bytes(CONTENT + b"more")
    assert fetch(tiny).state == "present"
    assert path_of(tiny).read_bytes() == CONTENT


def test_a_temporary_failure_is_tried_again(server: Server) -> None:
    tiny = asset()
    server.put(tiny, CONTENT)
    server.statuses = [503, 429]
    assert fetch(tiny).state == "present"


@pytest.mark.parametrize("statuses", [[404], [503] * download.ATTEMPTS])
def test_an_http_error_is_one_line_with_the_address(server: Server, statuses: list[int]) -> None:
    server.statuses = list(statuses)
    with pytest.raises(UnreachableSource) as caught:
        fetch(asset())
    message = str(caught.value)
    assert f"tiny/tiny.bin: {server.url}/someone/tiny/{COMMIT}/data/tiny.bin" in message
    assert f"HTTP {statuses[0]}" in message
    assert "--data-dir" in message
    assert "\n" not in message
    assert len(server.requests) == len(statuses)


def test_a_missing_network_is_reported(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(AssetSource, "base_url", "http://127.0.0.1:1/")
    with pytest.raises(UnreachableSource, match=r"tiny.bin .*Connection refused.* --data-dir"):
        fetch(asset())


def test_a_mirror_is_used_if_the_source_fails(server: Server) -> None:
    tiny = asset()
    server.files["/mirror/data/tiny.bin"] = CONTENT
    mirrored = tiny.source.model_copy(update={"mirrors": (f"{server.url}/mirror/",)})
    assert fetch(Asset("tiny", mirrored, tiny.file)).state == "present"


@pytest.mark.parametrize(
    "wrong", [CONTENT[:-1] + b"?", CONTENT[:-1], CONTENT + b"?"], ids=["hash", "short", "long"]
)
def test_wrong_contents_are_refused_and_removed(server: Server, wrong: bytes) -> None:
    tiny = asset()
    server.put(tiny, wrong)
    with pytest.raises(CorruptAsset, match=r"tiny/tiny.bin"):
        fetch(tiny)
    assert [path.suffix for path in cache_path(tiny).parent.iterdir()] == [".lock"]
    with pytest.raises(MissingAsset):
        path_of(tiny)
    server.put(tiny, CONTENT)
    assert fetch(tiny).state == "present"


def test_a_damaged_file_in_the_cache_is_downloaded_again(server: Server) -> None:
    tiny = asset()
    server.put(tiny, CONTENT)
    fetch(tiny)
    cache_path(tiny).write_bytes(CONTENT[::-1])
    with pytest.raises(CorruptAsset, match=r"lampe-eval data fetch tiny/tiny.bin"):
        path_of(tiny)
    assert fetch(tiny).state == "present"
    assert path_of(tiny).read_bytes() == CONTENT


def test_a_file_without_a_manifest_is_not_complete(server: Server) -> None:
    loose = asset(content=None)
    server.put(loose, CONTENT)
    cache_path(loose).parent.mkdir(parents=True)
    cache_path(loose).write_bytes(CONTENT[:100])
    with pytest.raises(MissingAsset):
        path_of(loose)
    assert fetch(loose).state == "unpinned"
    assert path_of(loose).read_bytes() == CONTENT


def test_the_hash_of_the_first_download_is_pinned(server: Server) -> None:
    loose = asset(content=None)
    server.put(loose, CONTENT)
    assert fetch(loose).state == "unpinned"
    assert pins.recorded_sha256(loose.url) == sha256(CONTENT)
    manifest_path(cache_path(loose)).unlink()
    server.put(loose, b"another")
    with pytest.raises(CorruptAsset) as caught:
        fetch(loose)
    for part in ("tiny/tiny.bin", sha256(CONTENT), sha256(b"another"), str(pins.lock_file())):
        assert part in str(caught.value)
    server.put(loose, CONTENT)
    assert fetch(loose).state == "unpinned"


def test_a_folder_counts_as_one_file(server: Server) -> None:
    essays = asset("essays", b"onetwo", parts=("a b.txt", "c.txt"))
    server.put(essays, b"one", "a%20b.txt")
    with pytest.raises(UnreachableSource, match=r"essays/c.txt"):
        fetch(essays)
    server.put(essays, b"two", "c.txt")
    assert fetch(essays).state == "present"
    assert sorted(path.name for path in path_of(essays).iterdir()) == ["a b.txt", "c.txt"]
    assert [path for _, path, _ in server.requests if "c.txt" not in path] == [
        server.requests[0][1]
    ]
    (path_of(essays) / "c.txt").write_bytes(b"twi")
    with pytest.raises(CorruptAsset):
        path_of(essays)


def test_a_cache_that_cannot_be_written_is_reported(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LAMPE_EVAL_CACHE", "/proc/none")
    with pytest.raises(UserError, match=r"/proc/none.*LAMPE_EVAL_CACHE"):
        fetch(asset())


def test_a_full_disk_is_not_reported_as_a_network_failure(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny = asset()
    server.put(tiny, CONTENT)
    monkeypatch.setattr(download, "_write_body", _full)
    with pytest.raises(UserError, match="No space left on device"):
        fetch(tiny)


def _full(*_: object) -> None:
    raise OSError(28, "No space left on device")


PROCESS = """
import sys
from lampe_eval.assets import fetch
from lampe_eval.assets.asset_cards import AssetSource
from tests.lampe_eval.assets_server import asset
AssetSource.base_url = property(lambda source: f"{sys.argv[1]}/{source.place}/{source.revision}/")
print(fetch(asset()).state)
"""


def test_two_processes_fetch_once(server: Server) -> None:
    server.put(asset(), CONTENT)
    server.pause = 0.3
    command = [sys.executable, "-W", "error", "-c", PROCESS, server.url]
    root = Path(__file__).parents[2]
    both = [
        subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, text=True) for _ in range(2)
    ]
    assert [process.communicate(timeout=120)[0] for process in both] == ["present\n", "present\n"]
    assert len(server.requests) == 1


HUB = """
import huggingface_hub.constants  # reads the environment, before the tests' package forbids the hub
from lampe_eval.assets import fetch
from lampe_eval.errors import UserError
from tests.lampe_eval.test_assets_fetch import hub_asset, path_of
try:
    print(fetch(hub_asset()).state, path_of(hub_asset()))
except UserError as error:
    print(type(error).__name__, error)
"""


def hub_asset() -> Asset:
    file = AssetFile(path="data/tiny.bin", bytes=len(CONTENT), sha256=sha256(CONTENT))
    return Asset("tiny", AssetSource(hub="someone/tiny", revision=COMMIT, files=(file,)), file)


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
    assert _hub(server) == f"present {cache_path(hub_asset())}\n"
    assert cache_path(hub_asset()).read_bytes() == CONTENT
    assert verify(hub_asset(), cache_path(hub_asset()), rehash=True).state == "present"


def test_wrong_contents_from_the_hub_are_refused(server: Server) -> None:
    server.files[f"/datasets/someone/tiny/resolve/{COMMIT}/data/tiny.bin"] = CONTENT[::-1]
    assert _hub(server).startswith("CorruptAsset tiny/tiny.bin:")
    assert not cache_path(hub_asset()).exists()


def test_a_file_missing_on_the_hub_is_one_line(server: Server) -> None:
    output = _hub(server)
    assert output.startswith("UnreachableSource tiny/tiny.bin: ")
    assert output.count("\n") == 1
    assert "--data-dir" in output
