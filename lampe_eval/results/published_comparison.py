"""A run beside a published table: what was printed, what came out here, and in which settings the two differ."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from lampe_eval.benches import BENCHES
from lampe_eval.cards import ModelCard, shipped_card, shipped_names
from lampe_eval.method_specs import MethodSpec, parse_methods
from lampe_eval.results.cell_scores import run_scores
from lampe_eval.results.published_tables import (
    MeanOf,
    PublishedCell,
    PublishedNumber,
    PublishedTable,
)
from lampe_eval.store import Store

CONFIDENCE = 0.95

COLUMNS = (
    "status",
    "model",
    "method",
    "printed",
    "quantity",
    "length",
    "published",
    "ours",
    "stderr",
    "difference",
    "within",
    "n",
    "differs",
)


@dataclass(frozen=True)
class MatchedNumber:
    """A published number beside ours.

    Attributes:
        model, method: as the run calls them.
        length: in tokens; None for a mean over lengths.
        value, stderr: ours; the error is NaN where it is not known.
        reach: how far the 95 % interval of ours reaches to either side; NaN where it is not known.
        n, wanted: samples, and how many were published or the tasks have.
        differs: settings in which the two differ, ours first.
    """

    figure: PublishedNumber
    model: str
    method: str
    length: int | None
    value: float
    stderr: float
    reach: float
    n: int
    wanted: int
    differs: tuple[str, ...]

    @property
    def difference(self) -> float:
        """Ours less the published one; NaN against a bound."""
        number = self.figure.number
        return math.nan if number.above else self.value - number.value

    @property
    def within(self) -> bool | None:
        """Whether the published number, as it may have been before rounding, lies within the 95 % interval of ours.

        Of a bound, whether ours lies beyond it; None where the interval is not known.
        """
        if self.figure.number.above:
            return self.value > self.figure.number.value
        rounded = 0.5 * 10.0**-self.figure.decimals
        return None if math.isnan(self.reach) else abs(self.difference) <= self.reach + rounded

    @property
    def verdict(self) -> str:
        """``within`` in a word."""
        return "unknown" if self.within is None else "yes" if self.within else "no"

    @property
    def remarks(self) -> tuple[str, ...]:
        """What differs, and why the published number is in doubt, if it is."""
        fewer = (f"samples {self.n} (published {self.wanted})",) if self.n < self.wanted else ()
        return (*self.differs, *fewer, *self.doubts)

    @property
    def doubts(self) -> tuple[str, ...]:
        """Why the published number is in doubt, if it is."""
        return (f"published in doubt: {self.figure.row.doubt}",) if self.figure.row.doubt else ()


@dataclass(frozen=True)
class PublishedComparison:
    """A run and a table.

    Attributes:
        matches: in the order of the table.
        missing: published numbers that the run has not, with the reason.
        unused: cells of the run that the table has not.
    """

    matches: list[MatchedNumber]
    missing: list[tuple[PublishedNumber, str]]
    unused: pd.DataFrame

    def frame(self) -> pd.DataFrame:
        """One row for each match, then for what either side has alone."""
        records = [_matched(match) for match in self.matches]
        records += [
            {"status": "published only", **_printed(figure), "differs": why}
            for figure, why in self.missing
        ]
        records += [
            {
                "status": "ours only",
                "model": row["model"],
                "method": row["method"],
                "quantity": f"{row['bench']}/{row['task']}",
                "length": row["length"],
                "ours": row["score"],
                "stderr": row["stderr"],
                "n": row["n"],
            }
            for row in self.unused.to_dict("records")
        ]
        return pd.DataFrame(records, columns=list(COLUMNS)).astype(
            {"length": "Int64", "n": "Int64"}
        )


def compare_with_published(store: Store, table: PublishedTable) -> PublishedComparison:
    """Every number of a table beside what a run has of it."""
    frame = run_scores(store)
    run = _Run(store, table, frame)
    matches: list[MatchedNumber] = []
    missing: list[tuple[PublishedNumber, str]] = []
    for figure in table.figures():
        found = list(run.matches(figure))
        matches += [match for match in found if isinstance(match, MatchedNumber)]
        if not any(isinstance(match, MatchedNumber) for match in found):
            missing.append((figure, next((str(why) for why in found), run.why_not(figure))))
    unused = [
        index for index, row in enumerate(frame.to_dict("records")) if _key(row) not in run.used
    ]
    return PublishedComparison(matches, missing, frame.iloc[unused])


Key = tuple[str, str, str, int]
"""Model, method, task and length of a cell."""


def _key(row: Mapping[Any, Any]) -> Key:
    return row["model"], row["method"], f"{row['bench']}/{row['task']}", row["length"]


class _Run:
    """The cells of a run, as a table asks for them."""

    def __init__(self, store: Store, table: PublishedTable, frame: pd.DataFrame) -> None:
        self.config, self.table = store.config, table
        self.used: set[Key] = set()
        self._rows: dict[Key, dict[str, Any]] = {_key(row): row for row in frame.to_dict("records")}  # type: ignore[misc]

    def matches(self, figure: PublishedNumber) -> Iterator[MatchedNumber | str]:
        """What the run has for a number, or why it has not, for each of its methods that bear the name."""
        for model in self._models(figure):
            for label in self._labels(figure):
                for length in self._lengths(figure, model, label):
                    yield self._match(figure, model, label, length)

    def why_not(self, figure: PublishedNumber) -> str:
        """Why the run has nothing to compare a number with."""
        if figure.spec is None:
            return "no such method here"
        return "method not in the run" if self._models(figure) else "model not in the run"

    def _models(self, figure: PublishedNumber) -> list[str]:
        wanted = _identities(figure.row.model)
        models: Mapping[str, Any] = self.config["models"]
        return [
            name
            for name, described in models.items()
            if wanted
            & (_identities(name) | _identities(described["fingerprint"].partition("@")[0]))
        ]

    def _labels(self, figure: PublishedNumber) -> list[str]:
        return [
            label
            for label in self.config["methods"]
            if figure.spec and parse_methods([label])[0].name == figure.spec.name
        ]

    def _lengths(self, figure: PublishedNumber, model: str, label: str) -> list[int | None]:
        """The lengths to compare at: all that the run has, where none was published."""
        if all(cell.length is not None for cell in figure.cells):
            return [None]
        tasks = {cell.task for cell in figure.cells}
        own = {key[3] for key in self._rows if key[:2] == (model, label) and key[2] in tasks}
        return [*sorted(own)] or [None]

    def _match(
        self, figure: PublishedNumber, model: str, label: str, length: int | None
    ) -> MatchedNumber | str:
        keys = {
            cell: (model, label, cell.task, cell.length or length or 0) for cell in figure.cells
        }
        rows = {
            cell: self._rows[key]
            for cell, key in keys.items()
            if key in self._rows and self._rows[key]["n"]
        }
        if lacking := [cell for cell in keys if cell not in rows]:
            return _lacking(lacking, len(keys))
        self.used |= {*keys.values()}
        parts = list(_parts(figure.mean, rows))
        lengths = {row["length"] for row in rows.values()}
        return MatchedNumber(
            figure,
            model,
            label,
            length=lengths.pop() if len(lengths) == 1 else None,
            value=math.fsum(part.weight * part.value for part in parts),
            stderr=math.hypot(*(part.weight * part.stderr for part in parts)),
            reach=_reach(parts),
            n=sum(row["n"] for row in rows.values()),
            wanted=sum(
                self.table.samples or self.config["tasks"][cell.task]["samples"] for cell in rows
            ),
            differs=tuple(self._differs(figure, model, label, rows)),
        )

    def _differs(
        self,
        figure: PublishedNumber,
        model: str,
        label: str,
        rows: Mapping[PublishedCell, Mapping[str, Any]],
    ) -> Iterator[str]:
        """The settings in which the run and the table differ."""
        described, table = self.config["models"][model], self.table
        window = figure.row.window or _window(figure.row.model)
        if window and described["window"] != window:
            yield f"window {described['window']} (published {window})"
        if table.dtype and described["dtype"] != table.dtype:
            yield f"dtype {described['dtype']} (published {table.dtype})"
        if self.config["protocol"] != table.protocol:
            yield f"protocol {self.config['protocol']} (published: like {table.protocol})"
        yield from self._drawn({BENCHES[row["bench"]].source_option for row in rows.values()})
        if any(cell.length is None for cell in figure.cells):
            yield "length (published: not said)"
        assert figure.spec is not None
        yield from _settings(figure.spec, label, self.config["methods"][label][model])
        yield from self._state(rows)

    def _drawn(self, options: set[str | None]) -> Iterator[str]:
        """Whether samples were made of another text, or with another seed than the suites have."""
        for option, default in (("haystack", "default"), ("text", "the pocket language")):
            ours = str(self.config.get(option) or default).partition(" sha256:")[0]
            published = getattr(self.table, option)
            if option in options and ours != (published or "default"):
                yield f"{option} {ours} (published{f' {published}' if published else ': not said'})"
        if self.config["seed"]:
            yield f"seed {self.config['seed']} (suites: 0)"

    def _state(self, rows: Mapping[PublishedCell, Mapping[str, Any]]) -> Iterator[str]:
        """Whether a task has changed since, samples ran in batches, and how many lack or were cut."""
        versions = {self.config["tasks"][cell.task]["version"] for cell in rows} - {
            self.table.version
        }
        if versions:
            yield f"task version {', '.join(map(str, sorted(versions)))} (compared with {self.table.version})"
        if (batch := max(row["batch_size"] for row in rows.values())) > 1:
            yield f"batch {batch} (published 1)"
        for column in ("missing", "errors", "skipped", "cut"):
            if count := sum(row[column] for row in rows.values()):
                yield f"{count} {column}"


def _identities(name: str) -> set[str]:
    """Names that mean the same model: its card, its hub id, and the last part of that, as a folder is called."""
    path = shipped_card("models", name, ModelCard).path if name in shipped_names("models") else name
    return {name.lower(), path.lower(), path.rpartition("/")[2].lower()}


def _window(model: str) -> int | None:
    return (
        shipped_card("models", model, ModelCard).window
        if model in shipped_names("models")
        else None
    )


def _settings(published: MethodSpec, label: str, ours: Mapping[str, Any]) -> Iterator[str]:
    """Settings that differ, and those that a user gave of which the table says nothing."""
    known = {**published.card.settings, **published.settings}
    given = parse_methods([label])[0].settings
    for key, value in known.items():
        if ours.get(key) != value:
            yield f"{key} {_shown(ours.get(key))} (published {_shown(value)})"
    for key, value in given.items():
        if key not in known:
            yield f"{key} {_shown(value)} (published: not said)"


def _shown(value: Any) -> str:
    return "auto" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def _lacking(cells: list[PublishedCell], total: int) -> str:
    if len(cells) == total:
        return f"not in the run{_at({cell.length for cell in cells})}"
    names = ", ".join(f"{cell.task}{_at({cell.length})}" for cell in cells[:3])
    return (
        f"{len(cells)} of {total} cells not in the run: {names}{', ...' if len(cells) > 3 else ''}"
    )


def _at(lengths: set[int | None]) -> str:
    known = sorted(length for length in lengths if length is not None)
    return f" at {', '.join(map(str, known))}" if known else ""


@dataclass(frozen=True)
class _Part:
    """A cell's share of a mean; ``units`` is what the standard error is of."""

    weight: float
    value: float
    stderr: float
    units: int
    bounded: bool


