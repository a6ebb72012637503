"""Prediction files as typed records: one place where a file of somebody else is read.

Every format declares the type of its records. A line that does not fit is *broken*: it is left out
and counted, and its message names file and line. That holds for all formats. A file without one
usable line is an error.
"""

import csv
import json
from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, NamedTuple, TypeVar

from pydantic import AliasChoices, BaseModel, ConfigDict, PlainValidator, ValidationError
from pydantic_core import ErrorDetails

from lampe_eval.errors import UserError

BYTE_ORDER_MARK = "\ufeff"
WHITE_SPACE = " \t\r\n" + BYTE_ORDER_MARK

R = TypeVar("R", bound=BaseModel)


class Prediction(NamedTuple):
    """Arguments that the `score` function of a benchmark takes.

    Attributes:
        prediction: the answer.
        references: the references; for InfiniteBench the label.
        extras: anything else that the benchmark's metrics need.
    """

    prediction: str
    references: Any
    extras: Mapping[str, Any]


@dataclass(frozen=True)
class Line:
    """JSON object of a file.

    Attributes:
        number: number of its line, from 1.
        index: number of records before it, broken ones included.
        record: the object.
    """

    number: int
    index: int
    record: dict[str, Any]


@dataclass
class PredictionFile:
    """Prediction file while it is read, with counts of what is not scored.

    Attributes:
        path: the file.
        broken: messages on the lines that cannot be used, each with file and line.
        other_lines: lines that are no records, such as STRING's lines of progress.
        text_references: records whose references are a text instead of a list.
        records: number of records, broken ones included.
        samples: what identifies the sample of each record, where the format says it.
        expected: number of records that the file itself says it should have; 0 if it says none.
    """

    path: Path
    broken: list[str] = field(default_factory=list)
    other_lines: int = 0
    text_references: int = 0
    records: int = 0
    samples: list[Hashable] = field(default_factory=list)
    expected: int = 0

    def lines(self, *, only_objects: bool = False) -> Iterator[Line]:
        """Yield the JSON objects of the file; some published files have two of them on a line.

        Args:
            only_objects: whether lines that do not begin with `{` are no records at all.

        Raises:
            UserError: if the file cannot be read as UTF-8.
        """
        for number, text in text_lines(self.path):
            if only_objects and not text.startswith("{"):
                self.other_lines += 1
                continue
            yield from self._objects(number, text)

    def _objects(self, number: int, text: str) -> Iterator[Line]:
        decoder = json.JSONDecoder()
        while text:
            self.records += 1
            index = self.records - 1
            try:
                record, end = decoder.raw_decode(text)
            except ValueError as error:
                # What follows a broken object on its line cannot be told from it.
                self.add_broken(number, f"is no JSON ({error})")
                return
            except RecursionError:
                self.add_broken(number, "is nested too deeply")
                return
            if isinstance(record, dict):
                yield Line(number, index, record)
            else:
                self.add_broken(number, "is no JSON object")
            text = text[end:].lstrip(WHITE_SPACE)

    def csv_rows(self) -> Iterator[Line]:
        """Yield the rows of a CSV file with their texts as they are.

        Raises:
            UserError: if the file cannot be read as UTF-8.
        """
        for number, row in csv_rows(self.path):
            self.records += 1
            # A row that is cut short has None for its last columns.
            record = {key: value for key, value in row.items() if value is not None}
            yield Line(number, self.records - 1, record)

    def validated(self, line: Line, schema: type[R]) -> R | None:
        """Return a record as its declared type; None, and one broken line more, if it has none."""
        try:
            return schema.model_validate(line.record)
        except ValidationError as error:
            self.add_broken(line.number, message_of(schema, error.errors()[0]))
            return None

    def add_broken(self, number: int, message: str) -> None:
        """Count a line as broken.

        Args:
            number: number of the line, from 1.
            message: what is wrong with it.
        """
        self.broken.append(f"{self.path}:{number}: {message}")

    def add_sample(self, line: Line, *keys: str) -> None:
        """Note the sample of a record, by which repeated ones are found.

        Args:
            line: the record.
            keys: keys that identify the sample together.
        """
        self.samples.append(json.dumps([line.record.get(key) for key in keys], sort_keys=True))


def text_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the lines that are not blank without white space around them, with their numbers.

    Byte order marks count as white space.

    Raises:
        UserError: if the file cannot be read as UTF-8.
    """
    try:
        with path.open(encoding="utf-8") as lines:
            for number, text in enumerate(lines, 1):
                stripped = text.strip(WHITE_SPACE)
                if stripped:
                    yield number, stripped
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read ({error})") from None


def csv_rows(path: Path) -> Iterator[tuple[int, dict[str, str | None]]]:
    """Yield the rows of a CSV file by column, each with the number of its last line.

    pandas would read an answer `NA` or `None` as missing.

    Raises:
        UserError: if the file cannot be read as UTF-8.
    """
    # An answer may be longer than the 131072 characters that csv takes by default.
    csv.field_size_limit(2**31 - 1)
    try:
        with path.open(encoding="utf-8-sig", newline="") as lines:
            reader = csv.DictReader(lines)
            for row in reader:
                texts = {key: value for key, value in row.items() if isinstance(key, str)}
                yield reader.line_num, texts
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path}: cannot be read ({error})") from None


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("is not a text")
    return value


def _reference(value: Any) -> str:
    # Upstream's scorers compare numbers by their text.
    is_number = isinstance(value, int) and not isinstance(value, bool)
    return str(value) if is_number else _text(value)


def _references(value: Any) -> list[str]:
    # Upstream iterates over whatever it gets, so that of a text each character is a reference.
    if isinstance(value, str):
        return list(value)
    if not isinstance(value, list):
        raise ValueError("is not a list of texts")
    try:
        return [_reference(item) for item in value]
    except ValueError:
        raise ValueError("is not a list of texts") from None


def _some_references(value: Any) -> list[str]:
    references = _references(value)
    if not references:
        raise ValueError("is empty")
    return references


# Own validators, since pydantic refuses the lone surrogates that a model's answer may hold.
Text = Annotated[str, PlainValidator(_text)]
"""Text of any characters."""
References = Annotated[list[str], PlainValidator(_references)]
"""References; an integer reads as its text."""
SomeReferences = Annotated[list[str], PlainValidator(_some_references)]
"""References, at least one."""


class Record(BaseModel):
    """Record of a prediction file; keys that no metric needs are ignored."""

    model_config = ConfigDict(strict=True, extra="ignore", protected_namespaces=())


def message_of(schema: type[BaseModel], fault: ErrorDetails) -> str:
    """Return in plain words what is wrong with a record.

    Args:
        schema: declared type of the record.
        fault: what pydantic found.
    """
    names = _names(schema, str(fault["loc"][0])) if fault["loc"] else "the record"
    if fault["type"] == "missing":
        return f"has no {names}"
    if fault["type"] == "value_error":
        return f"{names} {fault['msg'].removeprefix('Value error, ')}"
    return f"{names}: {fault['msg']}"


def _names(schema: type[BaseModel], key: str) -> str:
    """Return the names that a field may have in a file."""
    for name, field_info in schema.model_fields.items():
        alias = field_info.validation_alias
        names = [str(choice) for choice in alias.choices] if isinstance(alias, AliasChoices) else []
        if key == name or key in names:
            return " or ".join(map(repr, names or [name]))
    return repr(key)
