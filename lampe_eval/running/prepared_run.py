"""Suite prepared for a run: models are described, methods are built, the batch size is known."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import torch

import lampe
from lampe.patching.layer_encodings import require_coverage
from lampe_eval.benches.bench import Task
from lampe_eval.device_memory import total_bytes
from lampe_eval.engine.devices import device_of_run
from lampe_eval.engine.local_engine import PROMPT_CHUNK
from lampe_eval.errors import UserError
from lampe_eval.models import ModelSource, cost_of, describe_model
from lampe_eval.running.resolve import ResolvedSuite
from lampe_eval.store import Cell

MIN_CHECKED_LENGTH = 1024**2
"""Tokens from which a length is compared with the memory of the device."""


@dataclass(frozen=True)
class PreparedRun:
    """Suite that is ready to run; weights are not loaded yet.

    Attributes:
        resolved: the suite with what its names mean.
        sources: models, in the order of the tables.
        methods: methods with all settings, by model name and method label.
        device: device of the model, or of each of its replicas.
        max_batch_tokens: most tokens of a batch, padding and answers included; "measured" if free
            memory sets it once the model is loaded; None for one sample at a time, as published
            numbers are made.
    """

    resolved: ResolvedSuite
    sources: list[ModelSource]
    methods: Mapping[tuple[str, str], lampe.Method]
    device: str
    max_batch_tokens: int | Literal["measured"] | None

    def lengths(self, source: ModelSource, bench: str) -> tuple[int, ...]:
        """Return the lengths of a model's cells in tokens, longest first."""
        # Longest first, so that what does not fit in memory fails early.
        window = source.geometry.window
        default = {windows * window for windows in self.resolved.protocols[bench].windows}
        return tuple(sorted(set(self.resolved.suite.lengths) or default, reverse=True))

    def all_lengths(self, source: ModelSource) -> list[int]:
        """Return the lengths of a model's cells of all benchmarks in tokens, shortest first."""
        lengths = set[int]()
        for bench in self.resolved.protocols:
            lengths.update(self.lengths(source, bench))
        return sorted(lengths)

    def visible_tokens(self, source: ModelSource, method: str, length: int) -> int | None:
        """Return how many tokens a token sees at most in cells of a length; None for all."""
        encoding = self.methods[source.name, method].encode(source.geometry, length)
        visible = encoding.plan.visible
        return None if visible is None else visible.count

    def cached_tokens(self, visible: int | None, tokens: int) -> int:
        """Return of how many tokens keys and values are in memory at a time, at most.

        Args:
            visible: tokens that a token sees at most; None for all.
            tokens: those of prompt and answer.
        """
        # vLLM's cache drops none.
        if visible is None or self.resolved.suite.engine == "vllm":
            return tokens
        # Keys of a chunk of a prompt are dropped when the next one is read.
        return min(tokens, PROMPT_CHUNK + visible)

    def limit(self, task: Task) -> int:
        """Return the most samples that a cell of a task has."""
        return self.resolved.suite.limit or int(task.card.samples)

    def cells(self, source: ModelSource) -> Iterator[tuple[Task, Cell]]:
        """Yield the cells of a model in the order of the tables."""
        for task in self.resolved.tasks:
            for length in self.lengths(source, task.bench):
                for spec in self.resolved.specs:
                    yield task, Cell(source.name, spec.label, task.bench, task.name, length)


def prepare_run(resolved: ResolvedSuite, sources: list[ModelSource] | None = None) -> PreparedRun:
    """Describe the models of a suite, build its methods and try them at every length.

    Args:
        resolved: the suite with what its names mean.
        sources: its models, where they are described already: that reads configurations from the
            hub and hashes weights.

    Raises:
        UserError: for a model, a method or a device that cannot be used.
    """
    suite = resolved.suite
    # Before any model is looked for, because it raises for an unknown device.
    device = device_of_run(suite)
    if sources is None:
        sources = [
            describe_model(card, label, window=suite.window, dtype=suite.dtype)
            for label, card in resolved.model_cards.items()
        ]
    methods: dict[tuple[str, str], lampe.Method] = {}
    for source in sources:
        for spec in resolved.specs:
            methods[source.name, spec.label] = spec.build(source.settings)
    prepared = PreparedRun(
        resolved=resolved,
        sources=sources,
        methods=methods,
        device=device,
        max_batch_tokens=_max_batch_tokens(resolved, device),
    )
    _try_methods(prepared)
    _refuse_lengths_beyond_memory(prepared)
    return prepared


def _max_batch_tokens(resolved: ResolvedSuite, device: str) -> int | Literal["measured"] | None:
    """Return `PreparedRun.max_batch_tokens`; no two samples fit 1 token, so it means None."""
    requested = resolved.suite.max_batch_tokens
    if requested is not None:
        return requested if requested > 1 else None
    may_batch = all(protocol.batches for protocol in resolved.protocols.values())
    has_batches = device.startswith("cuda") or resolved.suite.engine == "vllm"
    return "measured" if may_batch and has_batches else None


def _try_methods(prepared: PreparedRun) -> None:
    """Let every method encode every length, to refuse a setting that does not fit before loading.

    Raises:
        UserError: for the first method that refuses a length.
    """
    for source in prepared.sources:
        for spec in prepared.resolved.specs:
            for length in prepared.all_lengths(source):
                method = prepared.methods[source.name, spec.label]
                try:
                    require_coverage(method, method.encode(source.geometry, length).plan)
                except lampe.LampeError as error:
                    raise UserError(
                        f"method {spec.label!r} at length {length} on {source.name}: {error}"
                    ) from None


def _refuse_lengths_beyond_memory(prepared: PreparedRun) -> None:
    """Refuse lengths whose keys and values alone are more than the device's memory.

    Raises:
        UserError: for the first such length; drawing its samples would not end.
    """
    # Replicas may have other devices than this process.
    suite = prepared.resolved.suite
    if suite.uses_ray:
        return
    try:
        memory = total_bytes(torch.device(prepared.device)) * suite.gpus_per_replica
    except (AssertionError, RuntimeError):
        return  # several devices, or one that refuses the model, which says why
    for source in prepared.sources:
        longest = max(prepared.all_lengths(source), default=0)
        # Sizing a large model takes seconds.
        if longest < MIN_CHECKED_LENGTH:
            continue
        visible = [
            prepared.visible_tokens(source, spec.label, longest) for spec in prepared.resolved.specs
        ]
        cached = max(prepared.cached_tokens(count, longest) for count in visible)
        needed = cached * cost_of(source).cache_bytes
        if needed > memory:
            raise UserError(
                f"--lengths: {longest} tokens of {source.name} need {needed >> 30} GiB for keys "
                f"and values, and {prepared.device} has {memory >> 30}; use shorter lengths"
            )