def _parts(
    mean: MeanOf, rows: Mapping[PublishedCell, Mapping[str, Any]], weight: float = 1.0
) -> Iterator[_Part]:
    """The cells that a mean is made of; they are independent of each other."""
    if isinstance(mean, PublishedCell):
        row = rows[mean]
        bounded = BENCHES[row["bench"]].higher_is_better
        yield _Part(weight, float(row["score"]), float(row["stderr"]), row["units"], bounded)
        return
    for part in mean:
        yield from _parts(part, rows, weight / len(mean))


def _reach(parts: list[_Part]) -> float:
    """Half the 95 % interval of a mean of cells: Student's t, degrees of freedom by Welch and Satterthwaite."""
    from scipy.stats import t  # here, as it takes a second

    errors = [(part.weight * _error(part)) ** 2 for part in parts]
    if not (math.fsum(errors) > 0 and all(part.units > 1 for part in parts)):
        return math.nan
    freedom = math.fsum(errors) ** 2 / math.fsum(
        e**2 / (part.units - 1) for e, part in zip(errors, parts, strict=True)
    )
    return math.sqrt(math.fsum(errors)) * float(t.ppf((1 + CONFIDENCE) / 2, freedom))


def _error(part: _Part) -> float:
    """The standard error of a cell, for its interval.

    Samples that all score alike are no certainty: a share then has the error that it has with two right and two wrong
    answers more (Agresti and Coull 1998), a perplexity none that is known.
    """
    if part.stderr > 0 or math.isnan(part.stderr):
        return part.stderr
    n = part.units + 4
    share = (part.value / 100 * part.units + 2) / n
    return 100 * math.sqrt(share * (1 - share) / n) if part.bounded else math.nan


def _printed(figure: PublishedNumber) -> dict[str, Any]:
    lengths = {cell.length for cell in figure.cells}
    return {
        "model": figure.row.model,
        "method": figure.spec.label if figure.spec else None,
        "printed": figure.row.printed,
        "quantity": figure.column,
        "length": lengths.pop() if len(lengths) == 1 else None,
        "published": str(figure.number),
    }


def _matched(match: MatchedNumber) -> dict[str, Any]:
    return {
        "status": "both",
        **_printed(match.figure),
        "model": match.model,
        "method": match.method,
        "length": match.length,
        "ours": match.value,
        "stderr": match.stderr,
        "difference": match.difference,
        "within": match.verdict,
        "n": match.n,
        "differs": "; ".join(match.remarks),
    }
