"""Published tables: ``configs/published/*.yaml`` has numbers as printed, their source, and what is known of them.

A file reads like the table it copies: columns, then one row a model and method. A column is a mean over tasks at a
length, or a mean of other columns.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PlainValidator,
    ValidationError,
    ValidationInfo,
)
from pydantic import field_validator as validator
from pydantic_core import InitErrorDetails, PydanticCustomError

from lampe_eval import cards
from lampe_eval.benches import bench_tasks as tasks_of
from lampe_eval.cards import Card, read_card, shipped_card, shipped_folder
from lampe_eval.errors import UserError, unknown_name
from lampe_eval.method_specs import MethodSpec, parse_methods
from lampe_eval.suite import parse_length


@dataclass(frozen=True)
class PublishedCell:
    """A task at a length; None where the length was not published."""

    task: str
    length: int | None


MeanOf = PublishedCell | list["MeanOf"]
"""What a number is: that of a cell, or the mean of some numbers."""


@dataclass(frozen=True)
class Number:
    """A number as printed; ``above`` where the table says no more than that it is larger."""

    value: float
    above: bool = False

    def __str__(self) -> str:
        return f">{self.value:g}" if self.above else f"{self.value:g}"


def _number(value: Any) -> Number | None:
    if value is None:
        return None
    above = isinstance(value, str) and value.startswith(">")
    try:
        if isinstance(value, bool) or (isinstance(value, str) and not above):
            raise ValueError
        return Number(float(value[1:] if above else value), above)
    except (TypeError, ValueError):
        raise ValueError(
            f"{value!r} is neither a number, nor a bound such as '>100', nor null"
        ) from None


def _tokens(value: Any) -> Any:
    return parse_length(str(value)) if isinstance(value, str | int) else value


def _listed(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


def _known(patterns: tuple[str, ...]) -> tuple[str, ...]:
    """The tasks that patterns such as "ruler/niah_*" mean, in their bench's order."""
    try:
        return tuple(name for pattern in patterns for name in _matching(pattern))
    except UserError as error:
        raise ValueError(str(error)) from None


def _matching(pattern: str) -> list[str]:
    bench, _, name = pattern.partition("/")
    found = [
        f"{bench}/{task}"
        for task in _tasks(shipped_folder("tasks"), bench)
        if fnmatchcase(task, name)
    ]
    if not found:
        raise UserError(f"no task is called {pattern!r}; see: lampe-eval list tasks")
    return found


@cache
def _tasks(folder: Path, bench: str) -> tuple[str, ...]:
    """Names of a bench's tasks, read once for all patterns."""
    return tuple(task.name for task in tasks_of(bench))


def _method(text: str | None) -> str | None:
    if text is not None:
        try:
            parse_methods([text])[0].build({})
        except UserError as error:
            raise ValueError(str(error)) from None
    return text


Length = Annotated[int, BeforeValidator(_tokens)]
Tasks = Annotated[tuple[str, ...], BeforeValidator(_listed), AfterValidator(_known)]
Words = Annotated[tuple[str, ...], BeforeValidator(_listed)]
MethodText = Annotated[str | None, AfterValidator(_method)]


class Source(Card):
    """Where a table is from.

    Attributes:
        title: of the paper or repository.
        arxiv: its number.
        repository: owner/name@commit.
        table: which one.
        read: where its numbers were read, and what could not be.
    """

    title: str
    arxiv: str = ""
    repository: str = ""
    table: str
    read: str


class Column(Card):
    """A column.

    Attributes:
        tasks: whose mean it is, as names or patterns; those of the table by default.
        length: in tokens; that of the row or the table by default.
        mean: columns whose mean it is, instead.
        decimals: as printed; those of the table by default.
    """

    tasks: Tasks = ()
    length: Length | None = None
    mean: Words = ()
    decimals: int | None = None


class Row(Card):
    """A row.

    Attributes:
        model: a card's name, or a hub id.
        printed: model and method as the table calls them.
        method: ours, as users write it, with the settings that are known; that of the table by default, or none.
        length: in tokens; that of the table by default.
        window: that the method was told, where it was not the model's.
        doubt: why its numbers are not to be trusted.
        values: one a column; null where nothing was printed.
    """

    model: str
    printed: str
    method: MethodText = None
    length: Length | None = None
    window: int | None = None
    doubt: str = ""
    values: tuple[Annotated[Number | None, PlainValidator(_number)], ...]


