"""Table of what a run says of each method, and the sentences that recommend one."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from lampe_eval.report.table_model import ResultTable, TableValue, interval_text, number_text
from lampe_eval.results.costs import Costs
from lampe_eval.results.effective_length import SHARE, EffectiveLength
from lampe_eval.results.method_summaries import ModelSummary
from lampe_eval.results.recommendation import (
    MethodSummary,
    Recommendation,
    ShortPromptTax,
    recommend,
)
from lampe_eval.scoring.ruler_metrics import LLAMA2_AT_4K

NOTES = [
    f"effective length: the longest length at which a method keeps {SHARE:.0%} of its own score on "
    "short prompts, with an interval",
    "short prompts: method minus original where the prompt fits the window, in points or % of "
    "perplexity",
    "prompt, token, memory: cost relative to original, median over the same samples",
    "front: no other method is as good in every column and better in one",
]


@dataclass(frozen=True)
class RecommendationTable:
    """Recommendation as text.

    Attributes:
        table: a row for each method.
        lines: the recommendation and what is to be known of it.
        method: label of the recommended method; None where there is none.
        length: length in tokens that it is recommended for.
        model: name of the model.
    """

    table: ResultTable
    lines: Sequence[str]
    method: str | None
    length: int
    model: str


def recommendation_tables(
    models: Sequence[ModelSummary], max_slowdown: float | None = None
) -> Iterator[RecommendationTable]:
    """Yield the recommendation for each model.

    Args:
        models: summaries of the methods by model.
        max_slowdown: largest ratio of times to the unpatched model's; None for any.
    """
    for summary in models:
        found = recommend(summary.methods, summary.higher_is_better, max_slowdown=max_slowdown)
        table = ResultTable(
            f"which method · {summary.model} · {summary.length} tokens",
            ["method", *_titles(summary)],
            [(one.method, _values(one, summary, found)) for one in summary.methods],
            NOTES,
        )
        lines = list(_lines(summary, found))
        yield RecommendationTable(table, lines, found.method, summary.length, summary.model)


def _titles(summary: ModelSummary) -> list[str]:
    titles: list[str] = []
    for bench in summary.higher_is_better:
        titles += [bench, f"{bench} effective length"]
        if _has_absolute(summary, bench):
            titles.append(f"{bench} at {LLAMA2_AT_4K:g} or more")
        titles.append(f"{bench} short prompts")
    return [*titles, "prompt", "token", "memory", "front"]


def _values(one: MethodSummary, summary: ModelSummary, found: Recommendation) -> list[TableValue]:
    values: list[TableValue] = []
    for bench, higher_is_better in summary.higher_is_better.items():
        of_bench = one.benches[bench]
        score = of_bench.score
        values += [
            TableValue(
                number_text(score.value),
                interval_text(score.low, score.high),
                best=not of_bench.is_shown_worse and not summary.stopping,
            ),
            _effective_length(of_bench.effective),
        ]
        if _has_absolute(summary, bench):
            values.append(_effective_length(of_bench.absolute))
        values.append(_tax(of_bench.tax, "points" if higher_is_better else "%"))
    on_front = TableValue("yes" if one.method in found.front else "no")
    return [*values, *_costs(one.costs), on_front]


def _has_absolute(summary: ModelSummary, bench: str) -> bool:
    return any(one.benches[bench].absolute for one in summary.methods)


def _effective_length(effective: EffectiveLength | None) -> TableValue:
    if effective is None:
        return TableValue()
    ends = [_tokens(end, effective.longest) for end in (effective.low, effective.high)]
    interval = "" if ends[0] == ends[1] else f"[{ends[0]}, {ends[1]}]"
    return TableValue(_tokens(effective.length, effective.longest), interval)


def _tokens(length: int, longest: int) -> str:
    """Return a length as text; of the longest that was run nobody knows where it would end."""
    if not length:
        return "none"
    return f"≥{length}" if length == longest else str(length)


def _tax(tax: ShortPromptTax | None, unit: str) -> TableValue:
    if tax is None:
        return TableValue()
    interval = "" if math.isnan(tax.low) else f"[{tax.low:+.1f}, {tax.high:+.1f}]"
    return TableValue(f"{tax.difference:+.1f} {unit}", interval)


def _costs(costs: Costs) -> list[TableValue]:
    ratios = (costs.prompt, costs.token, costs.memory)
    return [TableValue("-" if ratio is None else f"{ratio:.2f}") for ratio in ratios]


def _lines(summary: ModelSummary, found: Recommendation) -> Iterator[str]:
    if found.method is None:
        yield f"no method is recommended: {found.reason}"
    else:
        yield f"recommended: {found.method}: {found.reason}"
    if found.not_told_apart:
        yield f"cannot be told apart from it by scores: {', '.join(found.not_told_apart)}"
    taxed = [one.method for one in summary.methods if one.has_shown_tax]
    if taxed:
        yield f"shown to lose on prompts that fit the window: {', '.join(taxed)}"
    if summary.stopping:
        yield (
            f"{summary.stopping}: what is shown here takes the number of samples as fixed before, "
            "and is too easily shown"
        )
    if summary.left_out:
        yield (
            f"left out, not run in full at {summary.length} tokens: {', '.join(summary.left_out)}"
        )
