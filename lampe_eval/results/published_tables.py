"""Published tables: numbers as printed, their source, and what is known of how they were made.

A file in `configs/published` reads like the table it copies: columns, then one row per model and
method. A column is a mean over tasks at one length, or a mean of other columns.
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
from lampe_eval.benches import bench_tasks
from lampe_eval.cards import Card, read_card, shipped_card, shipped_folder
from lampe_eval.errors import UserError, unknown_name
from lampe_eval.file_io import file_problem
from lampe_eval.method_specs import MethodSpec, parse_methods
from lampe_eval.suite import as_tuple, parse_length


@dataclass(frozen=True)
class PublishedCell:
    """Cell of a published table.

    Attributes:
        task: name as "bench/task".
        length: tokens; None where the length was not published.
    """

    task: str
    length: int | None


MeanOf = PublishedCell | list["MeanOf"]
"""What a number is computed from: one cell, or the mean of several numbers."""


@dataclass(frozen=True)
class PrintedNumber:
    """Number as a table prints it.

    Attributes:
        value: the number, or the bound.
        is_lower_bound: whether the table only says that the number is larger than `value`.
    """

    value: float
    is_lower_bound: bool = False

    def __str__(self) -> str:
        sign = ">" if self.is_lower_bound else ""
        return f"{sign}{self.value:g}"


def _printed_number(value: Any) -> PrintedNumber | None:
    if value is None:
        return None
    is_bound = isinstance(value, str) and value.startswith(">")
    try:
        # YAML reads yes and no as booleans, which ``float`` would take for 1 and 0.
        if isinstance(value, bool) or (isinstance(value, str) and not is_bound):
            raise ValueError
        return PrintedNumber(float(value[1:] if is_bound else value), is_bound)
    except (TypeError, ValueError):
        raise ValueError(
            f"{value!r} is neither a number, nor a bound such as '>100', nor null"
        ) from None


def _tokens(value: Any) -> Any:
    return parse_length(str(value)) if isinstance(value, str | int) else value


def _tasks_of_patterns(patterns: tuple[str, ...]) -> tuple[str, ...]:
    """Return the tasks that patterns such as "ruler/niah_*" match, in the order of their bench."""
    tasks: list[str] = []
    for pattern in patterns:
        try:
            tasks += _matching_tasks(pattern)
        except UserError as error:
            # pydantic collects ValueErrors, and the reader of cards finds the line of each.
            raise ValueError(str(error)) from None
    return tuple(tasks)


def _matching_tasks(pattern: str) -> list[str]:
    bench, _, task_pattern = pattern.partition("/")
    names = _task_names(shipped_folder("tasks"), bench)
    # ``fnmatchcase``, because ``fnmatch`` ignores case on some systems.
    matching = [f"{bench}/{name}" for name in names if fnmatchcase(name, task_pattern)]
    if not matching:
        raise UserError(f"no task is called {pattern!r}; see: lampe-eval list tasks")
    return matching


@cache
def _task_names(folder: Path, bench: str) -> tuple[str, ...]:
    """Return the names of a bench's tasks, read once per folder of tasks."""
    return tuple(task.name for task in bench_tasks(bench))


def _valid_method(text: str | None) -> str | None:
    if text is not None:
        try:
            parse_methods([text])[0].build({})
        except UserError as error:
            raise ValueError(str(error)) from None
    return text


Length = Annotated[int, BeforeValidator(_tokens)]
Tasks = Annotated[tuple[str, ...], BeforeValidator(as_tuple), AfterValidator(_tasks_of_patterns)]
Texts = Annotated[tuple[str, ...], BeforeValidator(as_tuple)]
MethodText = Annotated[str | None, AfterValidator(_valid_method)]


class PublishedSource(Card):
    """Source of a table.

    Attributes:
        title: title of the paper or repository.
        arxiv: number of the paper.
        repository: owner/name@commit.
        table: which table of the source this is.
        read: where its numbers were read, and what could not be read.
    """

    title: str
    arxiv: str = ""
    repository: str = ""
    table: str
    read: str


class PublishedColumn(Card):
    """Column of a table.

    Attributes:
        tasks: tasks whose mean the column is, as names or patterns; the table's by default.
        length: tokens; that of the row or the table by default.
        mean: columns whose mean this one is, instead of tasks.
        decimals: number of printed decimals; the table's by default.
    """

    tasks: Tasks = ()
    length: Length | None = None
    mean: Texts = ()
    decimals: int | None = None


class PublishedRow(Card):
    """Row of a table.

    Attributes:
        model: name of a model card, or a hub id.
        printed: model and method as the table calls them.
        method: our method as users write it, with the settings that are known; the table's by
            default, or none.
        length: tokens; the table's by default.
        window: window that the method was given, where it is not the model's.
        doubt: why the row's numbers are not to be trusted.
        values: one number per column; null where nothing was printed.
    """

    model: str
    printed: str
    method: MethodText = None
    length: Length | None = None
    window: int | None = None
    doubt: str = ""
    values: tuple[Annotated[PrintedNumber | None, PlainValidator(_printed_number)], ...]


