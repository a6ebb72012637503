"""Comparison of a run with a published table: published scores, ours, and settings that differ."""

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from lampe_eval.benches import BENCHES
from lampe_eval.cards import ModelCard, shipped_card, shipped_names
from lampe_eval.method_specs import MethodSpec, parse_methods
from lampe_eval.results.cell_scores import score_run
from lampe_eval.results.published_tables import (
    MeanOf,
    PublishedCell,
    PublishedNumber,
    PublishedTable,
)
from lampe_eval.scoring.intervals import (
    UNKNOWN,
    Interval,
    Proportion,
    average,
    percent_interval,
    weighted_ends,
)
from lampe_eval.store import Store

MAX_LISTED_CELLS = 3
"""Missing cells that a remark lists by name."""

COMPARISON_COLUMNS = (
    "status",
    "model",
    "method",
    "published_as",
    "quantity",
    "length",
    "published",
    "ours",
    "stderr",
    "ci_low",
    "ci_high",
    "difference",
    "within_ci",
    "n",
    "remarks",
)
"""Columns of leaderboard-<table>.csv, a row per number.

`status` is "both", "published only" or "ours only"; `within_ci` says whether the published number
lies within the 95 % interval of ours; `remarks` lists settings that differ, or why a published
number has no match.
"""


@dataclass(frozen=True)
class MatchedNumber:
    """Published number with ours.

    Attributes:
        published: the published number.
        model: name of the model in the run.
        method: label of the method in the run.
        length: tokens; None for a mean over lengths.
        value: our number, in percent or as perplexity.
        stderr: its standard error; NaN where it is not known.
        interval: its 95 % interval; its ends are NaN where it is not known.
        n: number of our samples.
        published_samples: number of samples that were published, or that the tasks have.
        setting_differences: settings in which the two differ, ours first.
    """

    published: PublishedNumber
    model: str
    method: str
    length: int | None
    value: float
    stderr: float
    interval: Interval
    n: int
    published_samples: int
    setting_differences: tuple[str, ...]

    @property
    def difference(self) -> float:
        """Return our number minus the published one; NaN against a bound."""
        number = self.published.number
        return math.nan if number.is_lower_bound else self.value - number.value

    @property
    def within(self) -> bool | None:
        """Return whether the published number lies within the 95 % interval of ours.

        For a bound the question is whether ours is beyond it. None means that the interval is
        unknown.
        """
        if self.published.number.is_lower_bound:
            return self.value > self.published.number.value
        low, high = self.interval
        if math.isnan(low):
            return None
        # What was measured may be half a unit of the last printed digit away.
        rounding = 0.5 * 10.0**-self.published.decimals
        return low - rounding <= self.published.number.value <= high + rounding

    @property
    def verdict(self) -> str:
        """Return `within` as a word."""
        return {None: "unknown", True: "yes", False: "no"}[self.within]

    @property
    def remarks(self) -> tuple[str, ...]:
        """Return settings that differ, a smaller number of samples, and doubts about the number."""
        remarks = list(self.setting_differences)
        if self.n < self.published_samples:
            remarks.append(f"samples {self.n} (published {self.published_samples})")
        return (*remarks, *self.doubts)

    @property
    def doubts(self) -> tuple[str, ...]:
        """Return why the published number is in doubt, if it is."""
        doubt = self.published.row.doubt
        return (f"published in doubt: {doubt}",) if doubt else ()


@dataclass(frozen=True)
class PublishedComparison:
    """Comparison of a run with a table.

    Attributes:
        matches: matched numbers in the order of the table.
        missing: published numbers that the run does not have, with the reason.
        unused: cells of the run that the table does not have.
    """

    matches: list[MatchedNumber]
    missing: list[tuple[PublishedNumber, str]]
    unused: pd.DataFrame

    def frame(self) -> pd.DataFrame:
        """Return a row per match, then per number that only the table or only the run has."""
        records = [_matched_record(match) for match in self.matches]
        for published, reason in self.missing:
            record = _published_record(published)
            records.append({"status": "published only", **record, "remarks": reason})
        records += [_unused_record(row) for row in self.unused.to_dict("records")]
        frame = pd.DataFrame(records, columns=list(COMPARISON_COLUMNS))
        return frame.astype({"length": "Int64", "n": "Int64"})


