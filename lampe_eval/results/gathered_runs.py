"""What runs have found, together: the one thing that tables, pictures and pages are made of."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import pandas as pd

from lampe_eval.errors import UserError
from lampe_eval.plugins import warn_of_changed_plugins
from lampe_eval.results.cell_scores import score_details, scores_and_cell_samples
from lampe_eval.results.method_differences import method_differences
from lampe_eval.results.paired_tests import CellSamples
from lampe_eval.results.setting_differences import setting_differences
from lampe_eval.store import Cell, Store, current_writer


@dataclass(frozen=True)
class GatheredRuns:
    """Runs by name, and their tidy tables.

    Attributes:
        runs: named after their folders.
        scores: a row per cell, columns ``run``, ``settings`` in which the runs differ, ``report.scores.COLUMNS`` and
            ``details`` and ``counts``.
        details: further numbers and averages, columns ``run`` and ``report.scores.DETAILS``.
        sampled: by run and cell, what methods are compared by.
        writing: of runs that go on while they are read, a line that says so.
        left_out: a line for each folder that has nothing to show.
    """

    runs: Mapping[str, Store]
    scores: pd.DataFrame
    details: pd.DataFrame
    sampled: Mapping[tuple[str, Cell], CellSamples]
    writing: Mapping[str, str] = field(default_factory=dict)
    left_out: Sequence[str] = ()

    @cached_property
    def pairs(self) -> pd.DataFrame:
        """A row for every two methods in the same cell, of whichever runs: columns ``report.differences.COLUMNS``."""
        return method_differences(self.labelled(self.scores), self.sampled)

    @property
    def several(self) -> bool:
        """Whether there is more than one run, and so a method may be in a table twice."""
        return len(self.runs) > 1

    def labelled(self, frame: pd.DataFrame) -> pd.DataFrame:
        """The frame with a column ``label``: the method, and where there are several runs, whose."""
        return frame.assign(
            label=frame["method"] + " · " + frame["run"] if self.several else frame["method"]
        )

    def tidy(self, frame: pd.DataFrame) -> pd.DataFrame:
        """The frame as it is written: of one run without its name, and without settings in which no other differs."""
        return frame if self.several else frame.drop(columns=["run", "settings"], errors="ignore")


def gather_runs(folders: Sequence[Path]) -> GatheredRuns:
    """Reads runs, and scores what they stored anew.

    Raises:
        UserError: for a folder that holds no run, and a damaged one; where no sample is stored in any.
    """
    stores = [Store(folder) for folder in folders]
    begun = [store for store in stores if _has_samples(store)]
    empty = [f"{store.folder}: no sample is stored yet" for store in stores if store not in begun]
    if not begun:
        raise UserError(f"{'; '.join(empty)}; run.log there tells how far it got")
    for store in begun:
        warn_of_changed_plugins(store.config, store.folder)
    runs = dict(zip(_names([store.folder for store in begun]), begun, strict=True))
    writing = {
        name: f"{name} is still being written: {who}" for name, who in _writers(runs).items()
    }
    scores: list[pd.DataFrame] = []
    further: list[pd.DataFrame] = []
    sampled: dict[tuple[str, Cell], CellSamples] = {}
    for name, store in runs.items():
        frame, cells = scores_and_cell_samples(store)
        for kind, found in ((scores, frame), (further, score_details(frame, store))):
            found.insert(0, "run", name)
            kind.append(found)
        sampled |= {(name, cell): found for cell, found in cells.items()}
    together = pd.concat(scores, ignore_index=True)
    together.insert(1, "settings", setting_differences(runs, together))
    left_out = [f"left out: {line}" for line in empty]
    return GatheredRuns(
        runs, together, pd.concat(further, ignore_index=True), sampled, writing, left_out
    )


def _has_samples(store: Store) -> bool:
    """Whether a sample of a cell is stored; refuses samples of which nothing says what cells they belong to."""
    cells = store.cells()
    if not cells and any(store.folder.glob("samples/**/*.jsonl")):
        raise UserError(
            f"{store.folder / 'cells.jsonl'}: missing; the same command again writes it anew"
        )
    return any(store.rows(cell) for cell in cells)


def _writers(runs: Mapping[str, Store]) -> dict[str, str]:
    found = {name: current_writer(store.folder) for name, store in runs.items()}
    return {name: who for name, who in found.items() if who}


def _names(folders: Sequence[Path]) -> list[str]:
    """The folders' own names, or where two are alike, their whole paths."""
    names = [folder.resolve().name for folder in folders]
    return names if len(set(names)) == len(names) else [str(folder) for folder in folders]
