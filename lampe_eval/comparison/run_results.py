"""Runs of ours as results to compare."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from lampe_eval.benches import BENCHES
from lampe_eval.benches.bench import Task
from lampe_eval.comparison.compared_results import (
    ComparedResult,
    ComparedSample,
    flattened,
    joined,
    text_of,
)
from lampe_eval.comparison.prompt_texts import PromptText
from lampe_eval.comparison.scorers import BenchScorer
from lampe_eval.errors import UserError
from lampe_eval.prompts.protocol import Protocol
from lampe_eval.records import RunConfiguration, RunRecord, SampleRecord
from lampe_eval.results.cell_scores import score_run
from lampe_eval.run_description import read_description
from lampe_eval.store import Cell, Store

KIND = "run of lampe-eval"


@dataclass(frozen=True)
class Narrowing:
    """Part of a run or of other files that is compared.

    Attributes:
        method: label of the method; empty for all.
        model: name of the model; empty for all.
        task: "bench/task", a bench, or a task; empty for all.
        length: tokens of the cells; None for all.
    """

    method: str = ""
    model: str = ""
    task: str = ""
    length: int | None = None

    def has_task(self, task: str) -> bool:
        """Return whether a task is compared."""
        return not self.task or self.task in (task, *task.split("/"))

    def has_length(self, length: int | None) -> bool:
        """Return whether a length is compared; an unknown one is."""
        return self.length is None or length in (None, self.length)


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
    tasks = {f"{cell.bench}/{cell.task}": _task(store.config, cell) for cell in cells}
    scorers = {
        name: BenchScorer(task, Protocol.model_validate(store.config["protocols"][task.bench]))
        for name, task in tasks.items()
    }
    rows_of_samples = [sample.row for sample in samples]
    return ComparedResult(
        name=str(folder),
        kind=KIND,
        samples=samples,
        scorers={_common_task(name): scorer for name, scorer in scorers.items()},
        settings=_settings(store.config, cells, list(scorers.values()), rows_of_samples),
        fields=_fields(read_description(folder), list(tasks)) | _measured(rows_of_samples),
        task_fields={
            _common_task(name): dict(_task_fields(store.config, task))
            for name, task in tasks.items()
        },
        setup_fields={_setup(cell): dict(_setup_fields(store, cell)) for cell in cells},
    )


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


def _task(config: RunConfiguration, cell: Cell) -> Task:
    card = BENCHES[cell.bench].card.model_validate(config["tasks"][f"{cell.bench}/{cell.task}"])
    return Task(cell.bench, cell.task, card)


def _setup(cell: Cell) -> str:
    return f"{cell.model} · {cell.method}"


def _common_task(name: str) -> str:
    """Return a task's name; LongBench-E has rows of LongBench."""
    return name.replace("longbench-e/", "longbench/")


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
        setup=_setup(cell),
        task=_common_task(f"{cell.bench}/{cell.task}"),
        length=cell.length,
        row=row,
        # Token ids, whose hash is no other program's hash of a text.
        prompt_hash=("ids", row["prompt_sha256"]) if row["prompt_sha256"] else None,
        prompt=prompt,
        row_id=row_id,
    )


def _task_fields(config: RunConfiguration, task: Task) -> Iterator[tuple[str, str]]:
    """Yield every field of a task's protocol and card."""
    # With the defaults of fields that a run from before them does not store.
    protocol = Protocol.model_validate(config["protocols"][task.bench])
    for name, value in protocol.model_dump(mode="json").items():
        yield f"protocol of {task.bench}: {name}", text_of(value)
    for name, value in task.card.model_dump(mode="json").items():
        yield f"task {task.full_name}: {name}", text_of(value)


def _fields(description: RunRecord, tasks: list[str]) -> dict[str, str]:
    """Return every field of a run's description that is not one of a task, model or method."""
    config = {**description["config"], "tasks": tasks}
    for name in ("protocols", "models", "methods", "lengths"):
        del config[name]
    fields = flattened(config, "") | {"date": text_of(description.get("date"))}
    environments = description["environments"]
    for name in dict.fromkeys(chain.from_iterable(environments)):
        values = [environment.get(name) for environment in environments]
        fields[f"version or machine: {name}"] = joined(values) or "none"
    return fields


def _setup_fields(store: Store, cell: Cell) -> Iterator[tuple[str, str]]:
    """Yield the fields of a cell's model and method."""
    yield "model", cell.model
    yield "method", cell.method
    for name, value in store.config["models"][cell.model].items():
        yield f"model: {name}", text_of(value)
    settings = store.config["methods"][cell.method].get(cell.model, {})
    for name, value in settings.items():
        yield f"method setting {name}", text_of(value)
    lengths = store.config["lengths"].get(cell.model, {})
    for bench, tokens in lengths.items():
        yield f"lengths of {bench}", text_of(tokens)


def _measured(rows: Sequence[SampleRecord]) -> dict[str, str]:
    """Return what samples say of how they ran."""
    return {
        "backend": joined([row.get("backend") for row in rows]),
        "batch size": joined(sorted({row.get("batch_size", 1) for row in rows})),
        "samples whose prompt was cut": str(sum("cut_tokens" in row for row in rows)),
        "answers cut at their limit": str(sum(row.get("stop_reason") == "length" for row in rows)),
    }


def _settings(
    config: RunConfiguration,
    cells: Mapping[Cell, Any],
    scorers: Sequence[BenchScorer],
    rows: Sequence[SampleRecord],
) -> dict[str, str]:
    """Return the settings that results of other programs state as well."""
    models = {cell.model: config["models"][cell.model] for cell in cells}
    protocols = [scorer.protocol for scorer in scorers]
    has_stop = any(scorer.task.name in scorer.protocol.stop_at_newline for scorer in scorers)
    measured = _measured(rows)
    settings = {
        "model": joined(list(models)),
        "weights": joined([model["fingerprint"] for model in models.values()]),
        "dtype": joined([model["dtype"] for model in models.values()]),
        "method": joined([cell.method for cell in cells]),
        "wording": joined([f"prompts {protocol.prompts}" for protocol in protocols]),
        "chat template": joined([protocol.chat for protocol in protocols]),
        "truncation": joined([protocol.truncation for protocol in protocols]),
        "max length": joined(sorted({cell.length for cell in cells})),
        "max new tokens": _answer_limit(scorers, rows),
        "stops at": "end of text; line break" if has_stop else "end of text",
        "sampling": "greedy",
        "scorer": joined([scorer.name for scorer in scorers]),
        "number of samples": str(len(rows)),
        "backend": measured["backend"],
        "batch size": measured["batch size"],
        "seed": str(config["seed"]),
    }
    return {name: value for name, value in settings.items() if value}


def _answer_limit(scorers: Sequence[BenchScorer], rows: Sequence[SampleRecord]) -> str:
    """Return the tokens that answers may have, or those of an answer that was cut there."""
    stated = []
    for scorer in scorers:
        of_task = getattr(scorer.task.card, "max_new_tokens", None)
        stated.append(of_task or scorer.protocol.max_new_tokens)
    cut = [row.get("answer_tokens") for row in rows if row.get("stop_reason") == "length"]
    return joined(stated) or joined(cut)
