"""Scorers of results: a benchmark's own, a harness' own, and scores that were stored."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

from lampe_eval.benches import BENCHES
from lampe_eval.benches.bench import Task
from lampe_eval.prompts.protocol import Protocol
from lampe_eval.records import SampleRecord
from lampe_eval.scoring.estimates import Estimate
from lampe_eval.scoring.harness_files import OWN_SCORERS, Family, HarnessRow
from lampe_eval.scoring.prediction_lines import Prediction


class Scorer(ABC):
    """Scorer of a task's samples.

    Attributes:
        name: name in words; scorers of one name are the same.
    """

    name: str

    @abstractmethod
    def score(self, row: SampleRecord, stored: Mapping[str, float]) -> float | None:
        """Return the score of a sample from 0 to 1; None where it cannot be scored.

        Args:
            row: prediction, references and extras.
            stored: scores that the sample's own harness stored.
        """

    def estimate(self, rows: Sequence[SampleRecord]) -> Estimate:
        """Return the number of samples that have their score, in the unit of tables."""
        return Estimate.mean([100 * row["score"] for row in rows])


@dataclass(frozen=True)
class BenchScorer(Scorer):
    """Scorer of a benchmark, to the digit of upstream's code.

    Attributes:
        task: the task.
        protocol: protocol that chooses the scorer, for benchmarks with two.
    """

    task: Task
    protocol: Protocol

    @property
    def name(self) -> str:  # type: ignore[override]
        """Return the name of the benchmark, and of the scorer where it is not the official one."""
        bench = self.task.bench.removesuffix("-e")
        variant = "" if self.protocol.scorer == "official" else f" as {self.protocol.scorer}"
        return f"{bench}{variant} ({self.task.card.metric})"

    def score(self, row: SampleRecord, stored: Mapping[str, float]) -> float | None:
        bench = BENCHES[self.task.bench]
        if not bench.has_answers:
            # Perplexity is computed from losses alone, and its samples have no score.
            return 0.0 if "loss" in row or "metrics" in row else None
        # A harness' row may lack what this benchmark's scorer reads.
        try:
            return bench.score(self.task.name, row, self.protocol)
        except Exception:
            return None

    def estimate(self, rows: Sequence[SampleRecord]) -> Estimate:
        return BENCHES[self.task.bench].estimate(self.task, rows, self.protocol)


@dataclass(frozen=True)
class HarnessScorer(Scorer):
    """Scorer of kvpress or OpenCompass, which store no scores beside their rows.

    Attributes:
        family: name of the harness.
        bench: our name of the benchmark.
        task: our name of the task.
    """

    family: Family
    bench: str
    task: str

    @property
    def name(self) -> str:  # type: ignore[override]
        """Return the name of the harness and of the benchmark."""
        return f"{self.family}'s {self.bench}"

    def score(self, row: SampleRecord, stored: Mapping[str, float]) -> float | None:
        prediction = Prediction(row["prediction"], row["references"], row["extras"])
        harness_row = HarnessRow(self.task, "", prediction, self.bench, self.task)
        try:
            scores = OWN_SCORERS[self.family, self.bench]([harness_row])
        except Exception:
            return None
        return next(iter(scores.values())).value / 100


@dataclass(frozen=True)
class StoredScorer(Scorer):
    """Scores that a harness stored; it can score no other answers.

    Attributes:
        family: name of the harness.
        metric: name of the score.
    """

    family: str
    metric: str

    @property
    def name(self) -> str:  # type: ignore[override]
        """Return the name of the harness and of its metric."""
        return f"{self.family}'s {self.metric}, as stored"

    def score(self, row: SampleRecord, stored: Mapping[str, float]) -> float | None:
        return stored.get(self.name)


def scored_row(
    scorer: Scorer, row: SampleRecord, stored: Mapping[str, float]
) -> SampleRecord | None:
    """Return a sample with its score by a scorer; None where it cannot be scored."""
    score = scorer.score(row, stored)
    if score is None:
        return None
    return cast(SampleRecord, {**row, "score": score})
