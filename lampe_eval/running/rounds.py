"""Rounds of a run that stops by rule: every method gets the next few samples, then the rule looks.

The samples of a task come in a random order that depends on the seed alone. Which cells stop after
a round depends on the scores of the samples so far in that order, and on nothing else: a run that
was interrupted stops where it would have stopped, in whatever order replicas finish.

A decision takes as many samples of every task. Once the task with the fewest has none left, further
samples of the others could decide nothing, so none are run.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby

from lampe_eval.benches import BENCHES
from lampe_eval.benches.bench import Sample
from lampe_eval.errors import UserError
from lampe_eval.records import RunConfiguration
from lampe_eval.results.decisions import (
    ScoresById,
    alpha_of_comparison,
    has_independent_tasks,
    is_precise,
    observed_differences,
    pairs_by_task,
    seeded_order,
    verdict,
)
from lampe_eval.running.remaining import SampleGroup
from lampe_eval.store import Cell

ROUND = 5
"""Samples of a cell between two looks. A look costs little, but methods change once a round."""
DrawnGroup = tuple[SampleGroup, Sequence[Sample]]
"""Group of cells with its samples, in the order in which rounds take them."""


def groups_by_round(
    groups: Sequence[SampleGroup], config: RunConfiguration
) -> list[list[SampleGroup]]:
    """Return the groups that share their rounds, in the order of the groups.

    Cells that stop by their own precision share them within a task and length; decisions are about
    the tasks of a benchmark at a length.
    """
    if "precision" in config["stopping"]:
        return [[group] for group in groups]
    by_bench = sorted(groups, key=lambda group: (-group.length, group.task.bench))
    together = groupby(by_bench, key=lambda group: (group.length, group.task.bench))
    return [list(of_bench) for _, of_bench in together]


def in_random_order(samples: Sequence[Sample], seed: int) -> list[Sample]:
    """Return samples in the order in which rounds take them."""
    by_id = {sample.id: sample for sample in samples}
    return [by_id[name] for name in seeded_order(by_id, seed)]


class Rounds:
    """Rounds of cells that are looked at together.

    Args:
        config: configuration of the run, with its stopping rule.
        drawn: groups with their samples.

    Attributes:
        used: by cell, the samples that it has used so far and the most that it may have.
        stopped: the same of the cells that the rule has ended.
    """

    def __init__(self, config: RunConfiguration, drawn: Sequence[DrawnGroup]) -> None:
        self._config = config
        self._drawn = drawn
        self.used: dict[Cell, tuple[int, int]] = {}
        self.stopped: dict[Cell, tuple[int, int]] = {}

    def __iter__(self) -> Iterator[list[tuple[SampleGroup, Cell, Sequence[Sample]]]]:
        """Yield the samples of each round by cell, until all have stopped or one runs out."""
        most = min((len(samples) for _, samples in self._drawn), default=0)
        for begin in range(0, most, ROUND):
            taken: list[tuple[SampleGroup, Cell, Sequence[Sample]]] = []
            for group, samples in self._drawn:
                end = min(begin + ROUND, most)
                going_on = [cell for cell in group.cells if cell not in self.stopped]
                taken += [(group, cell, samples[begin:end]) for cell in going_on]
                self.used |= dict.fromkeys(going_on, (end, len(samples)))
            if not taken:
                return
            yield taken

    def look(self, scores: Mapping[Cell, ScoresById]) -> None:
        """Stop the cells that the rule ends after the rounds so far.

        Args:
            scores: scores of stored samples, also of later rounds.

        Raises:
            UserError: for a score that is not from 0 to 1.
        """
        seen: dict[Cell, ScoresById] = {}
        for group, samples in self._drawn:
            for cell in group.cells:
                if cell in self.stopped:
                    continue
                ids = [sample.id for sample in samples[: self.used[cell][0]]]
                seen[cell] = {name: scores[cell][name] for name in ids if name in scores[cell]}
                _refuse_scores_beyond_bounds(cell, seen[cell])
        self.stopped |= {cell: self.used[cell] for cell in self._ended(seen)}

    def _ended(self, seen: Mapping[Cell, ScoresById]) -> list[Cell]:
        """Return the cells that the rule ends, given the scores of those that go on."""
        rule = self._config["stopping"]
        if "precision" in rule:
            return [cell for cell, scores in seen.items() if is_precise(scores, rule["precision"])]
        reference = rule["reference"]
        methods = {cell.method for cell in seen} - {reference}
        decided = {method for method in methods if self._is_decided(seen, method)}
        # The reference is needed until the last method is decided.
        if decided == methods:
            decided.add(reference)
        return [cell for cell in seen if cell.method in decided]

    def _is_decided(self, seen: Mapping[Cell, ScoresById], method: str) -> bool:
        rule = self._config["stopping"]
        differences = observed_differences(
            pairs_by_task(seen, method, rule["reference"]),
            self._config["seed"],
            independent_tasks=has_independent_tasks(self._config, next(iter(seen)).bench),
        )
        alpha = alpha_of_comparison(self._config)
        return verdict(differences, rule["margin"] / 100, alpha) != "undecided"


def _refuse_scores_beyond_bounds(cell: Cell, scores: ScoresById) -> None:
    """Refuse a benchmark from outside whose scores the rule cannot hold for."""
    for name, score in scores.items():
        if not 0 <= score <= 1:
            raise UserError(
                f"{BENCHES[cell.bench].name}: sample {name} has the score {score:g}; --precision "
                "and --decide need scores from 0 to 1, so run this benchmark without them"
            )
