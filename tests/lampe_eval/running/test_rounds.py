"""Runs that stop by rule: same prompts for all methods, same end however they are interrupted."""

import csv
import shutil
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lampe_eval.benches.bench import Task
from lampe_eval.commands.dry_run import dry_run_suite
from lampe_eval.commands.progress_display import ProgressLines
from lampe_eval.commands.validate import validate_suite
from lampe_eval.engine.batch_job import BatchJob, FinishedBatch
from lampe_eval.errors import UserError
from lampe_eval.records import Outcome
from lampe_eval.report.decision_table import decision_tables
from lampe_eval.report.difference_table import difference_tables
from lampe_eval.report.table_model import result_tables
from lampe_eval.report.tables import table_files
from lampe_eval.results.cell_scores import score_run, tasks_below_card_size
from lampe_eval.results.decisions import seeded_order
from lampe_eval.results.gathered_runs import gather_runs
from lampe_eval.results.leaderboard_ranks import ranked_numbers
from lampe_eval.running.configuration import run_configuration
from lampe_eval.running.extension import extended
from lampe_eval.running.interrupt import Interrupt
from lampe_eval.running.prepared_run import PreparedRun, prepare_run
from lampe_eval.running.remaining import CellCounts, SampleGroup
from lampe_eval.running.resolve import resolve_suite
from lampe_eval.running.rounds import ROUND, Rounds
from lampe_eval.running.runner import ModelRun, RunSession
from lampe_eval.running.watchdog import Watchdog
from lampe_eval.store import Cell, Store
from lampe_eval.suite import Suite

Pocket = tuple[PreTrainedModel, PreTrainedTokenizerBase]
DECIDE: dict[str, Any] = {
    "method": "original,lampe,pi",
    "bench": "niah/single,niah/multikey",
    "lengths": "256",
    "limit": 25,
    "decide": True,
}
PRECISION: dict[str, Any] = {
    "method": "original,lampe",
    "bench": "niah/single",
    "lengths": "256",
    "limit": 25,
    "precision": 20,
}
Whole = dict[str, tuple[Path, list[BatchJob]]]
SHARES = {
    "decide": {"original": 90, "lampe": 90, "pi": 0},
    "precision": {"original": 100, "lampe": 50},
}
"""Percent of right answers of each method, by rule."""


class AnsweringPool:
    """Pool of workers without a model, of which the one that began last finishes first.

    Args:
        shares: percent of right answers by method.
        workers: batches that run at a time.
        interrupt: receives a signal after some batches.
        batches: number of these batches; None for no signal.
    """

    def __init__(
        self, shares: Mapping[str, int], workers: int, interrupt: Interrupt, batches: int | None
    ) -> None:
        self.shares = shares
        self.workers = workers
        self.interrupt = interrupt
        self.batches = batches
        self.jobs: list[BatchJob] = []
        self.running: list[BatchJob] = []

    @property
    def is_full(self) -> bool:
        return len(self.running) >= self.workers

    @property
    def is_busy(self) -> bool:
        return bool(self.running)

    def __enter__(self) -> "AnsweringPool":
        return self

    def __exit__(self, *error: object) -> None: ...

    def start(self) -> None: ...

    def measure_batch_tokens(self) -> int:
        return 1

    def submit(self, job: BatchJob) -> None:
        self.jobs.append(job)
        self.running.append(job)
        if len(self.jobs) == self.batches:
            self.interrupt.signal_number = 2

    def collect(self) -> list[FinishedBatch]:
        job = self.running.pop()
        return [FinishedBatch(job, [self._outcome(job, sample) for sample in job.samples])]

    def _outcome(self, job: BatchJob, sample: Any) -> Outcome:
        lot = zlib.crc32(f"{job.cell.task} {sample.id}".encode()) % 100
        is_right = lot < self.shares[job.cell.method]
        answer = " ".join(sample.references) if is_right else "nothing"
        return {"prediction": answer, "answer_tokens": 1, "stop_reason": "eos", "backend": "none"}


def _prepared(folder: Path, options: Mapping[str, Any]) -> PreparedRun:
    return prepare_run(resolve_suite(Suite(output=folder, **options)))


