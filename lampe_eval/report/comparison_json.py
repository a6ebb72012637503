"""Comparison of two results as JSON, with all that the report on it says.

A score is an object with `value` and the ends of its 95 % interval; what is unknown is null.
"""

import math
from collections.abc import Mapping
from typing import Any

from lampe_eval.comparison.compared_results import ComparedResult
from lampe_eval.comparison.result_comparison import (
    ComparedGroup,
    ComparedMean,
    PairedTestResult,
    PromptDifference,
    ResultComparison,
)
from lampe_eval.comparison.score_split import ScoreSplit
from lampe_eval.comparison.setting_lines import NOT_STATED, SettingLine
from lampe_eval.scoring.reported_scores import ReportedScore


def comparison_record(comparison: ResultComparison) -> dict[str, Any]:
    """Return a comparison as values of JSON."""
    return {
        "a": _result(comparison.first),
        "b": _result(comparison.second),
        "pairs": _pairs(comparison),
        "settings": [_setting(line) for line in comparison.settings],
        "tasks": [_group(group) for group in comparison.groups],
        "means": [_mean(mean) for mean in comparison.means],
        "first_prompt_difference": _prompt_difference(comparison.prompt),
    }


def _result(result: ComparedResult) -> dict[str, Any]:
    return {"name": result.name, "kind": result.kind, "samples": len(result.samples)}


def _pairs(comparison: ResultComparison) -> dict[str, Any]:
    same = [pair.same_prompt for pair in comparison.pairs]
    return {
        "count": len(same),
        "by": comparison.paired_by,
        "same_prompt": same.count(True),
        "different_prompt": same.count(False),
        "unknown_prompt": same.count(None),
    }


def _setting(line: SettingLine) -> dict[str, Any]:
    values = [None if value == NOT_STATED else value for value in (line.first, line.second)]
    return {"name": line.name, "a": values[0], "b": values[1], "differs": line.differs}


def _group(group: ComparedGroup) -> dict[str, Any]:
    return {
        "setup": group.setup or None,
        "task": group.task,
        "length": group.length,
        "samples": {"a": group.counts[0], "b": group.counts[1], "shared": len(group.pairs)},
        **_split(group.split),
        "shared_scores": _shared_scores(group.split.crossed),
        "paired_test": _test(group.test),
    }


def _mean(mean: ComparedMean) -> dict[str, Any]:
    place = {"setup": mean.setup or None, "bench": mean.bench, "length": mean.length}
    return {**place, "tasks": mean.tasks, **_split(mean.split)}


def _split(split: ScoreSplit) -> dict[str, Any]:
    return {
        "a": _score(split.first),
        "b": _score(split.second),
        "difference": split.difference,
        "parts": dict(split.parts) or None,
    }


def _shared_scores(crossed: Mapping[tuple[str, str], ReportedScore]) -> dict[str, Any]:
    """Return the scores of the shared samples by scorer and result."""
    scores: dict[str, dict[str, Any]] = {}
    for (result, scorer), score in crossed.items():
        scores.setdefault(scorer, {})[result.lower()] = _score(score)
    return scores


def _score(score: ReportedScore) -> dict[str, float] | None:
    if math.isnan(score.value):
        return None
    return {"value": score.value, "ci_low": score.interval.low, "ci_high": score.interval.high}


def _test(test: PairedTestResult | None) -> dict[str, Any] | None:
    if test is None:
        return None
    low, high = test.interval or (None, None)
    return {
        "samples": test.n,
        "same_prompts": test.same_prompts,
        "scorer": test.scorer,
        "difference": test.difference,
        "ci_low": low,
        "ci_high": high,
        "p_value": test.p_value,
    }


def _prompt_difference(difference: PromptDifference | None) -> dict[str, Any] | None:
    if difference is None:
        return None
    text = difference.text
    return {
        "task": difference.pair.first.task,
        "length": difference.pair.first.length,
        "sample": difference.sample_name,
        "where": text.where if text else None,
        "a": text.first if text else None,
        "b": text.second if text else None,
        "column": text.column if text else None,
    }