def compare_with_published(store: Store, table: PublishedTable) -> PublishedComparison:
    """Compare every number of a table with what a run has of it.

    A published row matches every method of the run with the same name, whatever its settings; the
    settings that differ are listed. A mean matches only where the run has every task of it.
    """
    scores = score_run(store).scores
    run = _RunCells(store, table, scores)
    matches: list[MatchedNumber] = []
    missing: list[tuple[PublishedNumber, str]] = []
    for published in table.numbers():
        candidates = list(run.candidates(published))
        matched = [each for each in candidates if isinstance(each, MatchedNumber)]
        matches += matched
        if not matched:
            reasons = [each for each in candidates if isinstance(each, str)]
            missing.append((published, reasons[0] if reasons else run.why_no_candidate(published)))
    unused = [
        index
        for index, row in enumerate(scores.to_dict("records"))
        if _cell_key(row) not in run.used
    ]
    return PublishedComparison(matches, missing, scores.iloc[unused])


CellKey = tuple[str, str, str, int]
"""Model, method, task ("bench/task") and length of a cell."""


def _cell_key(row: Mapping[Any, Any]) -> CellKey:
    return row["model"], row["method"], f"{row['bench']}/{row['task']}", row["length"]


class _RunCells:
    """Cells of a run, looked up by what a table needs.

    Attributes:
        used: cells that a published number was compared with.
    """

    def __init__(self, store: Store, table: PublishedTable, scores: pd.DataFrame) -> None:
        self.used: set[CellKey] = set()
        self._config = store.config
        self._table = table
        # labels hold commas between settings, so that each is parsed alone
        self._specs = {label: parse_methods([label])[0] for label in store.config["methods"]}
        self._rows: dict[CellKey, Mapping[Any, Any]] = {}
        for row in scores.to_dict("records"):
            self._rows[_cell_key(row)] = row

    def candidates(self, published: PublishedNumber) -> Iterator[MatchedNumber | str]:
        """Yield a match, or why there is none, for each method of the run with that name."""
        for model in self._models(published):
            for label in self._labels(published):
                for length in self._lengths(published, model, label):
                    yield self._match(published, model, label, length)

    def why_no_candidate(self, published: PublishedNumber) -> str:
        """Return why the run has no method to compare a number with."""
        if published.spec is None:
            return "no such method here"
        return "method not in the run" if self._models(published) else "model not in the run"

    def _models(self, published: PublishedNumber) -> list[str]:
        published_names = _model_names(published.row.model)
        models: list[str] = []
        for name, model_config in self._config["models"].items():
            # the fingerprint of a hub model is id@commit
            path = model_config["fingerprint"].partition("@")[0]
            if published_names & (_model_names(name) | _model_names(path)):
                models.append(name)
        return models

    def _labels(self, published: PublishedNumber) -> list[str]:
        if published.spec is None:
            return []
        name = published.spec.name
        return [label for label, spec in self._specs.items() if spec.name == name]

    def _lengths(self, published: PublishedNumber, model: str, label: str) -> list[int | None]:
        """Return the lengths to compare at: all that the run has, where none was published."""
        if all(cell.length is not None for cell in published.cells):
            return [None]
        tasks = {cell.task for cell in published.cells}
        lengths = {key[3] for key in self._rows if key[:2] == (model, label) and key[2] in tasks}
        return [*sorted(lengths)] or [None]

    def _match(
        self, published: PublishedNumber, model: str, label: str, length: int | None
    ) -> MatchedNumber | str:
        rows: dict[PublishedCell, Mapping[Any, Any]] = {}
        keys: dict[PublishedCell, CellKey] = {}
        for cell in published.cells:
            # A published length wins; without one, the run's length is compared. No cell has length
            # 0, so a number without either finds no row.
            keys[cell] = (model, label, cell.task, cell.length or length or 0)
            row = self._rows.get(keys[cell])
            if row is not None and row["n"]:
                rows[cell] = row
        missing_cells = [cell for cell in keys if cell not in rows]
        if missing_cells:
            return _not_in_run(missing_cells, len(keys))
        self.used.update(keys.values())
        parts = list(_parts(published.mean, rows))
        lengths = {row["length"] for row in rows.values()}
        return MatchedNumber(
            published,
            model,
            label,
            length=lengths.pop() if len(lengths) == 1 else None,
            value=math.fsum(part.weight * part.value for part in parts),
            # Cells are independent, so their variances add.
            stderr=math.hypot(*(part.weight * part.stderr for part in parts)),
            interval=_mean_interval(parts),
            n=sum(row["n"] for row in rows.values()),
            published_samples=sum(self._published_samples(cell) for cell in rows),
            setting_differences=tuple(self._differences(published, model, label, rows)),
        )

    def _published_samples(self, cell: PublishedCell) -> int:
        return self._table.samples or self._config["tasks"][cell.task]["samples"]

    def _differences(
        self,
        published: PublishedNumber,
        model: str,
        label: str,
        rows: Mapping[PublishedCell, Mapping[Any, Any]],
    ) -> Iterator[str]:
        """Yield the settings in which the run and the table differ, ours first."""
        model_config = self._config["models"][model]
        table = self._table
        window = published.row.window or _card_window(published.row.model)
        if window and model_config["window"] != window:
            yield f"window {model_config['window']} (published {window})"
        if table.dtype and model_config["dtype"] != table.dtype:
            yield f"dtype {model_config['dtype']} (published {table.dtype})"
        if self._config["protocol"] != table.protocol:
            yield f"protocol {self._config['protocol']} (published: like {table.protocol})"
        yield from self._source_differences({row["bench"] for row in rows.values()})
        if any(cell.length is None for cell in published.cells):
            yield "length (published: not said)"
        assert published.spec is not None
        settings = self._config["methods"][label][model]
        yield from _method_setting_differences(published.spec, self._specs[label], settings)
        yield from self._sample_differences(rows)

    def _source_differences(self, benches: set[str]) -> Iterator[str]:
        """Yield whether samples were made from another text, or with another seed than suites."""
        options = {BENCHES[bench].source_option for bench in benches}
        for option, default in (("haystack", "default"), ("text", "the pocket language")):
            # a text of the user's own is stored as name and hash
            ours = str(self._config.get(option) or default).partition(" sha256:")[0]
            published = getattr(self._table, option)
            if option in options and ours != (published or "default"):
                yield f"{option} {ours} (published{f' {published}' if published else ': not said'})"
        if self._config["seed"]:
            yield f"seed {self._config['seed']} (suites: 0)"

    def _sample_differences(self, rows: Mapping[PublishedCell, Mapping[Any, Any]]) -> Iterator[str]:
        """Yield another version of a task, batches, and counts of samples that are not whole."""
        versions = {self._config["tasks"][cell.task]["version"] for cell in rows}
        other_versions = sorted(versions - {self._table.version})
        if other_versions:
            listed = ", ".join(map(str, other_versions))
            yield f"task version {listed} (compared with {self._table.version})"
        batch_size = max(row["batch_size"] for row in rows.values())
        # Published numbers ran one prompt at a time, and a batch rounds differently.
        if batch_size > 1:
            yield f"batch {batch_size} (published 1)"
        for column in ("missing", "errors", "skipped", "cut"):
            count = sum(row[column] for row in rows.values())
            if count:
                yield f"{count} {column}"


