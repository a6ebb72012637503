"""Costs of methods relative to the unpatched model, from what stored samples took.

Both sides of a ratio are the same sample, and the median over samples leaves out those that
something else on the machine slowed down. A run in which both took turns on an idle machine gives
the best ratios; `lampe-eval speed` measures them for their own sake.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import median

from lampe_eval.records import SampleRecord


@dataclass(frozen=True)
class Costs:
    """Ratios of a method's costs to those of another one; None where nothing was measured on both.

    Attributes:
        prompt: ratio of the seconds that a prompt takes.
        token: ratio of the seconds that each further token of an answer takes.
        memory: ratio of the peak memory.
        n: number of samples that both have.
    """

    prompt: float | None
    token: float | None
    memory: float | None
    n: int


def relative_costs(
    cells: Iterable[tuple[Sequence[SampleRecord], Sequence[SampleRecord]]],
) -> Costs:
    """Return the costs of a method relative to a reference on the samples that both have.

    Args:
        cells: samples of the method and of the reference, for each task at one length.
    """
    pairs: list[tuple[SampleRecord, SampleRecord]] = []
    for rows, reference in cells:
        by_id = {row["id"]: row for row in reference}
        pairs += [(row, by_id[row["id"]]) for row in rows if row["id"] in by_id]
    # a batch of another size shares its time among more or fewer samples
    pairs = [(row, other) for row, other in pairs if _batch_size(row) == _batch_size(other)]
    return Costs(
        prompt=_median_ratio(pairs, _prompt_seconds),
        token=_median_ratio(pairs, _token_seconds),
        memory=_median_ratio(pairs, lambda row: row.get("peak_memory_bytes")),
        n=len(pairs),
    )


def _median_ratio(
    pairs: Sequence[tuple[SampleRecord, SampleRecord]],
    cost: Callable[[SampleRecord], float | None],
) -> float | None:
    costs = [(cost(row), cost(other)) for row, other in pairs]
    ratios = [ours / theirs for ours, theirs in costs if ours and theirs]
    return median(ratios) if ratios else None


def _batch_size(row: SampleRecord) -> int:
    return row.get("batch_size", 1)


def _prompt_seconds(row: SampleRecord) -> float | None:
    return row.get("prefill_seconds")


def _token_seconds(row: SampleRecord) -> float | None:
    """Return the seconds of each token after the first, which the prompt's time includes."""
    tokens = row.get("answer_tokens", 0) - 1
    seconds = row.get("decode_seconds")
    return seconds / tokens if seconds and tokens > 0 else None
