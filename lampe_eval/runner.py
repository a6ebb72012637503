"""Which samples are left to do, and doing them: every cell of model x method x task x length."""

import hashlib
import importlib.metadata
import os
import platform
import time
import typing
import warnings
from collections.abc import Iterator
from functools import cached_property
from typing import Any

import torch
import transformers
from transformers import PreTrainedTokenizerBase

import lampe
from lampe_eval import models
from lampe_eval.benches import BENCHES
from lampe_eval.benches.base import Prompt, Sample, Task
from lampe_eval.engine.local import LocalEngine
from lampe_eval.errors import UserError
from lampe_eval.models import ModelSource
from lampe_eval.plan import Plan, device_of
from lampe_eval.store import Cell, Store


class Progress(typing.Protocol):
    """Told what happens: samples in all, what runs now, and samples finished (or found finished)."""

    def total(self, samples: int) -> None: ...
    def now(self, text: str) -> None: ...
    def finished(self, samples: int = 1) -> None: ...


def run(plan: Plan, progress: Progress) -> Store:
    """Does what is left of a plan. Samples of one task at one length are held at a time.

    Raises:
        UserError: for whatever a person can mend; what is finished stays stored.
    """
    tokenizers = {source.name: models.load_tokenizer(source) for source in plan.sources}
    for source in plan.sources:
        probe(plan, source, tokenizers[source.name])
    store = Store.create(plan.folder, plan.config, _environment())
    with store.writing():
        for source in plan.sources:
            _Work(plan, source, tokenizers[source.name], store, progress).do()
    return store


def probe(plan: Plan, source: ModelSource, tokenizer: PreTrainedTokenizerBase) -> None:
    """Draws one sample of every task at every length, so that what cannot be had is said before anything runs.

    Raises:
        UserError: for all tasks that cannot be had, in one line.
    """
    faults: dict[str, str] = {}
    for task in plan.tasks:
        for length in plan.lengths(source, task.bench):
            try:
                plan.samples(task, length, tokenizer, limit=1)
            except UserError as error:
                faults[task.full_name] = str(error)
    if faults:
        raise UserError("; ".join(f"{task}: {fault}" for task, fault in faults.items()))


class _Work:
    """What is to do with one model, which is loaded when there is something."""

    def __init__(
        self, plan: Plan, source: ModelSource, tokenizer: PreTrainedTokenizerBase, store: Store, progress: Progress
    ) -> None:
        self.plan, self.source, self.store, self.progress = plan, source, store, progress
        self.samples = _Samples(plan, tokenizer)
        self.counts = {cell: plan.limit(task) for every in plan.sources for task, cell in _cells(plan, every)}

    @cached_property
    def engine(self) -> LocalEngine:
        """The loaded model."""
        self.progress.now(f"loading {self.source.name}")
        return LocalEngine(*models.load(self.source, device_of(self.plan.suite.device)))

    def do(self) -> None:
        """All cells of the model."""
        self._count({})
        for task, cell in _cells(self.plan, self.source):
            samples = self.samples.of(task, cell)
            self._count({cell: len(samples)})
            self._cell(task, cell, samples)

    def _count(self, known: dict[Cell, int]) -> None:
        """Notes how many samples cells have: what their cards say, until they are drawn."""
        self.counts |= known
        if self.store.plan(self.counts):
            self.progress.total(sum(self.counts.values()))

    def _cell(self, task: Task, cell: Cell, samples: list[Sample]) -> None:
        """What is left of a cell; a sample that failed before is tried again."""
        done = {row["id"]: row["sha256"] for row in self.store.rows(cell) if "error" not in row}
        left = [sample for sample in samples if sample.id not in done]
        if changed := [sample.id for sample in samples if done.get(sample.id, _sha256(sample)) != _sha256(sample)]:
            raise UserError(
                f"{self.store.folder}: {task.full_name} at {cell.length}: sample {changed[0]} has another prompt now "
                "than when its answer was stored; choose another --output"
            )
        self.progress.finished(len(samples) - len(left))
        if not left:
            return
        engine = self.engine
        self.progress.now(f"{cell.method} · {task.full_name} · {cell.length}")
        method, window = self.plan.built[cell.model, cell.method], self.source.geometry.window
        try:
            with engine.under(method, window, self.plan.suite.attention), warnings.catch_warnings():
                warnings.simplefilter("ignore", lampe.PositionWarning)  # every row says how far its positions reach
                for sample in left:
                    self.store.append(cell, self._row(task, method, sample))
                    self.progress.finished()
        except lampe.LampeError as error:
            raise UserError(f"model {cell.model!r} under {cell.method!r}: {error}") from None

    def _row(self, task: Task, method: lampe.Method, sample: Sample) -> dict[str, Any]:
        """Runs one sample. An error is recorded with it, and the run goes on."""
        row = {**_described(sample), **_positions(method, self.source.geometry, len(sample.ids))}
        if isinstance(sample, Prompt) and sample.skip:
            return {**row, "skipped": "longer than the protocol allows"}
        began = time.perf_counter()
        try:
            row |= self._outcome(task, sample)
        except Exception as error:
            row |= {"error": f"{type(error).__name__}: {error}"}
        return {**row, "seconds": round(time.perf_counter() - began, 4)}

    def _outcome(self, task: Task, sample: Sample) -> dict[str, Any]:
        if not isinstance(sample, Prompt):
            return {"loss": self.engine.loss(sample), "scored": sample.scored}
        outcome = _answered(self.engine, sample)
        return {**outcome, "score": BENCHES[task.bench].score(task.name, outcome, self.plan.protocols[task.bench])}


