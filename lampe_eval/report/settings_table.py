"""Resolved settings of methods as text and as tables for a paper's appendix."""

from collections.abc import Iterator, Mapping
from typing import Any

import pandas as pd

from lampe_eval.records import ResolvedSettings
from lampe_eval.report.table_model import ResultTable, TableLine, TableValue
from lampe_eval.results.gathered_runs import GatheredRuns

NOTE = (
    "settings for as many tokens as the length says, answer included; where a method derives them "
    "from each prompt, shorter prompts have others"
)


def settings_text(resolved: ResolvedSettings | None) -> str:
    """Return the settings in one line, as `--method` takes them; empty where none are stored."""
    if resolved is None:
        return ""
    return ", ".join(f"{name}={_text(value)}" for name, value in resolved["settings"].items())


def settings_columns(scores: pd.DataFrame) -> pd.DataFrame:
    """Return a column for each setting that any method of the scores has."""
    records = [{} if cell is None else dict(cell["settings"]) for cell in scores["resolved"]]
    columns = pd.DataFrame(records, index=scores.index)
    # A plug-in's setting may be called as a column of the scores is.
    return columns.rename(columns={name: f"method.{name}" for name in scores.columns})


def settings_tables(gathered: GatheredRuns) -> Iterator[ResultTable]:
    """Yield a table for each model of each run: settings of methods down, lengths across."""
    stored = gathered.scores[gathered.scores["resolved"].notna()]
    for _, scores in stored.groupby(["run", "model"], sort=False):
        first = scores.iloc[0]
        run = f" · {first['run']}" if gathered.has_several_runs else ""
        lengths = sorted(set(scores["length"]))
        lines: list[TableLine] = []
        for method, cells in scores.groupby("method", sort=False):
            at_length = dict(zip(cells["length"], cells["resolved"], strict=True))
            lines += _lines(str(method), at_length, lengths)
        title = f"settings · {first['model']}, window {first['window']}{run}"
        yield ResultTable(title, ["method", "setting", *map(str, lengths)], lines, [NOTE])


def _lines(
    method: str, at_length: Mapping[int, ResolvedSettings], lengths: list[int]
) -> Iterator[TableLine]:
    """Yield a line for each setting of a method; the first has the method's name."""
    rows: dict[str, dict[int, str]] = {}
    for length, resolved in at_length.items():
        values = {
            **resolved["settings"],
            "attention factor": resolved["attention_factor"],
            "largest position": resolved["largest_position"],
        }
        if "visible_tokens" in resolved:
            values["sees"] = resolved["visible_tokens"]
        for name, value in values.items():
            rows.setdefault(name, {})[length] = _text(value)
    label = method
    for name, texts in rows.items():
        yield label, [TableValue(name), *(TableValue(texts.get(at, "-")) for at in lengths)]
        label = ""


def _text(value: Any) -> str:
    # Six digits, so that a factor of 4/3 is no line of its own.
    return f"{value:.6g}" if isinstance(value, float) else str(value)
