"""Pictures of runs: a panel for each method, legible in grey; the same runs give the same bytes."""

import io
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib import rc_context
from matplotlib.figure import Figure

from lampe_eval.report.pictures import recall_by_depth, scores_by_length, scores_by_task
from lampe_eval.report.table_model import ALIKE, by_task
from lampe_eval.report.tables import save_file
from lampe_eval.results.gathered_runs import GatheredRuns

STYLE: dict[Any, Any] = {
    "font.size": 8,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "axes.titlesize": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "figure.titlesize": 9,
    "figure.labelsize": 8,
    "pdf.fonttype": 42,  # letters, not shapes: conferences ask for it
    "svg.hashsalt": "lampe-eval",
    "text.parse_math": False,  # a name may hold dollars
}
FORMATS: dict[str, dict[str, Any]] = {
    "png": {"dpi": 200, "metadata": {"Software": None}},
    "svg": {"metadata": {"Date": None}},
    "pdf": {"metadata": {"CreationDate": None}},
}

Drawing = tuple[str, Callable[[pd.DataFrame], Figure], pd.DataFrame]


def pictures(gathered: GatheredRuns) -> dict[str, Figure]:
    """The pictures of runs by name, which says what is drawn of what."""
    scores = gathered.labelled(gathered.scores)
    varying = [column for column in ("model", "window", "protocol") if scores[column].nunique() > 1]
    with rc_context(STYLE):
        return {
            ", ".join([name, *_told(rows.iloc[0], varying)]): draw(rows)
            for name, draw, rows in _drawings(scores)
        }


def _told(row: pd.Series, varying: list[str]) -> list[str]:
    """What tells a picture's rows from another's."""
    return [
        *(f"{column} {row[column]}" for column in varying),
        *([row["settings"]] if row["settings"] else []),
    ]


def svg(figure: Figure) -> str:
    """A picture as SVG, from ``<svg`` on: what a page can hold as it is."""
    text = _rendered(figure, "svg").decode()
    return text[text.index("<svg") :]


def write(pictures: Mapping[str, Figure], folder: Path) -> list[Path]:
    """Writes pictures in every format; returns the files.

    Raises:
        UserError: where the folder cannot be written.
    """
    found = []
    for name, figure in pictures.items():
        stem = re.sub(r"[^a-z0-9.]+", "-", name.lower()).strip("-")
        for kind in FORMATS:
            found.append(folder / f"{stem}.{kind}")
            save_file(found[-1], _rendered(figure, kind))
    return found


def _rendered(figure: Figure, kind: str) -> bytes:
    target = io.BytesIO()
    with rc_context(STYLE):
        figure.savefig(target, format=kind, **FORMATS[kind])
    return target.getvalue()


def _drawings(scores: pd.DataFrame) -> Iterator[Drawing]:
    """What there is to draw: score against length, or at one length against the task; needles against their depth."""
    for (*_, bench), rows in scores.groupby(ALIKE, sort=False):
        if by_task(rows):
            yield f"{bench} by task", scores_by_task.draw, rows
        for task, of_task in rows.groupby("task", sort=False):
            if of_task["length"].nunique() > 1:
                yield f"{bench}/{task} by length", scores_by_length.draw, of_task
            if recall_by_depth.has_depths(of_task):
                yield f"{bench}/{task} by depth", recall_by_depth.draw, of_task