class PublishedTable(Card):
    """A published table.

    Attributes:
        metric: what the numbers are.
        scale: percent, shares, or perplexity (lower is better).
        decimals: as printed.
        protocol: ours that is nearest to how it was made.
        text, haystack: corpus by name, where it matters.
        dtype: of the weights, where it is known.
        samples: of a cell, where it is not all that a task has.
        version: of our tasks that the table is compared with.
        suites: that run what can be run of it.
        deviations: what is known to differ from our protocol, or to be unclear.
        missing: what of the table is not here.
        method: of rows that name none.
        length: of rows and columns that have none.
        tasks: of columns that have none.
    """

    source: Source
    metric: str
    scale: Literal["percent", "share", "perplexity"] = "percent"
    decimals: int
    protocol: str
    text: str = ""
    haystack: str = ""
    dtype: str = ""
    samples: int | None = None
    version: int = 1
    suites: Words = ()
    deviations: Words = ()
    missing: Words = ()
    method: MethodText = None
    length: Length | None = None
    tasks: Tasks = ()
    columns: dict[str, Column] = Field(min_length=1)
    rows: tuple[Row, ...] = Field(min_length=1)

    @validator("columns")
    @classmethod
    def _columns_make_sense(
        cls, columns: dict[str, Column], info: ValidationInfo
    ) -> dict[str, Column]:
        for name, column in columns.items():
            for part in column.mean:
                if part not in columns:
                    raise _fault((name, "mean"), f"there is no column {part!r}", part)
            if not (column.mean or column.tasks or info.data.get("tasks")):
                raise _fault((name,), "neither the column nor the table says which tasks", name)
        return columns

    @validator("rows")
    @classmethod
    def _rows_fit_columns(cls, rows: tuple[Row, ...], info: ValidationInfo) -> tuple[Row, ...]:
        columns = info.data.get("columns", {})
        for index, row in enumerate(rows):
            if columns and len(row.values) != len(columns):
                text = f"{len(row.values)} values for {len(columns)} columns ({', '.join(columns)})"
                raise _fault((index, "values"), text, len(row.values))
        return rows

    def figures(self) -> Iterator["PublishedNumber"]:
        """Every number of the table."""
        factor = 100 if self.scale == "share" else 1
        for row in self.rows:
            for name, number in zip(self.columns, row.values, strict=True):
                if number is not None:
                    scaled = Number(number.value * factor, number.above)
                    column = self.columns[name]
                    decimals = self.decimals if column.decimals is None else column.decimals
                    yield PublishedNumber(
                        row, self._spec(row), name, scaled, decimals, self._mean(row, name)
                    )

    def _spec(self, row: Row) -> MethodSpec | None:
        method = row.method or self.method
        return parse_methods([method])[0] if method else None

    def _mean(self, row: Row, name: str) -> MeanOf:
        column = self.columns[name]
        if column.mean:
            return [self._mean(row, part) for part in column.mean]
        length = column.length or row.length or self.length
        cells: list[MeanOf] = [PublishedCell(task, length) for task in column.tasks or self.tasks]
        return cells[0] if len(cells) == 1 else cells


@dataclass(frozen=True)
class PublishedNumber:
    """A published number.

    Attributes:
        spec: our method with the settings that are known; None where we have none.
        column: its title.
        number: in percent, or perplexity.
        decimals: as printed.
        mean: what it is the mean of.
    """

    row: Row
    spec: MethodSpec | None
    column: str
    number: Number
    decimals: int
    mean: MeanOf

    @property
    def cells(self) -> list[PublishedCell]:
        """All cells that the number is made of."""
        return list(_leaves(self.mean))


def _leaves(mean: MeanOf) -> Iterator[PublishedCell]:
    if isinstance(mean, PublishedCell):
        yield mean
    else:
        for part in mean:
            yield from _leaves(part)


def _fault(where: tuple[int | str, ...], text: str, value: object) -> ValidationError:
    """An error at a place inside of the field that is validated, so that the card's reader finds its line."""
    fault = InitErrorDetails(type=PydanticCustomError("table", text), loc=where, input=value)
    return ValidationError.from_exception_data("table", [fault])


def names() -> list[str]:
    """Names of the shipped tables."""
    return cards.shipped_names("published")


def find_table(name: str) -> PublishedTable:
    """A shipped table by name, or one's own by its file.

    Raises:
        UserError: for a name that is neither, and a file that is wrong.
    """
    path = Path(name)
    if path.is_file():
        return read_card(path, PublishedTable)
    if name in names():
        return shipped_card("published", name, PublishedTable)
    if path.suffix in (".yaml", ".yml") or "/" in name:
        raise UserError(f"--against: {name}: no such file")
    raise unknown_name("published table", name, names(), "lampe-eval list published")
