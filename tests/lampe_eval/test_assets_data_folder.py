"""Data folders as people have them: nested, in archives, in other containers, and mirrors."""

import io
import json
import os
import tarfile
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lampe_eval.assets import LocalAsset, data_folder, find, locate, path_of, unsearched
from lampe_eval.benches.longbench import LongBench
from lampe_eval.benches.longbench_v2 import questions
from lampe_eval.commands import data
from lampe_eval.commands.validate import validate_suite
from lampe_eval.errors import UserError
from lampe_eval.texts.jsonl_rows import FaultyRow, read_rows
from tests.parity.data import DATA
from tests.upstream import v2_row

TREC = "longbench/data.zip!/data/trec.jsonl"
ROWS: list[dict[str, Any]] = [
    {
        "input": "Question: wo?\nType:",
        "context": f"日本 text {number}\u2028\n\ttail",
        "answers": ["Stadt", "city"][: number + 1],
        "length": 7 * number,
        "dataset": "trec",
        "language": "en",
        "all_classes": ["Stadt", "Land"] if number else None,
        "_id": f"id{number}",
    }
    for number in range(5)
]
READY = [{"context": "c", "question": "q", "answer_prefix": "p", "answers": ["a"], "_id": "1"}]

Row = Mapping[str, Any]


@pytest.fixture(autouse=True)
def folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Return a data folder; the cache is empty."""
    monkeypatch.setenv("LAMPE_EVAL_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("LAMPE_EVAL_DATA", raising=False)
    (tmp_path / "mine").mkdir()
    return tmp_path / "mine"


def _rows(path: Path) -> list[dict[str, Any] | FaultyRow]:
    return list(read_rows(path, dict))


def lines(rows: Sequence[Row]) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def array(rows: Sequence[Row]) -> bytes:
    return json.dumps(rows, indent=1).encode()


def parquet(rows: Sequence[Row]) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(list(rows)), buffer)
    return buffer.getvalue()


def put(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def zipped(path: Path, files: Mapping[str, bytes]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)


def tarred(path: Path, files: Mapping[str, bytes]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    mode: Any = "w:gz" if path.suffix in (".gz", ".tgz") else "w"
    with tarfile.open(path, mode) as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))


LOOSE: dict[str, dict[str, Callable[[Sequence[Row]], bytes]]] = {
    "flat": {"trec.jsonl": lines},
    "nested": {"a/b/c/d/e/f/trec.jsonl": lines},
    "lines called json": {"x/trec.json": lines},
    "array": {"LongBench/trec.json": array},
    "array called jsonl": {"deep/er/trec.jsonl": array},
    "flat array called jsonl": {"trec.jsonl": array},
    "parquet": {"trec.parquet": parquet},
    "split folder": {"LongBench/trec/test.parquet": parquet},
    "shard": {"LongBench/trec/test-00000-of-00001.parquet": parquet},
    "shard with a hash": {"data/trec-00000-of-00001-0f92e2337f79aeac.parquet": parquet},
    "converted by the hub": {"trec/test/0000.parquet": parquet},
    "snapshot of the hub": {"datasets--x/snapshots/abc/data/trec.jsonl": lines},
    "beside predictions": {
        "pred/llama/trec.jsonl": lambda _: b'{"pred": "x"}\n',
        "t/trec.jsonl": lines,
    },
}


@pytest.mark.parametrize("layout", LOOSE)
def test_rows_are_the_same_in_every_layout(folder: Path, layout: str) -> None:
    for name, write in LOOSE[layout].items():
        put(folder / name, write(ROWS))
    for _ in range(2):
        local = locate(find(TREC), folder)
        assert local.state == "unpinned"
        assert _rows(local.open_path()) == ROWS
    assert local.found.startswith(str(folder))


@pytest.mark.parametrize("name", ["my.zip", "data.zip", "a/my.tar", "my.tar.gz", "my.tgz"])
@pytest.mark.parametrize("write", [lines, array, parquet])
def test_rows_are_the_same_in_every_archive(
    folder: Path, name: str, write: Callable[[Sequence[Row]], bytes]
) -> None:
    ending = {lines: "jsonl", array: "json", parquet: "parquet"}[write]
    pack = zipped if name.endswith(".zip") else tarred
    pack(folder / name, {"readme.txt": b"x", f"LongBench/data/trec.{ending}": write(ROWS)})
    local = locate(find(TREC), folder)
    assert _rows(local.open_path()) == ROWS
    assert (local.state, name.partition(".")[2] in local.layout) == ("unpinned", True)
    assert str(folder / name) in local.found


def test_shards_are_joined_in_order_and_only_whole(folder: Path) -> None:
    for number in range(3):
        put(folder / f"trec/test-{number:05}-of-00003.parquet", parquet(ROWS[number : number + 1]))
    assert _rows(path_of(TREC, folder)) == ROWS[:3]
    (folder / "trec/test-00001-of-00003.parquet").unlink()
    os.utime(folder / "trec", ns=(1, 1))
    local = locate(find(TREC), folder)
    assert local.state == "missing"
    assert "trec/test-00000-of-00003.parquet" in local.unused[0]


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("data.json", array),
        ("x/data.jsonl", lines),
        ("LongBench-v2/train-00000-of-00001.parquet", parquet),
    ],
)
def test_rows_of_longbench_v2_become_an_array(
    folder: Path, name: str, write: Callable[[Sequence[Row]], bytes]
) -> None:
    rows = [v2_row(number) for number in range(3)]
    put(folder / name, write(rows))
    if name == "data.json":
        # In the official container the official hash holds.
        assert locate(find("longbench-v2/data.json"), folder).state == "corrupt"
        return
    read = list(questions(path_of("longbench-v2/data.json", folder)))
    assert [row.model_dump(by_alias=True) for row in read] == rows


@pytest.mark.parametrize(
    "name", ["trec.parquet", "LongBench/trec/test-00000-of-00001.parquet", "trec.jsonl"]
)
def test_a_mirror_with_ready_prompts_is_named(folder: Path, name: str) -> None:
    put(folder / name, parquet(READY) if name.endswith("parquet") else lines(READY))
    local = locate(find(TREC), folder)
    assert local.state == "missing"
    with pytest.raises(UserError, match=rf"{name}.*question.*prompts=ready"):
        local.open_path()


BROKEN = {
    "no parquet": ("trec.parquet", b"PAR1 broken"),
    "other fields": ("x/trec.jsonl", b'{"pred": "a"}\n'),
    "no object": ("x/trec.json", b"[1]"),
    "empty": ("x/trec.jsonl", b""),
    "cut": ("x/trec.json", b'[{"input": "a'),
    "no text": ("x/trec.jsonl", b"\xff\xfe{"),
    "archive": ("my.zip", b"PK\x03\x04broken"),
    "tar": ("my.tar.gz", b"\x1f\x8bbroken"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_what_cannot_be_used_is_named(folder: Path, case: str) -> None:
    name, content = BROKEN[case]
    put(folder / name, content)
    local = locate(find(TREC), folder)
    assert local.state == "missing"
    assert any(name in text for text in (*local.unused, *unsearched(folder)))


def test_links_and_limits(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path / "outside/trec.jsonl", lines(ROWS))
    (folder / "sub").mkdir()
    (folder / "sub/up").symlink_to(folder)
    (folder / "sub/out").symlink_to(tmp_path / "outside")
    (folder / "loop").symlink_to(folder / "loop")
    os.mkfifo(folder / "sub/trec.jsonl")
    assert locate(find(TREC), folder).state == "missing"
    # Links to files are followed: the hub's cache consists of them.
    (folder / "sub/deep").mkdir()
    (folder / "sub/deep/trec.jsonl").symlink_to(tmp_path / "outside/trec.jsonl")
    assert locate(find(TREC), folder).layout == "JSON lines"
    monkeypatch.setattr(data_folder, "MAX_DEPTH", 1)
    monkeypatch.setattr(data_folder, "_listed", {})
    assert locate(find(TREC), folder).state == "missing"
    assert "sub/deep" in unsearched(folder)[0]


def test_a_folder_is_listed_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(folder / "a/trec.json", array(ROWS))
    walks: list[Path] = []
    walk = data_folder._walk

    def record(root: Path) -> data_folder.DataFolder:
        walks.append(root)
        return walk(root)

    monkeypatch.setattr(data_folder, "_walk", record)
    for _ in range(3):
        path_of(TREC, folder)
    assert len(walks) == 1


def test_a_name_without_a_hash_needs_its_folder(folder: Path) -> None:
    put(folder / "venv/lib/openai.py", b"")
    assert locate(find("niah/openai.py"), folder).state == "missing"
    put(folder / "clones/niah/providers/openai.py", b"")
    assert locate(find("niah/openai.py"), folder).state == "unpinned"


def test_where_prints_every_file_of_a_task(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    zipped(folder / "x/all.zip", {"trec.json": array(ROWS)})
    put(folder / "qasper.parquet", parquet(READY))
    data.print_places(["longbench/trec", "longbench/qasper", "ppl/exact"], "fair", folder)
    output = capsys.readouterr().out
    trec, qasper = output.split("longbench/trec\n")[1].split("longbench/qasper\n")
    assert f"{TREC}: unpinned, JSON array in zip, {folder}/x/all.zip!/trec.json" in trec
    assert trec.count("missing") == 2
    assert "qasper.jsonl: missing" in qasper
    assert "qasper.parquet: holds ready" in qasper
    assert "ppl/exact" in qasper


def test_available_leaves_out_tasks_without_files(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    suite = folder / "suite.yaml"
    suite.write_text(f"bench: [longbench, ppl/exact]\navailable: true\ndata_dir: {folder}\n")
    resolved = validate_suite(str(suite), {})
    assert [task.full_name for task in resolved.tasks] == ["ppl/exact"]
    assert list(resolved.protocols) == ["ppl"]
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    for part in ("longbench/trec", TREC, "longbench/dataset2prompt.json"):
        assert part in error
    options = {"bench": ["longbench/trec"], "available": True, "data_dir": folder}
    with pytest.raises(UserError, match=r"--available.*longbench/trec"):
        validate_suite(None, options)


def test_a_nested_copy_with_another_hash_is_named(folder: Path) -> None:
    path = folder / "a/b/tpo.jsonl"
    put(path, lines([{"instructions": [], "outputs": [], "input": "x", "evaluation": "exam"}]))
    local = locate(find("leval/tpo.jsonl"), folder)
    assert local.state == "corrupt"
    assert str(path) in local.problem


def test_an_archive_with_some_tasks_is_enough_for_these(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(
        LongBench, "required_files", lambda *args: [LongBench()._data_file(args[1])]
    )
    zipped(folder / "data.zip", {"data/trec.jsonl": lines(ROWS)})
    resolved = validate_suite(None, {"bench": ["longbench"], "available": True, "data_dir": folder})
    assert [task.full_name for task in resolved.tasks] == ["longbench/trec"]
    assert "longbench/qasper" in capsys.readouterr().err
    data.fetch_missing([TREC], folder)
    assert TREC in capsys.readouterr().err  # as not pinned


def same_bytes(local: LocalAsset, path: Path) -> bool:
    return local.state == "present" and local.open_path().read_bytes() == path.read_bytes()


LEVAL = DATA / "leval/LEval-data/Closed-ended-tasks/tpo.jsonl"


@pytest.mark.skipif(not LEVAL.exists(), reason="no files of L-Eval")
def test_official_files_of_leval(folder: Path) -> None:
    tpo = find("leval/tpo.jsonl")
    assert same_bytes(locate(tpo, DATA), LEVAL)
    tarred(folder / "LEval.tar.gz", {"LEval/Exam/tpo.jsonl": LEVAL.read_bytes()})
    assert same_bytes(locate(tpo, folder), LEVAL)
    rows = [json.loads(line) for line in LEVAL.read_text().splitlines()]
    put(folder / "other/tpo/test-00000-of-00001.parquet", parquet(rows))
    local = locate(tpo, folder / "other")
    assert local.state == "unpinned"
    assert [json.loads(line) for line in local.open_path().read_text().splitlines()] == rows


RAW = DATA / "longbench/raw/multi_news.jsonl"


@pytest.mark.skipif(not RAW.exists(), reason="no files of LongBench")
@pytest.mark.parametrize("write", [array, parquet])
def test_official_files_of_longbench(folder: Path, write: Callable[[Sequence[Row]], bytes]) -> None:
    name = "longbench/data.zip!/data/multi_news.jsonl"
    rows = _rows(RAW)
    ending = "json" if write is array else "parquet"
    put(folder / f"deep/down/multi_news.{ending}", write(rows))
    assert _rows(path_of(name, folder)) == rows
    # Predictions with the same name lie beside the data.
    assert locate(find(name), DATA).found == str(RAW)
