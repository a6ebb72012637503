"""Runs of ours as results to compare."""

from collections.abc import Collection, Sequence
from pathlib import Path

from lampe_eval.benches import BENCHES
from lampe_eval.benches.bench import Task
from lampe_eval.comparison.compared_results import (
    ComparedResult,
    ComparedSample,
    StatedSettings,
    task_names,
)
from lampe_eval.comparison.narrowing import Narrowing
from lampe_eval.comparison.prompt_texts import PromptText
from lampe_eval.comparison.run_settings import run_settings
from lampe_eval.comparison.scorers import BenchScorer
from lampe_eval.errors import UserError
from lampe_eval.prompts.protocol import Protocol
from lampe_eval.records import RunConfiguration, SampleRecord
from lampe_eval.results.cell_scores import score_run
from lampe_eval.run_description import read_description
from lampe_eval.store import Cell, Store

KIND = "run of lampe-eval"


def read_run(folder: Path, narrowing: Narrowing) -> ComparedResult:
    """Read a run.

    Raises:
        UserError: if it cannot be read, or has no scored sample of what is compared.
    """
    store = Store(folder)
    scored = score_run(store)
    cells = {cell: rows for cell, rows in scored.rows.items() if _is_compared(cell, narrowing)}
    if not cells:
        raise _no_such_cell(folder, scored.rows, narrowing)
    samples: list[ComparedSample] = []
    for cell, rows in cells.items():
        samples += [_sample(cell, row) for row in rows if _is_scored(row)]
    if not samples:
        raise UserError(f"{folder}: no scored sample to compare; see run.log there")
    scorers = {_task_name(cell): _scorer(store.config, cell) for cell in cells}
    description = read_description(folder)

    def settings_of(samples: Sequence[ComparedSample]) -> StatedSettings:
        compared = [scorers[task] for task in task_names(samples)]
        return run_settings(description, compared, samples)

    return ComparedResult(str(folder), KIND, samples, scorers, settings_of)


def _is_compared(cell: Cell, narrowing: Narrowing) -> bool:
    return (
        narrowing.method in ("", cell.method)
        and narrowing.model in ("", cell.model)
        and narrowing.has_task(f"{cell.bench}/{cell.task}")
        and narrowing.has_length(cell.length)
    )


def _no_such_cell(folder: Path, cells: Collection[Cell], narrowing: Narrowing) -> UserError:
    """Return the error for a run that has nothing of what is compared."""
    known = {
        "method": dict.fromkeys(cell.method for cell in cells),
        "model": dict.fromkeys(cell.model for cell in cells),
        "task": dict.fromkeys(f"{cell.bench}/{cell.task}" for cell in cells),
        "length": dict.fromkeys(str(cell.length) for cell in cells),
    }
    wanted = {name: getattr(narrowing, name) for name in known if getattr(narrowing, name)}
    named = ", ".join(f"--{name} {value}" for name, value in wanted.items())
    has = "; ".join(f"{name}: {', '.join(known[name])}" for name in wanted)
    if not cells or not wanted:
        return UserError(f"{folder}: no sample is stored yet; see run.log there")
    return UserError(f"{folder}: has no cell of {named}; it has {has}")


def _is_scored(row: SampleRecord) -> bool:
    return "error" not in row and "skipped" not in row


def _scorer(config: RunConfiguration, cell: Cell) -> BenchScorer:
    """Return the scorer of a cell, as its run chose it."""
    card = BENCHES[cell.bench].card.model_validate(config["tasks"][f"{cell.bench}/{cell.task}"])
    protocol = Protocol.model_validate(config["protocols"][cell.bench])
    return BenchScorer(Task(cell.bench, cell.task, card), protocol)


def _task_name(cell: Cell) -> str:
    """Return the name of a cell's task; LongBench-E has rows of LongBench."""
    return f"{cell.bench.removesuffix('-e')}/{cell.task}"


def _sample(cell: Cell, row: SampleRecord) -> ComparedSample:
    prompt = None
    if "prompt_start" in row:
        # Decoded from ids, so that special tokens are part of it.
        prompt = PromptText(
            row["prompt_start"].rstrip("\ufffd"),
            row["prompt_end"].lstrip("\ufffd"),
            whole=False,
            has_special_tokens=True,
        )
    extras = row.get("extras", {})
    row_id = ("_id", str(extras["_id"])) if "_id" in extras else (KIND, row["id"])
    return ComparedSample(
        task=_task_name(cell),
        length=cell.length,
        row=row,
        model=cell.model,
        method=cell.method,
        # Token ids, whose hash is no other program's hash of a text.
        prompt_hash=("ids", row["prompt_sha256"]) if row["prompt_sha256"] else None,
        prompt=prompt,
        row_id=row_id,
    )
