"""Files that samples of one length are built from: where they are, and what a length lacks."""

import re
from pathlib import Path

import pytest

from lampe_eval.benches import BENCHES, bench_tasks, find_tasks
from lampe_eval.commands.data import fetch_missing, print_places
from lampe_eval.errors import UserError

OFFICIAL = [
    task.full_name
    for bench in ("babilong", "helmet")
    for task in bench_tasks(bench)
    if BENCHES[bench].has_task(task, BENCHES[bench].protocol("official"))
]


@pytest.mark.parametrize("name", OFFICIAL)
def test_every_file_of_a_length_is_an_asset(name: str) -> None:
    (task,) = find_tasks((name,))
    bench = BENCHES[task.bench]
    files = bench.files_by_length(task, bench.protocol("official"))
    assert files and all(files.values())
    for length in files:
        tokens = int(length[:-1]) * 1024 ** (2 if length.endswith("M") else 1)
        assert bench.files_of_length(task, bench.protocol("official"), tokens) == files[length]
    assert not bench.files_by_length(task, bench.protocol("fair"))


@pytest.mark.parametrize(
    ("name", "length", "named"),
    [
        ("babilong/qa1", 3000, r"babilong/qa1: .* 3000: .*0k, 1k.*256k.*10M"),
        ("babilong/qa7", 8192, r"babilong/qa7: .* 8192: .* 0k;"),
        ("helmet/nq", 4096, r"helmet/nq: .* 4096: .*8k.*128k"),
        ("helmet/trec_fine", 8000, r"helmet/trec_fine: .* 8000: .*8k.*128k"),
        ("helmet/infbench_qa", 1 << 20, r"helmet/infbench_qa: .* 1048576: .*8k.*128k"),
    ],
)
def test_a_length_without_files_is_refused_with_those_that_have_some(
    name: str, length: int, named: str
) -> None:
    (task,) = find_tasks((name,))
    bench = BENCHES[task.bench]
    with pytest.raises(UserError, match=named):
        bench.files_of_length(task, bench.protocol("official"), length)


def _places(
    names: list[str], protocol: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> list[str]:
    print_places(names, protocol, folder)
    return capsys.readouterr().out.splitlines()


def test_places_are_printed_by_length(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "json_kv").mkdir()
    (tmp_path / "json_kv" / "test_k220_dep6.jsonl").write_text("{}\n")
    lines = _places(["helmet/json_kv", "babilong/map"], "official", tmp_path, capsys)
    (found,) = (line for line in lines if "k220" in line)
    assert re.match(r"  16k  helmet/.*: unpinned", found)
    (missing,) = (line for line in lines if "k105" in line)
    assert re.match(r"  8k  helmet/.*: missing", missing)
    # Official files belong to other tasks than those that are made here.
    (own,) = (line for line in lines if line.startswith("babilong/map"))
    assert own.endswith("official")


def test_copies_of_the_users_own_are_among_the_places(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (line,) = (
        line
        for line in _places(["latent/nolima"], "official", tmp_path, capsys)
        if "NoLiMa" in line
    )
    assert "missing" in line and "needle_set.json" in line


def test_an_unknown_protocol_is_refused_before_anything_is_printed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(UserError, match="'official'"):
        print_places(["mrcr", "oolong"], "official", tmp_path)
    assert not capsys.readouterr().out


def test_missing_files_of_a_length_are_named_at_once_with_their_sources(tmp_path: Path) -> None:
    names = [f"babilong/256k/qa{number}.json" for number in range(1, 6)]
    with pytest.raises(UserError) as refused:
        fetch_missing(["helmet/trec_train.parquet", *names, "helmet/tokenizer.json"], tmp_path)
    message = str(refused.value)
    assert message.count("\n") == 0
    assert message.count("(RMT-team/babilong)") == 1 and "CogComp/trec" in message
    assert all(name in message for name in names)


def test_an_unknown_file_is_refused_before_anything_is_fetched(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(UserError, match="babilong/7k"):
        fetch_missing(["babilong/prompts.py", "babilong/7k/qa1.parquet"], tmp_path)
    assert not capsys.readouterr().err
