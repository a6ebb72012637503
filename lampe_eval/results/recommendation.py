"""Recommendation: which method to use for prompts of a length, and why.

A method is a candidate if it is no slower than allowed. Of the candidates stay those that are not
shown to be worse than another one in any benchmark, and of these those that are not shown to lose
against the unpatched model on prompts that fit its window, if there are any. These cannot be told
apart by their scores, so those whose prompts take longer than the cheapest one's are left out, if
the intervals of their costs say so. The best score in the first benchmark decides among the rest.
Where every candidate is shown to be worse than
some method in some benchmark, the best score in the first one decides.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from lampe_eval.results.costs import Costs, Ratio
from lampe_eval.results.effective_length import EffectiveLength, ScoreAtLength

SAME_COST = 1.05
"""Ratio of two costs up to which they count as equal: clocks are no better than this."""


@dataclass(frozen=True)
class ShortPromptTax:
    """Difference from the unpatched model on prompts that fit the window.

    Attributes:
        difference: in points, or percent of a perplexity.
        low: lower end of its 95 % interval, NaN where there is none.
        high: upper end of its 95 % interval, NaN where there is none.
        is_shown: whether the method is shown to be worse than the unpatched model.
    """

    difference: float
    low: float
    high: float
    is_shown: bool


@dataclass(frozen=True)
class BenchSummary:
    """Results of a method on a benchmark.

    Attributes:
        score: its score at the length asked for, the mean over tasks.
        is_shown_worse: whether it is shown to be worse than another method there.
        effective: its effective length, relative to its own base score; None where it has a single
            length, or none that a base score could be of.
        tax: its difference from the unpatched model within the window; None where the run has no
            such prompts, and for the unpatched model itself.
        absolute: its effective length by RULER's threshold, for RULER alone.
    """

    score: ScoreAtLength
    is_shown_worse: bool
    effective: EffectiveLength | None
    tax: ShortPromptTax | None
    absolute: EffectiveLength | None = None


@dataclass(frozen=True)
class MethodSummary:
    """Results of a method in a run.

    Attributes:
        method: label of the method.
        benches: by benchmark; only those where all its samples at the length are scored.
        costs: at that length, relative to the unpatched model.
    """

    method: str
    benches: Mapping[str, BenchSummary]
    costs: Costs

    @property
    def slowdown(self) -> float:
        """Return the larger ratio of times, of prompts and of tokens; NaN if none is known."""
        known = [ratio.value for ratio in (self.costs.prompt, self.costs.token) if ratio]
        return max(known, default=math.nan)

    @property
    def is_shown_worse(self) -> bool:
        """Return whether it is shown to be worse than another method in any benchmark."""
        return any(bench.is_shown_worse for bench in self.benches.values())

    @property
    def has_shown_tax(self) -> bool:
        """Return whether it is shown to lose on prompts that fit the window."""
        return any(bench.tax is not None and bench.tax.is_shown for bench in self.benches.values())


@dataclass(frozen=True)
class Recommendation:
    """Methods that may be used, and the one to use.

    Attributes:
        method: label of the recommended method; None where no method may be used.
        reason: why, in one sentence.
        not_told_apart: methods whose scores cannot be told from the recommended one's.
        front: methods that no other method matches or beats in every column.
    """

    method: str | None
    reason: str
    not_told_apart: Sequence[str]
    front: Sequence[str]


def recommend(
    summaries: Sequence[MethodSummary],
    higher_is_better: Mapping[str, bool],
    *,
    max_slowdown: float | None = None,
) -> Recommendation:
    """Return the method to use.

    Args:
        summaries: methods that were run on every benchmark at the length asked for.
        higher_is_better: whether a higher score is better, by benchmark; the first one decides
            among methods that are alike.
        max_slowdown: largest ratio of times to the unpatched model's; None for any.
    """
    front = [summary.method for summary in _front(summaries, higher_is_better)]
    candidates = list(summaries)
    if max_slowdown is not None:
        # what was not measured is not known to be slower
        candidates = [one for one in summaries if not one.slowdown > max_slowdown]
        if not candidates:
            reason = f"no method is within {max_slowdown:g} times the unpatched model's time"
            return Recommendation(None, reason, [], front)
    if not candidates:
        return Recommendation(None, "no method was run in full on every benchmark", [], front)
    if all(_scores_nothing(one, higher_is_better) for one in candidates):
        reason = "all score 0 at this length; a shorter --length may tell them apart"
        return Recommendation(None, reason, [], front)
    if len(candidates) == 1:
        reason = "there is no other method to compare it with"
        if len(summaries) > 1:
            reason = f"no other method is within {max_slowdown:g} times the unpatched model's time"
        return Recommendation(candidates[0].method, reason, [], front)
    best = [one for one in candidates if not one.is_shown_worse]
    if not best:
        chosen = _best_in_first_bench(candidates, higher_is_better)
        reason = (
            "every method that may be used is shown to be worse than another one in some "
            f"benchmark; this one is best in {next(iter(higher_is_better))}"
        )
        return Recommendation(chosen.method, reason, [], front)
    without_tax = [one for one in best if not one.has_shown_tax]
    alike = without_tax or best
    cheapest = min(map(_cost, alike), key=lambda cost: cost.value)
    cheap = [one for one in alike if _cost(one).low <= SAME_COST * cheapest.high]
    chosen = _best_in_first_bench(cheap, higher_is_better)
    others = [one.method for one in alike if one is not chosen]
    return Recommendation(chosen.method, _reason(best, without_tax, cheap), others, front)


def _scores_nothing(summary: MethodSummary, higher_is_better: Mapping[str, bool]) -> bool:
    return all(
        higher and summary.benches[bench].score.value == 0
        for bench, higher in higher_is_better.items()
    )


def _best_in_first_bench(
    summaries: Sequence[MethodSummary], higher_is_better: Mapping[str, bool]
) -> MethodSummary:
    bench, higher = next(iter(higher_is_better.items()))
    best = max if higher else min
    return best(summaries, key=lambda one: one.benches[bench].score.value)


def _reason(
    best: Sequence[MethodSummary],
    without_tax: Sequence[MethodSummary],
    cheap: Sequence[MethodSummary],
) -> str:
    """Return why the chosen method was chosen."""
    if len(best) == 1:
        return "the others are shown to be worse at this length"
    taxed = len(best) - len(without_tax)
    reasons = [f"{len(best)} methods are not shown to be worse than another at this length"]
    if not without_tax:
        reasons.append("all of them are shown to lose on prompts that fit the window")
    elif taxed:
        lose = "is shown to lose" if taxed == 1 else "are shown to lose"
        reasons.append(f"{taxed} of them {lose} on prompts that fit the window")
    alike = without_tax or best
    if all(one.costs.prompt is None for one in alike):
        reasons.append("of those it has the best score; how long they take was not measured")
    elif len(cheap) > 1:
        reasons.append("of those not shown to be slower than the fastest it has the best score")
    elif len(alike) > 1:
        left = "of the others" if without_tax and taxed else "of those"
        reasons.append(f"{left} it reads a prompt fastest")
    return "; ".join(reasons)


def _cost(summary: MethodSummary) -> Ratio:
    """Return the relative cost of a prompt; what was not measured counts as the unpatched one's."""
    return summary.costs.prompt or Ratio(1.0, 1.0, 1.0)


