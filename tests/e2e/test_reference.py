"""The committed reference run: a small part of it, run again here, is what it was."""

from pathlib import Path

import pytest

from lampe_eval.commands.progress_display import Lines
from lampe_eval.plan import prepare
from lampe_eval.running.runner import run
from lampe_eval.store import Cell, Store
from lampe_eval.suite import Suite

COMMITTED = Path(__file__).parents[2] / "results" / "pocket"


@pytest.mark.parametrize("task", ["niah/multikey", "ppl/exact"])
def test_a_part_of_the_reference_run_is_reproduced(task: str, tmp_path: Path) -> None:
    """Answers to the letter, losses to what another processor rounds otherwise."""
    part = {"method": "original,yarn,dca,lampe", "bench": task, "lengths": "512", "limit": 2}
    again = run(prepare(Suite.from_options({**part, "output": tmp_path / "run"})), Lines())
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
