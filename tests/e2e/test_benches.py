"""Every task of every benchmark on the pocket model, from loading to scoring."""

import csv
import sys
from pathlib import Path

import pytest

from lampe_eval.benches import BENCHES, bench_tasks
from lampe_eval.cli import main
from tests.e2e import content
from tests.fixtures import package
from tests.parity.data import DATA
from tests.upstream import longbench_row

LENGTHS = {
    "babilong": "1200",
    "graphwalks": "2k",
    "helmet": "2k",
    "latent": "1k",
    "mrcr": "1k",
    "niah": "512",
    "oolong": "1k",
    "ppl": "512",
    "ruler": "2k",
}
"""Lengths of tasks that are made to a length or never cut; other prompts are cut to 400 tokens."""


@pytest.fixture
def small_benches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Provide all benchmarks with small files, and shorten their answers."""
    folder = package(tmp_path, monkeypatch)
    content.everything(folder)
    content.shorten_answers(folder)
    return folder


def _run(monkeypatch: pytest.MonkeyPatch, output: Path, *arguments: str) -> list[dict[str, str]]:
    """Return the scores of a run without errors."""
    argv = [
        "lampe-eval",
        "run",
        "--method",
        "lampe",
        "--limit",
        "1",
        "--output",
        str(output),
        *arguments,
    ]
    monkeypatch.setattr(sys, "argv", argv)
    with pytest.raises(SystemExit) as stopped:
        main()
    assert not stopped.value.code  # None, too, is success
    return list(csv.DictReader((output / "scores.csv").read_text(encoding="utf-8").splitlines()))


@pytest.mark.parametrize("bench", [name for name, bench in BENCHES.items() if bench.lists_tasks])
def test_every_task_runs(
    small_benches: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bench: str
) -> None:
    fair = BENCHES[bench].protocol("fair")
    names = [task.name for task in bench_tasks(bench) if BENCHES[bench].has_task(task, fair)]
    tasks = ",".join(f"{bench}/{name}" for name in names)
    rows = _run(
        monkeypatch, tmp_path / "out", "--bench", tasks, "--lengths", LENGTHS.get(bench, "400")
    )
    assert [row["task"] for row in rows] == names
    for row in rows:
        assert (row["n"], row["missing"], row["errors"], row["protocol"]) == (
            "1",
            "0",
            "0",
            "fair",
        ), row
        assert row["score"], row
    cut = {row["task"] for row in rows if row["cut"] == "1"}
    assert cut == ({*names} - {"no-context"} if bench not in LENGTHS else set())


@pytest.mark.parametrize(
    ("protocol", "tasks"),
    [
        (
            "official",
            "longbench/hotpotqa,longbench/samsum,longbench-e/qasper,leval/coursera,"
            "infinitebench/kv_retrieval",
        ),
        ("official", "longbench-v2/direct"),
        ("official", "babilong/qa1,babilong/qa7"),
        ("official", "graphwalks/parents,graphwalks/bfs,graphwalks/bfs_1m"),
        ("official", "longbench-pro/t1.1,longbench-pro/t11.2"),
        (
            "official",
            "helmet/json_kv,helmet/nq,helmet/popqa,helmet/msmarco,helmet/ruler_mv,"
            "helmet/trec_coarse,helmet/infbench_choice",
        ),
        ("lampe", "longbench/narrativeqa,longbench/trec,leval/sci_fi,infinitebench/passkey"),
        (
            "fair:truncation=left",
            "longbench/hotpotqa,leval/tpo,infinitebench/code_run,longbench-v2/direct",
        ),
    ],
)
def test_other_protocols_run(
    small_benches: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, protocol: str, tasks: str
) -> None:
    # BABILong's qa7 is in its shortest data alone.
    lengths = {"longbench-v2": "10k", "longbench-pro": "10k", "helmet": "8k", "babilong": "512"}
    length = lengths.get(tasks.partition("/")[0], "1k") if protocol == "official" else "1k"
    rows = _run(
        monkeypatch,
        tmp_path / "out",
        "--bench",
        tasks,
        "--lengths",
        length,
        "--protocol",
        protocol,
    )
    assert [f"{row['bench']}/{row['task']}" for row in rows] == tasks.split(",")
    assert all((row["n"], row["errors"], row["protocol"]) == ("1", "0", protocol) for row in rows)


def test_samples_that_are_too_long_can_be_left_out(
    small_benches: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    arguments = (
        "--bench",
        "longbench/hotpotqa",
        "--lengths",
        "300",
        "--protocol",
        "fair:truncation=skip",
    )
    (row,) = _run(monkeypatch, tmp_path / "out", *arguments)
    assert (row["n"], row["skipped"], row["missing"], row["score"]) == ("0", "1", "0", "")
    assert "left out: 1 at 300" in capsys.readouterr().out


def test_cut_prompts_are_counted(
    small_benches: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    _run(monkeypatch, tmp_path / "out", "--bench", "longbench/hotpotqa", "--lengths", "300")
    assert "1 at 300" in capsys.readouterr().out


def test_a_dry_run_previews_and_runs_nothing(
    small_benches: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(
        "lampe_eval.models.load_model", lambda *_: pytest.fail("weights were loaded")
    )
    argv = "run --bench longbench/hotpotqa,ruler/vt --lengths 2k --limit 2 --dry-run --output out"
    monkeypatch.setattr(sys, "argv", ["lampe-eval", *argv.split()])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert not stopped.value.code  # None, too, is success
    printed = capsys.readouterr().out
    row = longbench_row("hotpotqa", 0)
    assert f"{row['context']}\n\nNow answer." in printed  # the whole prompt of the first sample
    assert "samples   2 a method; tokens: 2 of up to 2k; 0 prompts cut, 0 left out" in printed
    assert "longest   2048 tokens with its answer, of 2048" in printed
    assert "original, lampe; protocol fair" in printed
    assert "results in out" in printed
    assert not Path("out").exists()


def test_a_dry_run_under_lampes_protocol_shows_what_each_method_reads(
    small_benches: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    argv = (
        "run --method lampe,original --bench longbench/hotpotqa --lengths 256 --limit 1 "
        "--protocol lampe --dry-run"
    )
    monkeypatch.setattr(sys, "argv", ["lampe-eval", *argv.split()])
    with pytest.raises(SystemExit):
        main()
    printed = capsys.readouterr().out
    others, lampes = printed.split("methods   ")[1:3]
    assert others.startswith("original") and "1 prompts cut" in others
    assert (
        lampes.startswith("lampe")
        and "0 prompts cut" in lampes
        and "longer than the cell" in lampes
    )


def test_a_dry_run_for_a_device_that_is_not_here(
    small_benches: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    argv = "run --bench longbench/hotpotqa --lengths 256 --limit 1 --device cuda --dry-run"
    monkeypatch.setattr(sys, "argv", ["lampe-eval", *argv.split()])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert not stopped.value.code  # None, too, is success
    assert "time unknown on cuda" in capsys.readouterr().out


def test_ready_made_samples_of_ruler(
    small_benches: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "ready" / "512" / "vt"
    folder.mkdir(parents=True)
    row = {
        "index": 3,
        "input": "SET A TO 7. Which are 7?",
        "outputs": ["A"],
        "length": 300,
        "answer_prefix": " These:",
    }
    (folder / "validation.jsonl").write_bytes(content.lines([row, row]))
    arguments = (
        "--bench",
        "ruler/vt",
        "--lengths",
        "512",
        "--prompts",
        "ready",
        "--data-dir",
        str(tmp_path / "ready"),
    )
    (scored,) = _run(monkeypatch, tmp_path / "out", *arguments)
    assert (scored["n"], scored["protocol"]) == ("1", "fair:prompts=ready")


def test_real_contexts_of_longbench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run MiniLongBench's samples of all 21 tasks and score them against its answers."""
    files = sorted((DATA / "minilongbench").glob("*.json"))
    if not files:
        pytest.skip(f"no MiniLongBench under {DATA}; LAMPE_DATA names its folder")
    folder = package(tmp_path, monkeypatch)
    content.minilongbench(folder, files)
    rows = _run(monkeypatch, tmp_path / "out", "--bench", "longbench", "--lengths", "1k")
    assert len(rows) == 21
    assert all((row["n"], row["errors"], row["cut"]) == ("1", "0", "1") for row in rows)
