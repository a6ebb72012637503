"""Results of one or more runs together, from which tables, pictures and pages are made."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from lampe_eval.errors import UserError
from lampe_eval.folder_lock import current_writer
from lampe_eval.method_specs import find_reference
from lampe_eval.plugins import warn_of_changed_plugins
from lampe_eval.records import SampleRecord
from lampe_eval.results.cell_scores import ScoredRun, score_details, score_run
from lampe_eval.results.decisions import decisions
from lampe_eval.results.method_differences import (
    ComparableCells,
    comparable_cells,
    method_differences,
)
from lampe_eval.results.paired_tests import CellSamples
from lampe_eval.results.setting_differences import setting_differences
from lampe_eval.store import Cell, Store


@dataclass(frozen=True)
class GatheredRuns:
    """Runs by name, and their tidy tables.

    Attributes:
        runs: runs by the names of their folders.
        scores: a row per cell, with the columns `run`, `settings` (in which the runs differ), and
            those of `cell_scores.ScoredRun.scores`.
        details: further numbers and averages, with the columns `run` and
            `cell_scores.DETAIL_COLUMNS`.
        cell_samples: by run and cell, what the samples contribute to its score.
        rows: by run and cell, its stored samples, scored again.
        writing: by run, a line that says who is still writing it.
        left_out: a line for each folder that has nothing to show, and for samples that
            belong to no cell, or another one.
        reference: label of the method that others are compared with; None for the default.
    """

    runs: Mapping[str, Store]
    scores: pd.DataFrame
    details: pd.DataFrame
    cell_samples: Mapping[tuple[str, Cell], CellSamples]
    rows: Mapping[tuple[str, Cell], Sequence[SampleRecord]]
    writing: Mapping[str, str] = field(default_factory=dict)
    left_out: Sequence[str] = ()
    reference: str | None = None

    @cached_property
    def comparable(self) -> Mapping[tuple[Any, ...], ComparableCells]:
        """Return cells that may be compared, by their values of `ranking.COMPARABLE`."""
        return comparable_cells(self.labelled(self.scores), self.cell_samples)

    @cached_property
    def pairs(self) -> pd.DataFrame:
        """Return the differences from the reference, as `method_differences` makes them."""
        return method_differences(self.labelled(self.scores), self.comparable, self.reference)

    @cached_property
    def decisions(self) -> pd.DataFrame:
        """Return what the runs have decided, with `decisions.DECISION_COLUMNS`."""
        found: list[pd.DataFrame] = []
        for run, store in self.runs.items():
            rows = {cell: self.rows[run, cell] for cell in store.cells()}
            found.append(_with_run(decisions(store, rows), run))
        return pd.concat(found, ignore_index=True)

    @property
    def has_several_runs(self) -> bool:
        """Return whether there is more than one run, so that a table may have a method twice."""
        return len(self.runs) > 1

    def labelled(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Return the frame with a column `label`: the method, and its run if there are several."""
        if self.has_several_runs:
            return frame.assign(label=frame["method"] + " · " + frame["run"])
        return frame.assign(label=frame["method"])

    def tidy(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Return the frame as it is written: a single run needs no columns that tell runs apart."""
        if self.has_several_runs:
            return frame
        return frame.drop(columns=["run", "settings"], errors="ignore")


def gather_runs(
    folders: Sequence[Path], *, skip_damaged: bool = False, reference: str | None = None
) -> GatheredRuns:
    """Read runs, and score their stored samples again.

    Args:
        folders: folders of runs.
        skip_damaged: whether a run that cannot be read is left out, rather than an error.
        reference: method that others are compared with; by default what the first run states.

    Raises:
        UserError: if a folder is no run or is damaged, if none of them has a stored sample, or if
            the reference is none of their methods.
    """
    scored, left_out = _scored_runs(folders, skip_damaged=skip_damaged)
    if not scored:
        raise UserError(f"{'; '.join(left_out)}; see run.log there for how far it got")
    runs = {name: store for name, (store, _) in scored.items()}
    scores: list[pd.DataFrame] = []
    details: list[pd.DataFrame] = []
    cell_samples: dict[tuple[str, Cell], CellSamples] = {}
    rows: dict[tuple[str, Cell], Sequence[SampleRecord]] = {}
    for name, (store, scored_run) in scored.items():
        warn_of_changed_plugins(store.config, store.folder)
        scores.append(_with_run(scored_run.scores, name))
        details.append(_with_run(score_details(scored_run.scores, store), name))
        cell_samples |= {(name, cell): item for cell, item in scored_run.cell_samples.items()}
        rows |= {(name, cell): item for cell, item in scored_run.rows.items()}
        left_out += scored_run.left_out
    all_scores = pd.concat(scores, ignore_index=True)
    all_scores.insert(1, "settings", setting_differences(runs, all_scores))
    return GatheredRuns(
        runs,
        all_scores,
        pd.concat(details, ignore_index=True),
        cell_samples,
        rows,
        _writing(runs),
        [f"left out: {line}" for line in left_out],
        _reference(reference, runs),
    )


def _scored_runs(
    folders: Sequence[Path], *, skip_damaged: bool
) -> tuple[dict[str, tuple[Store, ScoredRun]], list[str]]:
    """Return the runs with stored samples by name, and a line on each of the other folders.

    A run that has just begun must not hide the results of the others.

    Raises:
        UserError: for a damaged run, unless these are left out.
    """
    scored: list[tuple[Store, ScoredRun]] = []
    left_out: list[str] = []
    # A folder that is given twice, perhaps by another path, is one run.
    for folder in {folder.resolve(): folder for folder in folders}.values():
        try:
            store = Store(folder)
            scored_run = _score(store)
        except UserError as error:
            if not skip_damaged:
                raise
            # Its message names a file of the run, but an unknown benchmark stands in several.
            left_out.append(str(error) if str(folder) in str(error) else f"{folder}: {error}")
            continue
        if any(scored_run.rows.values()):
            scored.append((store, scored_run))
        else:
            left_out += [f"{store.folder}: no sample is stored yet", *scored_run.left_out]
    names = _names([store.folder for store, _ in scored])
    return dict(zip(names, scored, strict=True)), left_out


def _reference(stated: str | None, runs: Mapping[str, Store]) -> str | None:
    """Return the label of the reference: the stated one, else that of the first run with one."""
    if stated is None:
        recorded = [store.reference for store in runs.values() if store.reference]
        return recorded[0] if recorded else None
    labels: dict[str, None] = {}
    for store in runs.values():
        labels |= dict.fromkeys(store.config["methods"])
    return find_reference(stated, labels)


def _score(store: Store) -> ScoredRun:
    """Score a run; refuse samples whose cells are unknown."""
    if not store.cells() and any(store.folder.glob("samples/**/*.jsonl")):
        raise UserError(
            f"{store.folder / 'cells.jsonl'}: missing; run the same command again to write it"
        )
    return score_run(store)


def _with_run(frame: pd.DataFrame, run: str) -> pd.DataFrame:
    frame = frame.copy()
    frame.insert(0, "run", run)
    return frame


def _writing(runs: Mapping[str, Store]) -> dict[str, str]:
    lines: dict[str, str] = {}
    for name, store in runs.items():
        writer = current_writer(store.folder)
        if writer:
            lines[name] = f"{name} is still being written: {writer}"
    return lines


def _names(folders: Sequence[Path]) -> list[str]:
    """Return the folders' own names, or their whole paths where two names are equal."""
    names = [folder.resolve().name for folder in folders]
    if len(set(names)) == len(names):
        return names
    return [str(folder) for folder in folders]