class PublishedTable(Card):
    """Published table.

    Attributes:
        metric: what the numbers are.
        scale: percent, share (0 to 1), or perplexity (lower is better).
        decimals: number of printed decimals.
        protocol: our protocol that is nearest to how the table was made.
        text: corpus for perplexity by name, where it matters.
        haystack: corpus for needles by name, where it matters.
        dtype: data type of the weights, where it is known.
        samples: number of samples of a cell, where it is not all that a task has.
        version: version of our tasks that the table is compared with.
        suites: suites that run what can be run of the table.
        deviations: what is known to differ from our protocol, or to be unclear.
        missing: parts of the table that are not copied here.
        method: method of rows that name none.
        length: tokens of rows and columns that name no length.
        tasks: tasks of columns that name none.
    """

    source: PublishedSource
    metric: str
    scale: Literal["percent", "share", "perplexity"] = "percent"
    decimals: int
    protocol: str
    text: str = ""
    haystack: str = ""
    dtype: str = ""
    samples: int | None = None
    version: int = 1
    suites: Texts = ()
    deviations: Texts = ()
    missing: Texts = ()
    method: MethodText = None
    length: Length | None = None
    tasks: Tasks = ()
    columns: dict[str, PublishedColumn] = Field(min_length=1)
    rows: tuple[PublishedRow, ...] = Field(min_length=1)

    @validator("columns")
    @classmethod
    def _columns_make_sense(
        cls, columns: dict[str, PublishedColumn], info: ValidationInfo
    ) -> dict[str, PublishedColumn]:
        for name, column in columns.items():
            for part in column.mean:
                if part not in columns:
                    raise _error_at((name, "mean"), f"there is no column {part!r}", part)
            if not (column.mean or column.tasks or info.data.get("tasks")):
                raise _error_at((name,), "neither the column nor the table says which tasks", name)
        return columns

    @validator("rows")
    @classmethod
    def _rows_fit_columns(
        cls, rows: tuple[PublishedRow, ...], info: ValidationInfo
    ) -> tuple[PublishedRow, ...]:
        columns = info.data.get("columns", {})
        for index, row in enumerate(rows):
            # Where the columns are wrong themselves, theirs is the error to report.
            if columns and len(row.values) != len(columns):
                text = f"{len(row.values)} values for {len(columns)} columns ({', '.join(columns)})"
                raise _error_at((index, "values"), text, len(row.values))
        return rows

    @property
    def source_line(self) -> str:
        """Return the source of the table in a line."""
        source = self.source
        places = [f"arXiv {source.arxiv}"] if source.arxiv else []
        if source.repository:
            places.append(source.repository)
        return f"{source.title} ({', '.join(places)}), {source.table}"

    def numbers(self) -> Iterator["PublishedNumber"]:
        """Yield every number of the table, row by row; shares become percent."""
        # LaMPE's and STRING's RULER scripts, for instance, print fractions; our scores are percent.
        factor = 100 if self.scale == "share" else 1
        for row in self.rows:
            spec = self._method_spec(row)
            for name, printed in zip(self.columns, row.values, strict=True):
                if printed is None:
                    continue
                column = self.columns[name]
                yield PublishedNumber(
                    row,
                    spec,
                    name,
                    PrintedNumber(printed.value * factor, printed.is_lower_bound),
                    self.decimals if column.decimals is None else column.decimals,
                    self._mean(row, name),
                )

    def _method_spec(self, row: PublishedRow) -> MethodSpec | None:
        method = row.method or self.method
        return parse_methods([method])[0] if method else None

    def _mean(self, row: PublishedRow, name: str) -> MeanOf:
        column = self.columns[name]
        if column.mean:
            return [self._mean(row, part) for part in column.mean]
        # The narrowest statement holds.
        length = column.length or row.length or self.length
        cells: list[MeanOf] = [PublishedCell(task, length) for task in column.tasks or self.tasks]
        return cells[0] if len(cells) == 1 else cells


@dataclass(frozen=True)
class PublishedNumber:
    """Published number.

    Attributes:
        row: its row.
        spec: our method with the settings that are known; None where we have no such method.
        column: title of its column.
        number: the number, in percent or as perplexity.
        decimals: number of printed decimals.
        mean: what it is the mean of.
    """

    row: PublishedRow
    spec: MethodSpec | None
    column: str
    number: PrintedNumber
    decimals: int
    mean: MeanOf

    @property
    def cells(self) -> list[PublishedCell]:
        """Return all cells that the number is computed from."""
        return list(_cells(self.mean))


def _cells(mean: MeanOf) -> Iterator[PublishedCell]:
    if isinstance(mean, PublishedCell):
        yield mean
        return
    for part in mean:
        yield from _cells(part)


def _error_at(where: tuple[int | str, ...], text: str, value: object) -> ValidationError:
    """Return an error at a place inside the validated field; the card's reader finds its line."""
    details = InitErrorDetails(type=PydanticCustomError("table", text), loc=where, input=value)
    return ValidationError.from_exception_data("table", [details])


def table_names() -> list[str]:
    """Return the names of the shipped tables."""
    return cards.shipped_names("published")


def find_table(name: str) -> PublishedTable:
    """Return a shipped table by its name, or a user's own table by its file.

    Raises:
        UserError: if there is no such table or file, or if the file is wrong.
    """
    path = Path(name)
    # A user's own file goes before a shipped table of that name.
    problem = file_problem(path)
    if not problem:
        return read_card(path, PublishedTable)
    if name in table_names():
        return shipped_card("published", name, PublishedTable)
    if path.suffix in (".yaml", ".yml") or "/" in name:
        raise UserError(f"--against: {name}: {problem}")
    raise unknown_name("published table", name, table_names(), "lampe-eval list published")
