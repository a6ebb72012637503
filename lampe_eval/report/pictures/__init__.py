"""Pictures of runs: a panel per method, legible in grey; the same runs give the same bytes."""

import io
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pandas as pd
from matplotlib import rc_context
from matplotlib.figure import Figure

from lampe_eval.file_io import shorten_name
from lampe_eval.report.pictures import recall_by_depth, scores_by_length, scores_by_task
from lampe_eval.results.gathered_runs import GatheredRuns
from lampe_eval.results.ranking import COMPARABLE, has_many_tasks_at_one_length

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
    "svg.hashsalt": "lampe-eval",  # fixed, so that ids in the SVG are the same every time
    "text.parse_math": False,  # a name may hold dollars
}
# Without dates and versions, so that the same runs give the same bytes.
FORMATS: dict[str, dict[str, Any]] = {
    "png": {"dpi": 200, "metadata": {"Software": None}},
    "svg": {"metadata": {"Date": None}},
    "pdf": {"metadata": {"CreationDate": None}},
}

Drawing = tuple[str, Callable[[pd.DataFrame], Figure], pd.DataFrame]
"""Name of a picture, the function that draws it, and the scores it draws."""


def pictures(gathered: GatheredRuns) -> dict[str, Figure]:
    """Return the pictures of runs by name, such as "niah/single by length"."""
    scores = gathered.labelled(gathered.scores)
    varying = [column for column in ("model", "window", "protocol") if scores[column].nunique() > 1]
    figures: dict[str, Figure] = {}
    with rc_context(STYLE):
        for name, draw, rows in _drawings(scores):
            full_name = ", ".join([name, *_conditions(rows.iloc[0], varying)])
            figures[full_name] = draw(rows)
    return figures


def _conditions(row: pd.Series, varying: list[str]) -> list[str]:
    """Return what tells the scores of a picture from those of another picture of the same task."""
    conditions = [f"{column} {row[column]}" for column in varying]
    return [*conditions, row["settings"]] if row["settings"] else conditions


def picture_files(figures: Mapping[str, Figure]) -> dict[str, bytes]:
    """Return the files of pictures in every format, by name."""
    files: dict[str, bytes] = {}
    for name, figure in figures.items():
        for file_format in FORMATS:
            files[f"{_stem(name)}.{file_format}"] = _rendered(figure, file_format)
    return files


def svg_elements(figures: Mapping[str, Figure], files: Mapping[str, bytes]) -> dict[str, str]:
    """Return pictures as SVG elements, without the XML declaration, as a page can hold them.

    Args:
        figures: the pictures by name.
        files: their files, as `picture_files` returns them.
    """
    elements: dict[str, str] = {}
    for name in figures:
        text = files[f"{_stem(name)}.svg"].decode()
        elements[name] = text[text.index("<svg") :]
    return elements


def _stem(name: str) -> str:
    return shorten_name(re.sub(r"[^a-z0-9.]+", "-", name.lower()).strip("-"))


def _rendered(figure: Figure, file_format: str) -> bytes:
    target = io.BytesIO()
    with rc_context(STYLE):
        figure.savefig(target, format=file_format, **FORMATS[file_format])
    return target.getvalue()


def _drawings(scores: pd.DataFrame) -> Iterator[Drawing]:
    """Yield what can be drawn: scores against length or task, and recall against depth."""
    for (*_, bench), rows in scores.groupby(COMPARABLE, sort=False):
        if has_many_tasks_at_one_length(rows):
            yield f"{bench} by task", scores_by_task.draw, rows
        for task, task_scores in rows.groupby("task", sort=False):
            if task_scores["length"].nunique() > 1:
                yield f"{bench}/{task} by length", scores_by_length.draw, task_scores
            if recall_by_depth.has_depths(task_scores):
                yield f"{bench}/{task} by depth", recall_by_depth.draw, task_scores