class _Samples:
    """The samples of the task and length that run now, drawn once for all methods."""

    def __init__(self, plan: Plan, tokenizer: PreTrainedTokenizerBase) -> None:
        self._plan, self._tokenizer = plan, tokenizer
        self._held: dict[tuple[str, int, bool], list[Sample]] = {}

    def of(self, task: Task, cell: Cell) -> list[Sample]:
        """The samples of a cell."""
        mapped = self._plan.mapped(task, cell.model, cell.method)
        key = (task.full_name, cell.length, mapped)
        if key not in self._held:
            self._held = {held: samples for held, samples in self._held.items() if held[:2] == key[:2]}
            self._held[key] = self._plan.samples(task, cell.length, self._tokenizer, mapped=mapped)
        return self._held[key]


def _cells(plan: Plan, source: ModelSource) -> Iterator[tuple[Task, Cell]]:
    """The cells of a model, all methods of a task and length one after another."""
    for task in plan.tasks:
        for length in plan.lengths(source, task.bench):
            for spec in plan.specs:
                yield task, Cell(source.name, spec.label, task.bench, task.name, length)


def _described(sample: Sample) -> dict[str, Any]:
    """What a sample is."""
    row: dict[str, Any] = {
        "id": sample.id,
        "sha256": _sha256(sample),
        "tokens": len(sample.ids),
        **sample.meta,
    }
    if isinstance(sample, Prompt):
        row |= {"references": sample.references, "extras": dict(sample.extras)}
        row |= {"cut": sample.cut} if sample.cut else {}
    return row


def _sha256(sample: Sample) -> str:
    return hashlib.sha256(repr(list(sample.ids)).encode()).hexdigest()


def _positions(method: lampe.Method, geometry: lampe.Geometry, length: int) -> dict[str, Any]:
    """How far the positions of a prompt reach under a method, and how sharp its attention is."""
    encoding = method.encode(geometry, length)
    return {
        "largest_position": round(encoding.reach(length, geometry.rope(length)), 6),
        "temperature": str(encoding.sharpness),
    }


def _answered(engine: LocalEngine, prompt: Prompt) -> dict[str, Any]:
    """The prediction with what its scorer needs; both answers where another prompt follows the first."""
    answer = engine.answer(prompt)
    outcome = {
        "prediction": answer.text,
        "tokens_out": answer.tokens,
        "stop": answer.stop,
        "references": prompt.references,
        "extras": dict(prompt.extras),
    }
    if prompt.follow_up is None:
        return outcome
    second = engine.answer(prompt.follow_up.ask(answer.text))
    return {
        **outcome,
        "prediction": prompt.follow_up.join(answer.text, second.text),
        "answers": [answer.text, second.text],
        "tokens_out": answer.tokens + second.tokens,
        "stop": second.stop,
    }


def _environment() -> dict[str, Any]:
    """Versions and hardware: told, not compared."""
    return {
        "lampe-eval": importlib.metadata.version("lampe-eval"),
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "transformers": transformers.__version__,
        "platform": platform.platform(),
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }
