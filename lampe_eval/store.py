"""Results of a run on disk: finished samples are appended, and never rewritten or run twice.

<run>/run.yaml                                        configuration; environments of all sessions
<run>/cells.jsonl                                     every cell and its number of samples
<run>/samples/<model>/<method>/<bench>/<task>.jsonl   one finished sample a line
<run>/run.log                                         what happened when
<run>/.lock, .holder                                  lock of the process that writes, its name

What these files hold is declared in `lampe_eval.records`; everything read from them is checked
against those types here and nowhere else.
"""

import json
import os
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import date, datetime
from math import isfinite
from pathlib import Path
from typing import Any, TypeVar, cast

from pydantic import ValidationError

from lampe_eval import records
from lampe_eval.errors import UserError, first_names, report_warning
from lampe_eval.file_io import (
    open_unlinked,
    read_bytes,
    refuse_links,
    safe_name,
    save_file,
    unwritable,
    write_atomically,
)
from lampe_eval.method_specs import choose_reference
from lampe_eval.records import (
    CellRecord,
    ExtensionRecord,
    ResolvedSettings,
    RunConfiguration,
    RunRecord,
    SampleRecord,
)
from lampe_eval.run_description import read_description
from lampe_eval.yaml_files import write_yaml

T = TypeVar("T")


@dataclass(frozen=True)
class Cell:
    """Cell of a table: one model x method x task x length."""

    model: str
    method: str
    bench: str
    task: str
    length: int

    @property
    def place(self) -> str:
        """Return everything but the length, as samples state where they belong."""
        return f"{self.model} · {self.method} · {self.bench}/{self.task}"


@dataclass(frozen=True)
class Session:
    """Session that begins a run or goes on with it.

    Attributes:
        options: options of its command by name.
        cells: cells that it runs.
        date: date that chat templates write into its prompts.
        reference: label of the method that others are compared with, if the session states it.
    """

    options: Mapping[str, Any]
    cells: Collection[Cell]
    date: date
    reference: str | None = None


class Store:
    """Folder of one run.

    Attributes:
        folder: path of the folder.
        config: the run's configuration.
        reference: label of the method that others are compared with; None in older runs.

    Raises:
        UserError: if the folder holds no run, or one of another schema.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._description = read_description(folder)
        self.config: RunConfiguration = self._description["config"]
        self.reference = self._description.get("reference")
        self._written: dict[str, str] = {}
        self._appended_to: set[Path] = set()

    @classmethod
    def with_samples(cls, folder: Path) -> "Store | None":
        """Return the run in a folder; None if it has no sample, so that any run may begin there.

        Raises:
            UserError: if the folder holds another thing, or samples that nothing describes.
        """
        has_samples = any(folder.glob("samples/**/*.jsonl"))
        if has_samples and not (folder / "run.yaml").exists():
            raise UserError(
                f"{folder}: has samples, but no run.yaml that describes them; "
                "choose another --output"
            )
        store = cls(folder) if (folder / "run.yaml").exists() else None
        return store if has_samples else None

    @classmethod
    def create(
        cls,
        folder: Path,
        config: RunConfiguration,
        environment: Mapping[str, Any],
        session: Session | None = None,
    ) -> "Store":
        """Open the folder of a run, new or to be resumed; the caller holds its lock.

        Args:
            folder: where the run is or will be.
            config: what scores depend on; the caller has compared it with what is stored.
            environment: versions and hardware of this session.
            session: what is recorded of this session, if anything.

        Raises:
            UserError: if the folder cannot be written, or holds another thing.
        """
        stored = cls.with_samples(folder)
        description = _description(stored, config, environment, session)
        text = write_yaml(description)
        try:
            if stored is None:
                # Of a first attempt, whose cells may be others.
                (folder / "cells.jsonl").unlink(missing_ok=True)
            else:
                stored._raise_counts(config)
            if stored is None or description != stored._description:
                write_atomically(folder / "run.yaml", text)
        except OSError as error:
            raise unwritable(folder, error, "choose another --output") from None
        store = cls(folder)
        store._written["run.yaml"] = text
        return store

    def restore(self) -> None:
        """Write run.yaml and cells.jsonl anew where somebody removed them while this run writes.

        Removed samples are reported; the next session runs them again.

        Raises:
            UserError: if the disk refuses.
        """
        for name, text in self._written.items():
            if not (self.folder / name).exists():
                report_warning(f"{self.folder / name}: was removed; it is written anew")
                self.write(name, text)
        for path in [path for path in self._appended_to if not path.exists()]:
            self._appended_to.remove(path)
            report_warning(f"{path}: was removed; the same command again runs its samples")

    def save_cells(
        self,
        cells: Mapping[Cell, int],
        resolved: Mapping[Cell, ResolvedSettings] | None = None,
        at_most: Mapping[Cell, int] | None = None,
    ) -> bool:
        """Write how many samples each cell of the run has, in the order of the configuration.

        Args:
            cells: number of samples of each cell.
            resolved: settings of each cell's method at its length, for the cells that have them.
            at_most: samples that cells could have had which a stopping rule ended.

        Returns:
            Whether this differs from what was saved before.

        Raises:
            UserError: if the disk refuses.
        """
        order = {cell: place for place, cell in enumerate(self._possible_cells())}
        lines: list[str] = []
        for cell in sorted(cells, key=lambda cell: order.get(cell, len(order))):
            record = {**asdict(cell), "samples": cells[cell]}
            if at_most and cell in at_most:
                record["at_most"] = at_most[cell]
            if resolved and cell in resolved:
                record["resolved"] = resolved[cell]
            lines.append(json.dumps(record, ensure_ascii=False))
        text = "".join(f"{line}\n" for line in lines)
        # Called for each group of samples, of which most change nothing.
        if text == self._written.get("cells.jsonl"):
            return False
        self.write("cells.jsonl", text)
        self._written["cells.jsonl"] = text
        return True

    def cells(self) -> dict[Cell, int]:
        """Return every cell of the run with its number of samples, finished or not.

        Raises:
            UserError: if a line is damaged.
        """
        return {cell: record["samples"] for cell, record in self._cell_records().items()}

    def at_most(self) -> dict[Cell, int]:
        """Return the samples that each cell could have had which a stopping rule ended.

        Raises:
            UserError: if a line is damaged.
        """
        records = self._cell_records()
        return {cell: record["at_most"] for cell, record in records.items() if "at_most" in record}

    def resolved_settings(self) -> dict[Cell, ResolvedSettings]:
        """Return the settings of each cell's method at its length; older runs have none.

        Raises:
            UserError: if a line is damaged.
        """
        settings: dict[Cell, ResolvedSettings] = {}
        for cell, record in self._cell_records().items():
            if "resolved" in record:
                settings[cell] = record["resolved"]
        return settings

    def _cell_records(self) -> dict[Cell, CellRecord]:
        """Return the record of every cell of the run."""
        path = self.folder / "cells.jsonl"
        cells: dict[Cell, CellRecord] = {}
        for number, line in enumerate(_parse_lines(path, torn_counts=True), start=1):
            try:
                record = records.CELL.validate_python(line)
            except ValidationError:
                raise UserError(
                    f"{path}:{number}: damaged; remove the file and run again, which rewrites it"
                ) from None
            cell = Cell(
                record["model"],
                record["method"],
                record["bench"],
                record["task"],
                record["length"],
            )
            cells[cell] = record
        return cells

    def write(self, name: str, text: str) -> None:
        """Write a file of the run, such as a table, whole or not at all.

        Raises:
            UserError: if the disk refuses.
        """
        save_file(self.folder / name, text)

    def append(self, cell: Cell, sample: SampleRecord) -> None:
        """Store a finished sample; it is on disk when this returns.

        Raises:
            UserError: if the disk refuses, such as a full one; what was stored before stays whole.
        """
        self.restore()
        path = self._samples_file(cell)
        line = json.dumps({**sample, "cell": cell.place}, ensure_ascii=False) + "\n"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            _drop_torn_line(path)
            # UTF-8 cannot encode half a surrogate pair, which a model may generate; the error
            # handler writes it with the backslash escape that JSON reads back.
            with open(
                path, "a", encoding="utf-8", errors="backslashreplace", opener=open_unlinked
            ) as file:
                file.write(line)
                file.flush()
                # Without fsync a power failure could lose samples that were reported as finished.
                os.fsync(file.fileno())
            self._appended_to.add(path)
        except OSError as error:
            raise unwritable(path, error, "finished samples are kept, run again") from None

    def rows(self, cell: Cell) -> list[SampleRecord]:
        """Return the finished samples of a cell, as `rows_by_cell` does for several."""
        return self.rows_by_cell([cell])[cell]

    def rows_by_cell(self, cells: Iterable[Cell]) -> dict[Cell, list[SampleRecord]]:
        """Return the finished samples of cells in the order of their ids.

        A line that is torn, damaged, not of the declared types or another cell's does not count:
        its sample is missing until it is run again. Of two lines with one id the later one counts.
        """
        sorted_samples: dict[Cell, list[SampleRecord]] = {}
        rows_in_file_order, _ = self._rows_in_file_order(cells)
        for cell, rows in rows_in_file_order.items():
            sorted_samples[cell] = [rows[key] for key in sorted(rows)]
        return sorted_samples

    def planned_rows(
        self, cells: Mapping[Cell, int]
    ) -> tuple[dict[Cell, list[SampleRecord]], list[str]]:
        """Return at most as many finished samples of each cell as it has, and what is left out.

        Methods get the same samples of a task at a length. Of samples in excess those count that
        most methods have, then those that were stored first: what belongs to no
        cell was added to a file later.

        Args:
            cells: cells with their numbers of samples.

        Returns:
            The samples in the order of their ids, and a line for each cell with others and each
            file with lines that are damaged or another cell's.
        """
        rows_by_cell, left_out = self._rows_in_file_order(cells)
        methods = Counter[tuple[str, str, str, int, str]]()
        for cell, rows in rows_by_cell.items():
            methods.update((cell.model, cell.bench, cell.task, cell.length, key) for key in rows)
        planned: dict[Cell, list[SampleRecord]] = {}
        for cell, rows in rows_by_cell.items():
            group = (cell.model, cell.bench, cell.task, cell.length)
            # sorted() is stable: equal ones stay in the order of the file.
            ids = sorted(rows, key=lambda key: -methods[*group, key])
            planned[cell] = [rows[key] for key in sorted(ids[: cells[cell]])]
            others = ids[cells[cell] :]
            if others:
                left_out.append(
                    f"{self._samples_file(cell)}: {len(others)} more samples of length "
                    f"{cell.length} than the {cells[cell]} of the cell: {first_names(others)}"
                )
        return planned, left_out

    def _rows_in_file_order(
        self, cells: Iterable[Cell]
    ) -> tuple[dict[Cell, dict[str, SampleRecord]], list[str]]:
        """Return the samples of cells by id, and a line for each file with others in it."""
        samples: dict[Cell, dict[str, SampleRecord]] = {}
        left_out: list[str] = []
        cells_by_file: dict[Path, dict[int, Cell]] = {}
        for cell in cells:
            samples[cell] = {}
            cells_by_file.setdefault(self._samples_file(cell), {})[cell.length] = cell
        # A file holds all lengths of a task, and checking its lines takes most of the time, so
        # that each file is read once.
        for path, cell_of_length in cells_by_file.items():
            places = {cell.place for cell in cell_of_length.values()}
            unusable: list[int] = []
            for number, line in enumerate(_parse_lines(path), start=1):
                # Runs of before 0.2 do not state the cell.
                if not _is_sample(line) or not places.issuperset({line.pop("cell", *places)}):
                    unusable.append(number)
                elif line["length"] in cell_of_length:
                    samples[cell_of_length[line["length"]]][line["id"]] = line
            if unusable:
                left_out.append(
                    f"{path}: {len(unusable)} lines are damaged or of another cell, the first is "
                    f"line {unusable[0]}"
                )
        return samples, left_out

    def known_cells(self) -> dict[Cell, int]:
        """Return `cells`; where cells.jsonl is lost, all cells that have samples, as planned."""
        if (self.folder / "cells.jsonl").exists():
            return self.cells()
        rows_by_cell = self.rows_by_cell(self._possible_cells())
        return {
            cell: _planned_samples(self.config, cell) for cell, rows in rows_by_cell.items() if rows
        }

    def _possible_cells(self) -> Iterator[Cell]:
        """Yield every cell that this configuration may have, in the order of tables."""
        for model, lengths_by_bench in self.config["lengths"].items():
            for task in self.config["tasks"]:
                bench, _, name = task.partition("/")
                for length in lengths_by_bench.get(bench, []):
                    for method in self.config["methods"]:
                        yield Cell(model, method, bench, name, length)

    def _raise_counts(self, config: RunConfiguration) -> None:
        """Plan more samples for the cells that only the limit has kept from having more.

        Until such a cell runs under the new limit, its new samples count as missing.
        """
        if config["limit"] == self.config["limit"]:
            return
        counts: dict[Cell, int] = {}
        for cell, samples in self.known_cells().items():
            has_more = samples >= _planned_samples(self.config, cell)
            counts[cell] = _planned_samples(config, cell) if has_more else samples
        self.save_cells(counts, self.resolved_settings())

    def _samples_file(self, cell: Cell) -> Path:
        """Return the file of a cell's samples.

        Raises:
            UserError: if it is a link, or leads through one.
        """
        names = map(safe_name, (cell.model, cell.method, cell.bench))
        path = self.folder.joinpath("samples", *names, safe_name(f"{cell.task}.jsonl"))
        refuse_links(self.folder, path)
        return path


def _planned_samples(config: RunConfiguration, cell: Cell) -> int:
    """Return the most samples that a cell may have."""
    return config["limit"] or int(config["tasks"][f"{cell.bench}/{cell.task}"]["samples"])


def _description(
    stored: Store | None,
    config: RunConfiguration,
    environment: Mapping[str, Any],
    session: Session | None,
) -> RunRecord:
    """Return the description of a run to which a session adds something, or which it begins."""
    # A folder without samples takes another configuration: a first attempt may be corrected.
    before: Mapping[str, Any] = stored._description if stored else {}
    environments = list(before.get("environments", []))
    # Environments are recorded and not compared: a run may be resumed on another machine.
    if environment not in environments:
        environments.append(environment)
    description: dict[str, Any] = {
        **before,
        "schema": records.SCHEMA,
        "config": config,
        "environments": environments,
    }
    if session:
        description.setdefault("date", session.date)
        # Recorded before anything is run: who chose it after the results would find too much.
        stated = session.reference or before.get("reference")
        description["reference"] = choose_reference(stated, list(config["methods"]))
        added = _additions(stored, config, session.cells)
        if added:
            now = datetime.now().astimezone().replace(microsecond=0)
            entry = ExtensionRecord(time=now, options=session.options, added=added)
            description["history"] = [*before.get("history", []), entry]
    # In the order of their declaration, in which people read them.
    keys = [key for key in RunRecord.__annotations__ if key in description]
    return cast(RunRecord, {key: description[key] for key in keys})


def _additions(
    stored: Store | None, config: RunConfiguration, cells: Iterable[Cell]
) -> dict[str, Any]:
    """Return what a session adds to a run, by the names of `records.ExtensionRecord`."""
    known = stored.known_cells() if stored else {}
    new = [cell for cell in cells if cell not in known]
    added: dict[str, Any] = {}
    if new:
        added["models"] = _unique(cell.model for cell in new)
        added["methods"] = _unique(cell.method for cell in new)
        added["tasks"] = _unique(f"{cell.bench}/{cell.task}" for cell in new)
        added["lengths"] = _unique(cell.length for cell in new)
        added["cells"] = len(new)
    if stored is None or stored.config["limit"] != config["limit"]:
        added["limit"] = config["limit"]
    return added


def _unique(values: Iterable[T]) -> list[T]:
    return list(dict.fromkeys(values))


def _parse_lines(path: Path, *, torn_counts: bool = False) -> Iterator[Any]:
    """Yield the JSON value of each line; None for a damaged line.

    Args:
        path: the file.
        torn_counts: whether what follows the last newline is a line. A file that is appended to
            ends with a newline, and what follows was torn by a kill; one that is written as a
            whole is damaged there.
    """
    *lines, last = read_bytes(path).split(b"\n")
    if torn_counts and last:
        lines.append(last)
    for line in lines:
        try:
            value = json.loads(line, parse_constant=_refuse_constant, parse_float=_finite)
        # ValueError: also numbers of thousands of digits, and what is not UTF-8.
        except (ValueError, RecursionError):
            value = None
        yield value


def _refuse_constant(name: str) -> float:
    """Refuse NaN and infinity, which Python reads and JSON does not have."""
    raise ValueError(f"{name} is no number")


def _finite(text: str) -> float:
    number = float(text)
    if not isfinite(number):
        raise ValueError(f"{text} is too large a number")
    return number


def _is_sample(line: Any) -> bool:
    """Return whether a line has the types of a sample's record."""
    # The result of validation is not used: it turns whole numbers into floats.
    try:
        records.SAMPLE.validate_python(line)
    except ValidationError:
        return False
    return True


def _drop_torn_line(path: Path) -> None:
    """Cut off the unfinished last line that a killed run left."""
    if not path.exists():
        return
    with open(path, "r+b", opener=open_unlinked) as file:
        size = file.seek(0, os.SEEK_END)
        if size == 0:
            return
        file.seek(size - 1)
        if file.read(1) == b"\n":
            return
        file.seek(0)
        file.truncate(file.read().rfind(b"\n") + 1)