def _model_names(name: str) -> set[str]:
    """Return names of the same model: card, hub id, and the last part of that, as of folders."""
    path = shipped_card("models", name, ModelCard).path if name in shipped_names("models") else name
    return {name.lower(), path.lower(), path.rpartition("/")[2].lower()}


def _card_window(model: str) -> int | None:
    if model not in shipped_names("models"):
        return None
    return shipped_card("models", model, ModelCard).window


def _method_setting_differences(
    published: MethodSpec, spec: MethodSpec, ours: Mapping[str, Any]
) -> Iterator[str]:
    """Yield settings that differ, and settings that a user gave and the table does not mention."""
    published_settings = {**published.card.settings, **published.settings}
    for key, value in published_settings.items():
        if ours.get(key) != value:
            yield f"{key} {_setting_text(ours.get(key))} (published {_setting_text(value)})"
    for key, value in spec.settings.items():
        if key not in published_settings:
            yield f"{key} {_setting_text(value)} (published: not said)"


def _setting_text(value: Any) -> str:
    if value is None:
        return "auto"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _not_in_run(cells: list[PublishedCell], total: int) -> str:
    if len(cells) == total:
        return f"not in the run{_at(cell.length for cell in cells)}"
    names = ", ".join(f"{cell.task}{_at([cell.length])}" for cell in cells[:MAX_LISTED_CELLS])
    more = ", ..." if len(cells) > MAX_LISTED_CELLS else ""
    return f"{len(cells)} of {total} cells not in the run: {names}{more}"


