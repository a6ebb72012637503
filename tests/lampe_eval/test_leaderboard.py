"""Synthetic runs compared with every published table."""

import csv
import dataclasses
import itertools
import math
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from lampe_eval.report.comparison_table import print_comparison
from lampe_eval.results.cell_scores import score_run
from lampe_eval.results.published_comparison import (
    MatchedNumber,
    _mean_interval,
    _WeightedScore,
    compare_with_published,
)
from lampe_eval.results.published_tables import (
    PublishedNumber,
    PublishedTable,
    find_table,
    table_names,
)
from lampe_eval.scoring.estimates import Estimate
from lampe_eval.scoring.intervals import Interval, Proportion, percent_interval
from lampe_eval.store import Cell
from lampe_eval.terminal import console
from tests.lampe_eval import synthetic_runs

load = cache(find_table)
UNKNOWN_LENGTH = 4096
"""Length of synthetic cells where a table says none."""

WITHOUT_METHOD = """\
about: a method that is none of ours
source: {title: t, table: Table 1, read: here}
metric: recall
decimals: 1
protocol: official
length: 128k
columns: {vt: {tasks: ruler/vt}}
rows: [{printed: theirs, model: llama3-8b-instruct, values: [43]}]
"""


@pytest.fixture(autouse=True)
def unsynced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Save time: synthetic samples need not survive a power cut."""
    monkeypatch.setattr("os.fsync", lambda _: None)


def _cells(published: PublishedNumber) -> list[Cell]:
    assert published.spec is not None
    parts = [(*cell.task.split("/"), cell.length or UNKNOWN_LENGTH) for cell in published.cells]
    return [
        Cell(published.row.model, published.spec.label, bench, task, length)
        for bench, task, length in parts
    ]


def _numbers_of_one_model(table: PublishedTable) -> list[PublishedNumber]:
    """Return the numbers by methods of ours for the model that has most of them."""
    ours = [published for published in table.numbers() if published.spec]
    model = Counter(published.row.model for published in ours).most_common(1)[0][0]
    return [published for published in ours if published.row.model == model]


def _value(published: PublishedNumber, table: PublishedTable, name: str = "") -> float:
    """Return the score of a synthetic run for a published number, from the table's columns."""
    column = table.columns[name or published.column]
    if column.mean:
        return math.fsum(_value(published, table, part) for part in column.mean) / len(column.mean)
    length = column.length or published.row.length or table.length or UNKNOWN_LENGTH
    tasks = [task.split("/") for task in column.tasks or table.tasks]
    assert published.spec is not None
    shares = [
        synthetic_runs.share(Cell(published.row.model, published.spec.label, bench, task, length))
        for bench, task in tasks
    ]
    if table.scale == "perplexity":
        return math.fsum(2.71828**share for share in shares) / len(shares)
    return 100 * math.fsum(shares) / len(shares)