def _run(
    folder: Path,
    pocket: Pocket,
    options: Mapping[str, Any],
    shares: Mapping[str, int],
    *,
    workers: int = 1,
    batches: int | None = None,
) -> AnsweringPool:
    """Run or resume a run without a model; return the pool that answered."""
    prepared = _prepared(folder, options)
    store = Store.create(folder, extended(folder, run_configuration(prepared)), {})
    progress = ProgressLines()
    interrupt = Interrupt(lambda: False)
    session = RunSession(
        prepared,
        store,
        CellCounts(prepared, store, progress),
        progress,
        Watchdog(folder),
        interrupt,
        lambda: None,
    )
    pool = AnsweringPool(shares, workers, interrupt, batches)
    model_run = ModelRun(session, prepared.sources[0], pocket[1], pool)
    model_run.run_batches()
    model_run.wait_for_running_batches()
    return pool


def _ids(folder: Path) -> dict[Cell, list[str]]:
    store = Store(folder)
    return {cell: [row["id"] for row in store.rows(cell)] for cell in store.cells()}


def _samples(folder: Path) -> dict[tuple[str, str], int]:
    return {(cell.task, cell.method): n for cell, n in Store(folder).cells().items()}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, pocket: Pocket) -> Whole:
    """Return uninterrupted runs and their batches by rule."""
    runs: Whole = {}
    for name, options in (("decide", DECIDE), ("precision", PRECISION)):
        folder = tmp_path_factory.mktemp(name)
        runs[name] = folder, _run(folder, pocket, options, SHARES[name]).jobs
    return runs


def _copied(folder: Path, to: Path) -> Path:
    return Path(shutil.copytree(folder, to, dirs_exist_ok=True))


def test_every_method_gets_the_same_prompts_in_every_round(whole: Whole) -> None:
    _, jobs = whole["decide"]
    of_round = 3 * 2 * ROUND
    for begin in (0, of_round):
        ids: dict[str, list[tuple[str, str]]] = {}
        for job in jobs[begin : begin + of_round]:
            ids.setdefault(job.cell.method, []).append((job.cell.task, job.samples[0].id))
        assert list(ids) == ["original", "lampe", "pi"]
        assert ids["original"] == ids["lampe"] == ids["pi"]
    # in an order of their own, which the seed alone decides
    single = [
        job.samples[0].id for job in jobs if job.cell.place.endswith("original · niah/single")
    ]
    order = seeded_order(single, 0)
    rounds = [set(single[begin : begin + ROUND]) for begin in range(0, 25, ROUND)]
    assert rounds == [set(order[begin : begin + ROUND]) for begin in range(0, 25, ROUND)]


def test_a_method_that_is_decided_stops_and_the_others_go_on(whole: Whole) -> None:
    folder, _ = whole["decide"]
    samples = _samples(folder)
    assert samples.pop(("single", "pi")) == samples.pop(("multikey", "pi")) < 25
    assert set(samples.values()) == {25}
    store = Store(folder)
    assert {cell.method for cell in store.at_most()} == {"pi"}
    assert set(store.at_most().values()) == {25}
    scores = score_run(store).scores
    assert not scores[["missing", "errors", "skipped"]].to_numpy().any()
    assert tasks_below_card_size(store) == []


def test_the_reference_stops_with_the_last_method(tmp_path: Path, pocket: Pocket) -> None:
    _run(tmp_path, pocket, DECIDE, {"original": 100, "lampe": 0, "pi": 0})
    assert len(set(_samples(tmp_path).values())) == 1
    assert max(_samples(tmp_path).values()) < 25


def test_a_cell_stops_when_its_interval_is_narrow(whole: Whole) -> None:
    folder, _ = whole["precision"]
    samples = _samples(folder)
    assert samples["single", "original"] < samples["single", "lampe"] == 25
    assert Store(folder).config["stopping"] == {"precision": 20}


@pytest.mark.parametrize("batches", [1, 17, 31, None])
@pytest.mark.parametrize(("rule", "options"), [("decide", DECIDE), ("precision", PRECISION)])
def test_a_run_stops_at_the_same_place_however_it_is_interrupted(
    tmp_path: Path,
    pocket: Pocket,
    whole: Whole,
    rule: str,
    options: dict[str, Any],
    batches: int | None,
) -> None:
    folder, _ = whole[rule]
    _run(tmp_path, pocket, options, SHARES[rule], workers=4, batches=batches)
    if batches:
        _run(tmp_path, pocket, options, SHARES[rule], workers=4)
    assert _ids(tmp_path) == _ids(folder)
    assert (tmp_path / "cells.jsonl").read_text() == (folder / "cells.jsonl").read_text()
    for name in ("verdict", "difference", "n"):
        found = gather_runs([tmp_path]).decisions[name].tolist()
        assert found == gather_runs([folder]).decisions[name].tolist()


