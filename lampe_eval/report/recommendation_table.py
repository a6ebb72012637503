"""Table of what a run says of each method, and the sentences that recommend one."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

from lampe_eval.report.table_model import (
    ResultTable,
    TableValue,
    difference_text,
    interval_text,
    number_text,
)
from lampe_eval.results.costs import Costs, Ratio
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
    f"effective length: the longest length up to which a method keeps {100 * SHARE:.0f} % of its "
    "own score on short prompts, with an interval",
    "short prompts: method minus original where the prompt fits the window, in points or % of the "
    "score",
    "prompt, token, memory: cost relative to original, median over the same samples with its 95 % "
    "interval (from the least to the largest for fewer than 6)",
    "front: no other method is as good in every column and better in one",
]


AGAIN_NOTE = (
    "again: the score is kept there too, but it is lost at a shorter length, so that does not count"
)


@dataclass(frozen=True)
class RecommendationTable:
    """Recommendation as text.

    Attributes:
        table: a row for each method.
        lines: the recommendation and what is to be known of it.
        source: run and label there of the recommended method; None where there is none.
        length: length in tokens that it is recommended for.
        model: name of the model.
    """

    table: ResultTable
    lines: Sequence[str]
    source: tuple[str, str] | None
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
        rows = [(one.method, _values(one, summary, found)) for one in summary.methods]
        has_again = any(value.mark for value in chain.from_iterable(values for _, values in rows))
        table = ResultTable(
            f"which method · {summary.model} · {summary.length} tokens",
            ["method", *_titles(summary)],
            rows,
            [*NOTES, AGAIN_NOTE] if has_again else NOTES,
        )
        lines = list(_lines(summary, found))
        source = summary.sources[found.method] if found.method else None
        yield RecommendationTable(table, lines, source, summary.length, summary.model)


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
    for bench, scale in summary.scales.items():
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
        values.append(_tax(of_bench.tax, "points" if scale == "percent" else "%"))
    on_front = TableValue("yes" if one.method in found.front else "no")
    return [*values, *_costs(one.costs), on_front]


def _has_absolute(summary: ModelSummary, bench: str) -> bool:
    return any(one.benches[bench].absolute for one in summary.methods)


def _effective_length(effective: EffectiveLength | None) -> TableValue:
    if effective is None:
        return TableValue()
    ends = [_tokens(end, effective.longest) for end in (effective.low, effective.high)]
    interval = "" if ends[0] == ends[1] else f"[{ends[0]}, {ends[1]}]"
    again = f"again at {effective.again}" if effective.again else ""
    return TableValue(_tokens(effective.length, effective.longest), interval, again)


def _tokens(length: int, longest: int) -> str:
    """Return a length as text; of the longest that was run nobody knows where it would end."""
    if not length:
        return "none"
    return f"≥{length}" if length == longest else str(length)


def _tax(tax: ShortPromptTax | None, unit: str) -> TableValue:
    if tax is None:
        return TableValue()
    text, interval = difference_text(tax.difference, tax.low, tax.high)
    return TableValue(f"{text} {unit}" if text else "-", interval)


def _costs(costs: Costs) -> list[TableValue]:
    return [_ratio(ratio) for ratio in (costs.prompt, costs.token, costs.memory)]


def _ratio(ratio: Ratio | None) -> TableValue:
    if ratio is None:
        return TableValue()
    ends = f"[{ratio.low:.2f}, {ratio.high:.2f}]"
    # what is compared with itself, and memory that is alike
    is_exact = f"{ratio.low:.2f}" == f"{ratio.high:.2f}"
    return TableValue(f"{ratio.value:.2f}", "" if is_exact else ends)


def _lines(summary: ModelSummary, found: Recommendation) -> Iterator[str]:
    if found.method is None:
        yield f"no method is recommended: {found.reason}"
    else:
        yield f"recommended: {found.method}: {found.reason}"
        (chosen,) = (one for one in summary.methods if one.method == found.method)
        for bench, of_bench in chosen.benches.items():
            effective = of_bench.effective
            if effective and effective.length < summary.length:
                yield (
                    f"even {found.method} loses its own score in {bench} before "
                    f"{summary.length} tokens: its effective length is {effective.length}"
                )
    if found.not_told_apart:
        yield (
            f"cannot be told apart from it by scores: {', '.join(found.not_told_apart)}; "
            "more samples may tell"
        )
    taxed = [one.method for one in summary.methods if one.has_shown_tax]
    if taxed:
        yield f"shown to lose on prompts that fit the window: {', '.join(taxed)}"
    yield from summary.remarks