def _front(
    summaries: Sequence[MethodSummary], higher_is_better: Mapping[str, bool]
) -> Iterable[MethodSummary]:
    """Yield the methods that no other one matches in every column and beats in one (Pareto)."""
    columns = {one.method: _columns(one, higher_is_better) for one in summaries}
    for one in summaries:
        mine = columns[one.method]
        if not any(_dominates(columns[other.method], mine) for other in summaries):
            yield one


def _columns(summary: MethodSummary, higher_is_better: Mapping[str, bool]) -> list[float]:
    """Return what a method is judged by, rounded to what tables print; more is better."""
    columns: list[float] = []
    for bench, higher in higher_is_better.items():
        of_bench = summary.benches[bench]
        sign = 1 if higher else -1
        tax = of_bench.tax.difference if of_bench.tax else 0.0
        columns += [round(sign * of_bench.score.value, 1), round(sign * tax, 1)]
    for ratio in (summary.costs.prompt, summary.costs.token, summary.costs.memory):
        columns.append(-round(ratio.value if ratio else 1.0, 2))
    return columns


def _dominates(others: Sequence[float], mine: Sequence[float]) -> bool:
    pairs = list(zip(others, mine, strict=True))
    return all(other >= own for other, own in pairs) and any(other > own for other, own in pairs)