def _at(lengths: Iterable[int | None]) -> str:
    known = sorted({length for length in lengths if length is not None})
    return f" at {', '.join(map(str, known))}" if known else ""


@dataclass(frozen=True)
class _WeightedScore:
    """Score of a cell with its weight in a mean.

    Attributes:
        weight: share of the mean.
        length: tokens of the cell.
        value: score of the cell.
        stderr: its standard error.
        interval: its 95 % interval.
        proportion: the score with its effective number of samples; None for a perplexity.
    """

    weight: float
    length: int
    value: float
    stderr: float
    interval: Interval
    proportion: Proportion | None


def _parts(
    mean: MeanOf, rows: Mapping[PublishedCell, Mapping[Any, Any]], weight: float = 1.0
) -> Iterator[_WeightedScore]:
    """Yield the cells of a mean with their weights."""
    if not isinstance(mean, PublishedCell):
        for part in mean:
            yield from _parts(part, rows, weight / len(mean))
        return
    row = rows[mean]
    yield _WeightedScore(
        weight,
        row["length"],
        float(row["score"]),
        float(row["stderr"]),
        Interval(row["ci_low"], row["ci_high"]),
        row["proportion"],
    )


def _mean_interval(parts: list[_WeightedScore]) -> Interval:
    """Return the 95 % interval of a mean: of independent tasks, and of lengths that are not.

    It is unknown for a mean of perplexities.
    """
    if len(parts) == 1:
        return parts[0].interval
    weights: dict[int, list[float]] = {}
    proportions: dict[int, list[Proportion]] = {}
    for part in parts:
        if part.proportion is None:
            return UNKNOWN
        weights.setdefault(part.length, []).append(part.weight)
        proportions.setdefault(part.length, []).append(part.proportion)
    return weighted_ends(
        [math.fsum(of_length) for of_length in weights.values()],
        [percent_interval(average(weights[length], proportions[length])) for length in weights],
    )


def _published_record(published: PublishedNumber) -> dict[str, Any]:
    lengths = {cell.length for cell in published.cells}
    return {
        "model": published.row.model,
        "method": published.spec.label if published.spec else None,
        "published_as": published.row.printed,
        "quantity": published.column,
        "length": lengths.pop() if len(lengths) == 1 else None,
        "published": str(published.number),
    }


def _matched_record(match: MatchedNumber) -> dict[str, Any]:
    return {
        "status": "both",
        **_published_record(match.published),
        "model": match.model,
        "method": match.method,
        "length": match.length,
        "ours": match.value,
        "stderr": match.stderr,
        "ci_low": match.interval.low,
        "ci_high": match.interval.high,
        "difference": match.difference,
        "within_ci": match.verdict,
        "n": match.n,
        "remarks": "; ".join(match.remarks),
    }


def _unused_record(row: Mapping[Any, Any]) -> dict[str, Any]:
    return {
        "status": "ours only",
        "model": row["model"],
        "method": row["method"],
        "quantity": f"{row['bench']}/{row['task']}",
        "length": row["length"],
        "ours": row["score"],
        "stderr": row["stderr"],
        "ci_low": row["ci_low"],
        "ci_high": row["ci_high"],
        "n": row["n"],
    }
