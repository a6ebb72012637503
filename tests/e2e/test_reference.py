"""Reference run of results/: a small part of it, run again here, gives the same records."""

from pathlib import Path

import pytest

from lampe_eval.commands.progress_display import ProgressLines
from lampe_eval.running.configuration import run_configuration
from lampe_eval.running.prepared_run import prepare_run
from lampe_eval.running.resolve import resolve_suite
from lampe_eval.running.runner import run
from lampe_eval.store import Cell, Store
from lampe_eval.suite import Suite

COMMITTED = Path(__file__).parents[2] / "results" / "pocket"


@pytest.mark.parametrize("task", ["niah/multikey", "ppl/exact"])
def test_a_part_of_the_reference_run_is_reproduced(task: str, tmp_path: Path) -> None:
    """Compare answers to the letter, and losses up to another processor's rounding."""
    part = {"method": "original,yarn,dca,lampe", "bench": task, "lengths": "512", "limit": 2}
    suite = Suite.from_options({**part, "output": tmp_path / "run"})
    prepared = prepare_run(resolve_suite(suite))
    again = run(prepared, run_configuration(prepared), ProgressLines())
    for cell in again.cells():
        committed = {row["id"]: row for row in Store(COMMITTED).rows(cell)}
        rows = again.rows(cell)
        assert len(rows) == 2
        for row in rows:
            was = committed[row["id"]]
            assert row["prompt_sha256"] == was["prompt_sha256"]
            assert row.get("prediction") == was.get("prediction")
            assert row.get("loss", 0.0) == pytest.approx(was.get("loss", 0.0), rel=1e-4)


def test_the_reference_run_is_whole() -> None:
    store = Store(COMMITTED)
    assert all(len(store.rows(cell)) == samples for cell, samples in store.cells().items())
    assert Cell("pocket", "lampe", "niah", "multikey", 4096) in store.cells()