def test_a_finished_run_runs_nothing(tmp_path: Path, pocket: Pocket, whole: Whole) -> None:
    folder = _copied(whole["decide"][0], tmp_path)
    assert _run(folder, pocket, DECIDE, SHARES["decide"]).jobs == []


def test_a_sample_that_failed_is_run_again_in_its_round(
    tmp_path: Path, pocket: Pocket, whole: Whole
) -> None:
    folder = _copied(whole["decide"][0], tmp_path)
    before = _samples(folder)
    store = Store(folder)
    cell = next(cell for cell in store.cells() if cell.method == "pi")
    failed = store.rows(cell)[0]
    store.append(cell, {**failed, "error": "oom"})
    jobs = _run(folder, pocket, DECIDE, SHARES["decide"]).jobs
    assert [job.missing for job in jobs] == [{failed["id"]}]
    assert _samples(folder) == before


def test_tables_say_what_was_decided_and_what_it_took(whole: Whole) -> None:
    folder, _ = whole["decide"]
    gathered = gather_runs([folder])
    n = _samples(folder)["single", "pi"]
    notes = [note for table in result_tables(gathered) for note in table.notes]
    assert any(f"pi {n} of 25 at single" in note for note in notes)
    (table,) = decision_tables(gathered)
    texts = {label: str(values[0]) for label, values in table.lines}
    assert texts["pi"].startswith("worse") and texts["lampe"].startswith("undecided")
    files = table_files(gathered, [table])
    rows = {row["method"]: row for row in csv.DictReader(files["decisions.csv"].splitlines())}
    assert rows["pi"]["verdict"] == "worse" and int(rows["pi"]["n"]) == n
    assert float(rows["pi"]["ci_low"]) <= float(rows["pi"]["difference"])
    assert float(rows["pi"]["difference"]) <= float(rows["pi"]["ci_high"]) < 0


def test_what_takes_a_fixed_number_of_samples_is_left_out_of_tables(whole: Whole) -> None:
    for folder, _ in whole.values():
        gathered = gather_runs([folder])
        tables = [*result_tables(gathered), *difference_tables(gathered)]
        shown = [value for table in tables for _, values in table.lines for value in values]
        assert shown and not any(value.best or value.differs for value in shown)
        assert gathered.pairs["p_value_holm"].isna().all()
        assert gathered.pairs["ci_low"].notna().all()
        averages = gathered.details[gathered.details["task"].isna()]
        assert averages["ci_low"].isna().all()
        for table in result_tables(gathered):
            assert any("bold" in note for note in table.notes), table.title
            assert not any("power" in note for note in table.caption)
        assert ranked_numbers(gathered)["rank"].isna().all()


@pytest.mark.parametrize("shortest", [3, 5, 12])
def test_a_decision_ends_with_the_task_that_has_the_fewest_samples(shortest: int) -> None:
    """Expect no more samples of the other tasks, which could decide nothing."""
    config: Any = {"stopping": {"reference": "original", "margin": 5.0}}
    drawn: Any = []
    for task, n in (("single", 20), ("multikey", shortest)):
        cells = tuple(Cell("pocket", method, "niah", task, 256) for method in ("original", "pi"))
        samples = [f"{task}{number}" for number in range(n)]
        drawn.append((SampleGroup(Task("niah", task, None), 256, cells, False), samples))
    rounds = Rounds(config, drawn)
    taken: dict[Cell, list[Any]] = {}
    for of_round in rounds:
        assert {len(samples) for _, _, samples in of_round} <= {ROUND, shortest % ROUND}
        for _, cell, samples in of_round:
            taken.setdefault(cell, []).extend(samples)
    assert {len(samples) for samples in taken.values()} == {shortest}
    assert {(cell.task, *counts) for cell, counts in rounds.used.items()} == {
        ("single", shortest, 20), ("multikey", shortest, shortest),
    }  # fmt: skip


def test_nothing_is_decided_where_samples_are_left(tmp_path: Path, pocket: Pocket) -> None:
    _run(tmp_path, pocket, DECIDE, SHARES["decide"], batches=40)
    assert gather_runs([tmp_path]).decisions.empty