def test_a_table_without_our_methods_matches_nothing(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(WITHOUT_METHOD)
    cell = Cell("llama3-8b-instruct", "lampe", "ruler", "vt", 131072)
    store = synthetic_runs.store(tmp_path / "run", [cell], "official")
    comparison = compare_with_published(store, find_table(str(path)))
    assert comparison.matches == []
    assert {reason for _, reason in comparison.missing} == {"no such method here"}


@pytest.mark.parametrize("name", table_names())
def test_a_synthetic_run_matches_every_table(name: str, tmp_path: Path) -> None:
    table = load(name)
    expected = _numbers_of_one_model(table)
    cells = list(dict.fromkeys(itertools.chain.from_iterable(map(_cells, expected))))
    unpublished = dataclasses.replace(cells[0], method="leaky-rerope")
    store = synthetic_runs.store(tmp_path, [*cells, unpublished], table.protocol)
    comparison = compare_with_published(store, table)

    matched = []
    for match in comparison.matches:
        spec = match.published.spec
        if spec and match.method == spec.label:
            matched.append(match.published)
            assert match.value == pytest.approx(_value(match.published, table), abs=1e-3)
            difference = match.value - match.published.number.value
            assert math.isnan(match.difference) or match.difference == difference
    assert matched == expected
    assert len(comparison.missing) == sum(1 for _ in table.numbers()) - len(expected)
    reasons = {reason for _, reason in comparison.missing}
    assert reasons <= {"model not in the run", "no such method here"}
    assert all(match.published_samples > match.n for match in comparison.matches)
    (unused,) = comparison.unused.to_dict("records")
    assert (unused["task"], unused["method"]) == (unpublished.task, "leaky-rerope")


def _one(
    tmp_path: Path, method: str = "lampe:variant=reference", drop: int = 0, **changes: Any
) -> list[MatchedNumber]:
    """Compare a synthetic run with the average of InfiniteBench in LaMPE's second table.

    Args:
        tmp_path: folder for the run.
        method: method of the run.
        drop: number of cells that the run lacks.
        changes: fields of the run's configuration.
    """
    table = load("lampe-table2")
    published = _average_of_table2(table)
    cells = [
        Cell(cell.model, method, cell.bench, cell.task, cell.length) for cell in _cells(published)
    ][drop:]
    protocol = changes.pop("run_protocol", table.protocol)
    store = synthetic_runs.store(tmp_path, cells, protocol, **changes)
    matches = compare_with_published(store, table).matches
    return [match for match in matches if match.published == published]


def _average_of_table2(table: PublishedTable) -> PublishedNumber:
    for number in table.numbers():
        if number.column == "Avg." and number.row.printed == "Llama3 (32K) LaMPE":
            return number
    raise AssertionError("the average is not in the table")


def test_settings_that_differ_are_listed(tmp_path: Path) -> None:
    other = {
        **synthetic_runs.model_description("llama3-8b-instruct"),
        "window": 4096,
        "dtype": "float32",
    }
    (match,) = _one(
        tmp_path,
        "lampe:head_tokens=9,attention_factor=none",
        models={"llama3-8b-instruct": other},
        run_protocol="fair",
    )
    assert match.remarks == (
        "window 4096 (published 8192)",
        "dtype float32 (published bfloat16)",
        "protocol fair (published: like lampe)",
        "variant continuous (published reference)",
        "head_tokens 9 (published: not said)",
        "attention_factor none (published: not said)",
        "samples 28 (published 2757)",
    )


def test_only_the_number_of_samples_differs(tmp_path: Path) -> None:
    (match,) = _one(tmp_path)
    assert match.remarks == ("samples 28 (published 2757)",)


def test_a_mean_with_a_missing_task_has_no_match(tmp_path: Path) -> None:
    table = load("lampe-table2")
    assert _one(tmp_path / "short", drop=1) == []
    published = _average_of_table2(table)
    store = synthetic_runs.store(tmp_path / "again", _cells(published)[1:], table.protocol)
    missing = compare_with_published(store, table).missing
    (reason,) = [reason for number, reason in missing if number == published]
    assert reason == "1 of 7 cells not in the run: infinitebench/longbook_choice_eng at 32768"


def test_task_version_batches_and_failed_samples_are_listed(tmp_path: Path) -> None:
    table = load("string-ruler-tasks")
    cell = Cell("llama3.1-8b-instruct", "string:variant=reference,local=128", "ruler", "vt", 131072)
    store = synthetic_runs.store(tmp_path, [cell], table.protocol)
    store.config["tasks"]["ruler/vt"]["version"] = 2
    store.append(cell, {**store.rows(cell)[0], "error": "OutOfMemoryError: no more"})
    store.append(cell, {**store.rows(cell)[1], "batch_size": 3})
    store.save_cells({cell: 6})
    (match,) = compare_with_published(store, table).matches
    assert match.remarks == (
        "task version 2 (compared with 1)",
        "batch 3 (published 1)",
        "2 missing",
        "1 errors",
        "samples 3 (published 500)",
    )


@pytest.mark.parametrize(
    "name", ["meta-llama/Meta-Llama-3-8B-Instruct", "Meta-Llama-3-8B-Instruct"]
)
def test_a_model_by_its_hub_id_or_a_folder_of_that_name(name: str, tmp_path: Path) -> None:
    cell = Cell(name, "lampe:variant=reference", "ruler", "vt", 8192)
    described = synthetic_runs.model_description("llama3-8b-instruct") | {"fingerprint": "sha256:0"}
    settings = {cell.method: {name: {"variant": "reference"}}}
    store = synthetic_runs.store(
        tmp_path, [cell], "lampe", models={name: described}, methods=settings
    )
    missing = compare_with_published(store, load("lampe-ruler")).missing
    assert "method not in the run" in {reason for _, reason in missing}


def test_the_interval_and_the_bound(tmp_path: Path) -> None:
    (match,) = _one(tmp_path)
    low, high = match.interval
    assert match.within is (low - 0.005 <= match.published.number.value <= high + 0.005)
    cell = Cell("llama2-7b", "original", "ppl", "dense", 8192)
    store = synthetic_runs.store(tmp_path / "ppl", [cell], "fair")
    (bound,) = compare_with_published(store, load("chunkllama-pg19")).matches
    assert (str(bound.published.number), bound.within, bound.verdict) == (">100", False, "no")
    assert math.isnan(bound.difference)
    assert math.isnan(bound.stderr)


def _single(tmp_path: Path, task: str, right: list[int], decimals: int = 2) -> MatchedNumber:
    """Compare a run with these right (1) and wrong (0) answers with a number of a RULER task."""
    table = load("string-ruler-tasks")
    cell = Cell("llama3.1-8b-instruct", "string:variant=reference,local=128", "ruler", task, 131072)
    store = synthetic_runs.store(tmp_path, [cell], table.protocol)
    store.save_cells({cell: len(right)})
    for index, hit in enumerate(right):
        row = {**store.rows(cell)[0], "id": f"{index}", "prediction": "7" if hit else "8"}
        store.append(cell, row)
    (match,) = compare_with_published(store, table).matches
    return dataclasses.replace(
        match, published=dataclasses.replace(match.published, decimals=decimals)
    )


@pytest.mark.parametrize(
    ("right", "verdict"),
    [([1, 1, 1, 0], "yes"), ([1] * 10, "yes"), ([1] * 100, "no"), ([0] * 10, "no")],
)
def test_the_interval_of_one_cell_is_that_of_its_scores(
    tmp_path: Path, right: list[int], verdict: str
) -> None:
    """Compare with the published 88.08; answers that are all alike are no certainty."""
    match = _single(tmp_path, "vt", right)
    assert match.interval == Estimate.mean([100.0 * hit for hit in right]).interval()
    assert match.verdict == verdict


def test_the_interval_of_a_mean_over_tasks_is_narrower_and_over_lengths_is_not(
    tmp_path: Path,
) -> None:
    (match,) = _one(tmp_path)
    low, high = match.interval
    assert 0 <= low < match.value < high <= 100
    part = _WeightedScore(0.5, 4096, 50, 16, Interval(20, 80), Proportion(0.5, 10))
    over_tasks = _mean_interval([part, part])
    over_lengths = _mean_interval([part, dataclasses.replace(part, length=8192)])
    alone = percent_interval(Proportion(0.5, 10))
    assert over_lengths == pytest.approx(alone)
    assert over_tasks == pytest.approx(percent_interval(Proportion(0.5, 20)))
    assert _mean_interval([dataclasses.replace(part, weight=1)]) == (20, 80)
    assert math.isnan(_mean_interval([part, dataclasses.replace(part, proportion=None)]).low)


def test_single_and_equal_windows_give_no_interval(tmp_path: Path) -> None:
    cell = Cell("llama2-7b", "original", "ppl", "dense", 4096)
    store = synthetic_runs.store(tmp_path, [cell], "fair")
    # The four windows are all of one block.
    (match,) = compare_with_published(store, load("chunkllama-pg19")).matches
    assert (match.verdict, math.isnan(match.interval.low)) == ("unknown", True)
    for index in range(4):
        store.append(cell, {**store.rows(cell)[0], "id": f"{32 * index}"})
    store.save_cells({cell: 8})
    (match,) = compare_with_published(store, load("chunkllama-pg19")).matches
    assert (match.stderr, match.verdict) == (0, "unknown")


def test_a_row_of_leval_has_an_interval(tmp_path: Path) -> None:
    """Compare averages of tasks that have four independent samples each."""
    table = load("lampe-table1")
    published = next(
        number
        for number in table.numbers()
        if (number.row.printed, number.column) == ("Llama2-7B-Chat + LaMPE", "L-Eval")
    )
    store = synthetic_runs.store(tmp_path, _cells(published), table.protocol)
    assert set(score_run(store).scores["independent_units"]) == {4}
    (match,) = compare_with_published(store, table).matches
    assert match.interval.low < match.value < match.interval.high
    assert match.verdict in ("yes", "no")


def test_rounding_of_the_published_number_is_no_difference(tmp_path: Path) -> None:
    match = _single(tmp_path, "vt", [1, 1, 1, 0])
    match = dataclasses.replace(match, value=88.0, interval=Interval(87.999, 88.001))
    rough = dataclasses.replace(match, published=dataclasses.replace(match.published, decimals=0))
    assert (match.verdict, rough.verdict) == ("no", "yes")


@pytest.mark.parametrize("text", [None, "own.txt sha256:1"])
def test_haystack_seed_and_cut_prompts_are_listed(tmp_path: Path, text: str | None) -> None:
    cell = Cell("llama2-7b", "original", "niah", "string", 4096)
    store = synthetic_runs.store(tmp_path, [cell], "fair", haystack=text, seed=9)
    store.append(cell, {**store.rows(cell)[0], "cut_tokens": 12})
    (match,) = compare_with_published(store, load("string-niah")).matches
    ours = "own.txt" if text else "default"
    assert match.setting_differences == (
        f"haystack {ours} (published essays)",
        "seed 9 (suites: 0)",
        "1 cut",
    )


def test_files_and_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = load("string-ruler-tasks")
    cells = [
        Cell("llama3.1-8b-instruct", "string", "ruler", task, 131072) for task in ("vt", "cwe")
    ]
    synthetic_runs.store(tmp_path, cells, table.protocol)
    print_comparison(tmp_path, "string-ruler-tasks", console())
    printed = capsys.readouterr().out
    assert "string-ruler-tasks: 2 of 42 published numbers" in printed
    assert "a: variant exact (published reference); local auto (published 128)\n" in printed
    assert "published, but not in the run: 40 numbers: model not in the run (" in printed
    assert "Qwen2-72b" not in printed
    rows = list(
        csv.DictReader((tmp_path / "leaderboard-string-ruler-tasks.csv").read_text().splitlines())
    )
    assert Counter(row["status"] for row in rows) == {"both": 2, "published only": 40}
    (vt,) = [row for row in rows if row["status"] == "both" and row["quantity"] == "vt"]
    ours = 100 * synthetic_runs.share(cells[0])
    assert float(vt["ours"]) == pytest.approx(ours)
    assert float(vt["difference"]) == pytest.approx(ours - 88.08)
    text = (tmp_path / "leaderboard-string-ruler-tasks.md").read_text()
    assert text.startswith("# string-ruler-tasks: 2 of 42 published numbers")
    assert f"| 88.08 | {ours:.2f} \\[" in text
    assert "- Qwen2-72b-string (single1, single2" in text


def test_a_run_with_nothing_in_common_has_a_short_summary(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cells = [
        Cell("pocket", "pi", "niah", "single", 512),
        Cell("pocket", "pi", "niah", "multikey", 512),
        Cell("pocket", "ntk", "niah", "single", 512),
        Cell("pocket", "ntk", "niah", "multikey", 512),
    ]
    synthetic_runs.store(tmp_path, cells, "fair")
    print_comparison(tmp_path, "lampe-table1", console())
    _, nothing, missing, written = capsys.readouterr().out.splitlines()
    published = "llama2-7b-chat, llama3-8b-instruct on longbench, leval"
    assert nothing == f"nothing matches: published is {published}; in the run is pocket on niah"
    assert missing == "published, but not in the run: 24 numbers: model not in the run (24)"
    assert "leaderboard-lampe-table1.md" in written
    text = (tmp_path / "leaderboard-lampe-table1.md").read_text()
    assert (
        "## In the run, but not published\n\n- pocket · pi · niah at 512: single, multikey\n"
        in text
    )


def test_a_run_without_a_cell_has_nothing_to_compare(tmp_path: Path) -> None:
    cell = Cell("llama3-8b-instruct", "lampe", "ruler", "vt", 8192)
    store = synthetic_runs.store(tmp_path, [cell], "lampe")
    store.save_cells({})
    comparison = compare_with_published(store, load("lampe-ruler"))
    assert comparison.matches == []
    assert (len(comparison.unused), len(comparison.frame())) == (0, 16)
    print_comparison(tmp_path, "lampe-ruler", console())
