"""Plan of a run: models described, methods built and tried, device and batch size known."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import lampe
from lampe_eval.benches.bench import Task
from lampe_eval.engine.devices import device_of_run, resolve_device
from lampe_eval.errors import UserError
from lampe_eval.method_specs import MethodSpec
from lampe_eval.models import ModelSource, describe_model
from lampe_eval.prompts.protocol import Protocol
from lampe_eval.running.resolve import ResolvedSuite
from lampe_eval.store import Cell
from lampe_eval.suite import Suite


@dataclass(frozen=True)
class RunPlan:
    """Plan of what a suite will run, known before weights are loaded.

    Attributes:
        suite: the suite as the user wrote it.
        sources: models, in the order of the tables.
        specs: methods, in the order of the tables.
        tasks: tasks, in the order of the tables.
        protocols: the protocol of each benchmark by the benchmark's name.
        plugins: sha256 of each plug-in by the name of its file.
        methods: methods with all settings, by model name and method label.
        device: device of the model, or of each of its replicas.
        max_batch_tokens: most tokens of a batch, padding and answers included; "measured" if free
            memory sets it once the model is loaded; None for one sample at a time, as published
            numbers are made.
    """

    suite: Suite
    sources: list[ModelSource]
    specs: list[MethodSpec]
    tasks: list[Task]
    protocols: Mapping[str, Protocol]
    plugins: Mapping[str, str]
    methods: Mapping[tuple[str, str], lampe.Method]
    device: str
    max_batch_tokens: int | Literal["measured"] | None

    def lengths(self, source: ModelSource, bench: str) -> tuple[int, ...]:
        """Return the lengths of a model's cells in tokens, longest first."""
        # Longest first, so that what does not fit in memory fails early.
        window = source.geometry.window
        default = {windows * window for windows in self.protocols[bench].windows}
        return tuple(sorted(set(self.suite.lengths) or default, reverse=True))

    def limit(self, task: Task) -> int:
        """Return the most samples that a cell of a task has."""
        return self.suite.limit or int(task.card.samples)

    def cells(self, source: ModelSource) -> Iterator[tuple[Task, Cell]]:
        """Yield the cells of a model in the order of the tables."""
        for task in self.tasks:
            for length in self.lengths(source, task.bench):
                for spec in self.specs:
                    yield task, Cell(source.name, spec.label, task.bench, task.name, length)


def plan_run(resolved: ResolvedSuite) -> RunPlan:
    """Describe the models of a suite, build its methods and try them at every length.

    Raises:
        UserError: for a model, a method, a backend or a device that cannot be used.
    """
    suite = resolved.suite
    backends = lampe.AUTO, *lampe.BACKENDS
    if suite.attention not in backends:
        raise UserError(
            f"--attention: unknown backend {suite.attention!r}; one of: {', '.join(backends)}"
        )
    # Only to raise for an unknown device, before any model is looked for.
    resolve_device(suite.device)
    sources = [
        describe_model(card, label, window=suite.window, dtype=suite.dtype)
        for label, card in resolved.model_cards.items()
    ]
    methods: dict[tuple[str, str], lampe.Method] = {}
    for source in sources:
        for spec in resolved.specs:
            methods[source.name, spec.label] = spec.build(source.settings)
    device = device_of_run(suite)
    plan = RunPlan(
        suite=suite,
        sources=sources,
        specs=resolved.specs,
        tasks=resolved.tasks,
        protocols=resolved.protocols,
        plugins=resolved.plugins,
        methods=methods,
        device=device,
        max_batch_tokens=_max_batch_tokens(suite, device),
    )
    _try_methods(plan)
    return plan


def _max_batch_tokens(suite: Suite, device: str) -> int | Literal["measured"] | None:
    """Return `RunPlan.max_batch_tokens`; no two samples fit 1 token, so it means None."""
    if suite.max_batch_tokens is not None:
        return suite.max_batch_tokens if suite.max_batch_tokens > 1 else None
    # Published numbers are made with one sample at a time, so only `fair` batches on its own.
    is_fair = suite.protocol.partition(":")[0] == "fair"
    return "measured" if is_fair and device.startswith("cuda") else None


def _try_methods(plan: RunPlan) -> None:
    """Let every method encode every length, to refuse a setting that does not fit before loading.

    Raises:
        UserError: for the first method that refuses a length.
    """
    for source in plan.sources:
        lengths = set[int]()
        for bench in plan.protocols:
            lengths.update(plan.lengths(source, bench))
        for spec in plan.specs:
            for length in sorted(lengths):
                try:
                    plan.methods[source.name, spec.label].encode(source.geometry, length)
                except lampe.LampeError as error:
                    raise UserError(
                        f"method {spec.label!r} at length {length} on {source.name}: {error}"
                    ) from None