@pytest.mark.parametrize(
    ("before", "now", "named"),
    [
        (DECIDE, {"limit": 31}, "--limit was 25, now 31"),
        (DECIDE, {"margin": 3}, "margin was 5.0, now 3.0"),
        (DECIDE, {"decide": False}, "--decide"),
        (DECIDE, {"decide": False, "precision": 5}, "--precision"),
        (DECIDE, {"method": "original,lampe"}, "--method was"),
        (DECIDE, {"method": "original,lampe,pi,ntk"}, "--method was"),
        (DECIDE, {"lengths": "256,512"}, "lengths"),
        (DECIDE, {"reference": "lampe"}, "reference was original, now lampe"),
        (PRECISION, {"precision": 10}, "precision was 20.0, now 10.0"),
        (PRECISION, {"limit": 50}, "--limit was 25, now 50"),
        ({**PRECISION, "precision": None}, {"precision": 10}, "--precision"),
    ],
)
def test_a_rule_holds_for_a_whole_run(
    tmp_path: Path, before: dict[str, Any], now: dict[str, Any], named: str
) -> None:
    config = run_configuration(_prepared(tmp_path, before))
    store = Store.create(tmp_path, config, {})
    cell = Cell("pocket", "original", "niah", "single", 256)
    store.append(cell, {"id": "a", "length": 256, "prompt_sha256": "0", "prompt_tokens": 9})
    with pytest.raises(UserError, match=named):
        extended(tmp_path, run_configuration(_prepared(tmp_path, {**before, **now})))


def test_a_method_may_join_cells_that_stop_by_themselves(
    tmp_path: Path, pocket: Pocket, whole: Whole
) -> None:
    _run(tmp_path, pocket, {**PRECISION, "method": "original"}, SHARES["precision"])
    _run(tmp_path, pocket, PRECISION, SHARES["precision"])
    assert _ids(tmp_path) == _ids(whole["precision"][0])


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"precision": 0}, "--precision"),
        ({"precision": -1}, "--precision"),
        ({"precision": 50}, "--precision"),
        ({"precision": float("nan")}, "--precision"),
        ({"precision": 5, "decide": True}, "--precision and --decide"),
        ({"margin": 3}, "--margin 3 is for --decide"),
        ({"margin": 3, "precision": 5}, "--margin 3 is for --decide"),
        ({"margin": 0, "decide": True}, "--margin"),
        ({"margin": 100, "decide": True}, "--margin"),
        ({"decide": True, "method": ["original"]}, "--decide.*original"),
        ({"decide": True, "reference": "pi"}, "--reference.*'pi'.*original, lampe"),
        ({"decide": True, "bench": ["niah", "ppl"]}, "--decide.*ppl/exact"),
        ({"precision": 5, "bench": ["ppl"]}, "--precision.*ppl/exact"),
        ({"precision": 5, "bench": ["leval/coursera"]}, "--precision.*leval/coursera"),
        ({"decide": True, "bench": ["longbench/qasper"], "protocol": "lampe"}, "lampe prompts of"),
    ],
)
def test_a_rule_that_means_nothing_is_refused(options: dict[str, Any], named: str) -> None:
    given = {"method": ["original,lampe"], "bench": ["niah/single"], **options}
    with pytest.raises(UserError, match=named) as refused:
        validate_suite(None, given)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("text", "stored"),
    [
        ("precision: 5", {"precision": 5.0}),
        ("decide: true", {"reference": "original", "margin": 5.0}),
        ("decide: true\nmargin: 2.5\nreference: lampe", {"reference": "lampe", "margin": 2.5}),
    ],
)
def test_a_suite_has_the_same_keys(tmp_path: Path, text: str, stored: dict[str, Any]) -> None:
    suite = tmp_path / "suite.yaml"
    suite.write_text(f"bench: niah/single\nmethod: original,lampe\n{text}\n")
    prepared = prepare_run(validate_suite(str(suite), {}))
    assert run_configuration(prepared)["stopping"] == stored


def test_without_original_the_first_method_is_the_reference() -> None:
    suite = Suite(method=("pi", "lampe"), bench=("niah/single",), decide=True)
    assert run_configuration(prepare_run(resolve_suite(suite)))["stopping"]["reference"] == "pi"


def test_a_dry_run_says_the_most_and_the_rule(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dry_run_suite(resolve_suite(Suite(output=tmp_path / "run", **{**DECIDE, "limit": 2})))
    printed = capsys.readouterr().out
    assert "at most 2 a method" in printed
    assert "better or worse than original" in printed and "within 5 points" in printed
