"""Split of the difference between two scores into samples, prompt, answer and scorer.

The first result's score becomes the second's in steps. First both are reduced to the samples that
they share (part "samples"). Then the second result's answers replace the first's, for samples with
other prompts (part "prompt"), with the same prompt ("answer"), and for those whose prompts are not
known ("prompt or answer"); and its scorer replaces the first's ("scorer"). What such a step changes
depends on those before it, so a part is its mean over all orders of steps (the Shapley value): the
parts always sum to the difference. Orders that need a score which cannot be computed, such as one
by a harness that only stores scores, are left out.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations
from statistics import fmean

from lampe_eval.comparison.compared_results import ComparedSample
from lampe_eval.comparison.sample_pairs import SamplePair
from lampe_eval.comparison.scorers import Scorer, scored_row
from lampe_eval.records import SampleRecord
from lampe_eval.scoring.estimates import Estimate
from lampe_eval.scoring.reported_scores import (
    NO_SCORE,
    ReportedScore,
    mean_score,
    reported_score,
)

SAMPLES, SCORER = "samples", "scorer"
PROMPT_PARTS: Mapping[bool | None, str] = {
    False: "prompt",
    True: "answer",
    None: "prompt or answer",
}
"""Part of a sample's answer, by whether both results have the same prompt."""
PARTS = (SAMPLES, *PROMPT_PARTS.values(), SCORER)

Rows = Sequence[SampleRecord]


@dataclass(frozen=True)
class ScoreSplit:
    """Difference between two scores, split into parts.

    Attributes:
        first: score of the first result by its own scorer, over all its samples.
        second: score of the second result by its own scorer.
        crossed: scores of the shared samples by result and scorer, `NO_SCORE` where there is none.
        parts: parts of the difference by their names; empty where it cannot be split.
    """

    first: ReportedScore
    second: ReportedScore
    crossed: Mapping[tuple[str, str], ReportedScore]
    parts: Mapping[str, float]

    @property
    def difference(self) -> float:
        """Return the first score minus the second."""
        return self.first.value - self.second.value


class SharedSamples:
    """Shared samples of two results, scored by the scorers of both.

    Args:
        pairs: samples of one task that both results have.
        first: scorer of the first result.
        second: scorer of the second result.
    """

    def __init__(self, pairs: Sequence[SamplePair], first: Scorer, second: Scorer) -> None:
        self.pairs = pairs
        self.scorers = first, second
        self.kinds = [PROMPT_PARTS[pair.same_prompt] for pair in pairs]
        self._scored: dict[tuple[str, int], SampleRecord | None] = {}
        self._rows: dict[tuple[int, int], Rows | None] = {}
        sides = [pair.first for pair in pairs], [pair.second for pair in pairs]
        for scorer_index, scorer in enumerate(self.scorers):
            for side, samples in enumerate(sides):
                self._rows[side, scorer_index] = self.rows_by(scorer, samples)

    def rows_by(self, scorer: Scorer, samples: Sequence[ComparedSample]) -> Rows | None:
        """Return samples with their scores by a scorer; None unless it can score all of them."""
        rows: list[SampleRecord] = []
        for sample in samples:
            # By identity: the samples of both results live as long as this.
            key = (scorer.name, id(sample))
            if key not in self._scored:
                self._scored[key] = scored_row(scorer, sample.row, sample.stored)
            row = self._scored[key]
            if row is None:
                return None
            rows.append(row)
        return rows

    def estimate(self, side: int, scorer: int) -> Estimate | None:
        """Return one result's score of the shared samples by a scorer; None where it cannot."""
        rows = self._rows[side, scorer]
        return self.scorers[scorer].estimate(rows) if rows else None

    def common_scorer(self) -> int | None:
        """Return which scorer scores both results, the first one if both do; None if none."""
        for scorer in (0, 1):
            if self._rows[0, scorer] and self._rows[1, scorer]:
                return scorer
        return None

    def steps(self) -> list[str]:
        """Return the parts in which the results differ."""
        steps = list(dict.fromkeys(self.kinds))
        same = self.scorers[0].name == self.scorers[1].name
        return steps if same else [*steps, SCORER]

    def value(self, done: frozenset[str]) -> float:
        """Return the score after the steps that are done; NaN where it cannot be computed."""
        scorer = int(SCORER in done)
        sides = [int(kind in done) for kind in self.kinds]
        rows: list[SampleRecord] = []
        for place, side in enumerate(sides):
            scored = self._rows[side, scorer]
            if scored is None:
                return math.nan
            rows.append(scored[place])
        return self.scorers[scorer].estimate(rows).value


def split_scores(
    shared: SharedSamples, first: Sequence[ComparedSample], second: Sequence[ComparedSample]
) -> ScoreSplit:
    """Return the scores of two results of a task, and the split of their difference.

    Args:
        shared: the samples that both have.
        first: all samples of the first result.
        second: all samples of the second result.
    """
    whole: list[ReportedScore] = []
    for scorer, samples in zip(shared.scorers, (first, second), strict=True):
        rows = shared.rows_by(scorer, samples)
        whole.append(reported_score(scorer.estimate(rows)) if rows else NO_SCORE)
    steps = shared.steps()
    parts = _mean_steps(shared, steps)
    if parts:
        own = shared.value(frozenset()), shared.value(frozenset(steps))
        unshared = (whole[0].value - own[0]) - (whole[1].value - own[1])
        parts = {SAMPLES: unshared, **parts}
    crossed: dict[tuple[str, str], ReportedScore] = {}
    for side, result in enumerate(("A", "B")):
        for scorer_index, scorer in enumerate(shared.scorers):
            estimate = shared.estimate(side, scorer_index)
            crossed[result, scorer.name] = reported_score(estimate) if estimate else NO_SCORE
    return ScoreSplit(whole[0], whole[1], crossed, parts)


def mean_split(splits: Sequence[ScoreSplit]) -> ScoreSplit:
    """Return the means of the scores of several tasks, and of the parts of their differences."""
    parts: dict[str, float] = {}
    if all(split.parts for split in splits):
        for name in PARTS:
            if any(name in split.parts for split in splits):
                parts[name] = fmean(split.parts.get(name, 0.0) for split in splits)
    first = mean_score([split.first for split in splits])
    return ScoreSplit(first, mean_score([split.second for split in splits]), {}, parts)


def _mean_steps(shared: SharedSamples, steps: Sequence[str]) -> dict[str, float]:
    """Return the mean change of each step over all orders that can be computed."""
    values: dict[frozenset[str], float] = {}
    changes: dict[str, list[float]] = {step: [] for step in steps}
    for order in permutations(steps):
        states = [frozenset(order[:count]) for count in range(len(order) + 1)]
        for state in states:
            if state not in values:
                values[state] = shared.value(state)
        if all(math.isfinite(values[state]) for state in states):
            for step, before, after in zip(order, states, states[1:], strict=False):
                changes[step].append(values[before] - values[after])
    if not all(changes.values()):
        return {}
    return {step: math.fsum(found) / len(found) for step, found in changes.items()}
