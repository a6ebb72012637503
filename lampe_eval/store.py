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
import platform
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import date, datetime
from pathlib import Path
from typing import Any, TypeVar, cast

from filelock import FileLock, Timeout
from pydantic import ValidationError

from lampe_eval import records
from lampe_eval.cards import plain_message
from lampe_eval.errors import UserError, report_warning
from lampe_eval.file_io import save_file, unwritable, write_atomically
from lampe_eval.records import ExtensionRecord, RunConfiguration, RunRecord, SampleRecord
from lampe_eval.yaml_files import read_yaml, write_yaml

T = TypeVar("T")

MAX_LISTED = 5
"""Names that a message lists at most."""


@dataclass(frozen=True)
class Cell:
    """Cell of a table: one model x method x task x length."""

    model: str
    method: str
    bench: str
    task: str
    length: int


@dataclass(frozen=True)
class Session:
    """Session that begins a run or goes on with it.

    Attributes:
        options: options of its command by name.
        cells: cells that it runs.
        date: date that chat templates write into its prompts.
    """

    options: Mapping[str, Any]
    cells: Collection[Cell]
    date: date


class Store:
    """Folder of one run.

    Attributes:
        folder: path of the folder.
        config: the run's configuration.

    Raises:
        UserError: if the folder holds no run, or one of another schema.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._description = _read_description(folder)
        self.config: RunConfiguration = self._description["config"]
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

    def save_cells(self, cells: Mapping[Cell, int]) -> bool:
        """Write how many samples each cell of the run has, in the order of the configuration.

        Returns:
            Whether this differs from what was saved before.

        Raises:
            UserError: if the disk refuses.
        """
        order = {cell: place for place, cell in enumerate(self._possible_cells())}
        lines = [
            json.dumps({**asdict(cell), "samples": cells[cell]}, ensure_ascii=False)
            for cell in sorted(cells, key=lambda cell: order.get(cell, len(order)))
        ]
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
        path = self.folder / "cells.jsonl"
        cells: dict[Cell, int] = {}
        for number, line in enumerate(_parse_lines(path), start=1):
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
            cells[cell] = record["samples"]
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
        line = json.dumps(sample, ensure_ascii=False) + "\n"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            _drop_torn_line(path)
            # UTF-8 cannot encode half a surrogate pair, which a model may generate; the error
            # handler writes it with the backslash escape that JSON reads back.
            with path.open("a", encoding="utf-8", errors="backslashreplace") as file:
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

        A line that is torn, damaged or not of the declared types does not count: its sample is
        missing until it is run again. Of two lines with one id the later one counts.
        """
        samples: dict[Cell, dict[str, SampleRecord]] = {}
        cells_by_file: dict[Path, dict[int, Cell]] = {}
        for cell in cells:
            samples[cell] = {}
            cells_by_file.setdefault(self._samples_file(cell), {})[cell.length] = cell
        # A file holds all lengths of a task, and checking its lines takes most of the time, so
        # that each file is read once.
        for path, cell_of_length in cells_by_file.items():
            for line in _parse_lines(path):
                if _is_sample(line) and line["length"] in cell_of_length:
                    samples[cell_of_length[line["length"]]][line["id"]] = line
        sorted_samples: dict[Cell, list[SampleRecord]] = {}
        for cell, rows in samples.items():
            sorted_samples[cell] = [rows[key] for key in sorted(rows)]
        return sorted_samples

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
        self.save_cells(counts)

    def _samples_file(self, cell: Cell) -> Path:
        folder = self.folder / "samples" / _safe(cell.model) / _safe(cell.method)
        return folder / cell.bench / f"{cell.task}.jsonl"


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


def run_date(folder: Path) -> date:
    """Return the date that chat templates write into the prompts of a folder's run.

    It is that of the run's first session: a prompt that changed at midnight would be another one.

    Raises:
        UserError: if run.yaml is damaged.
    """
    today = datetime.now().astimezone().date()
    if not (folder / "run.yaml").exists():
        return today
    return _read_description(folder).get("date", today)


class FolderLock:
    """Lock of a run's folder, which need not exist yet, for the process that writes to it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._path = folder / ".lock"
        self._holder = folder / ".holder"
        self._lock = FileLock(self._path)
        self._since = datetime.now().astimezone().isoformat(sep=" ", timespec="seconds")

    def acquire(self) -> None:
        """Take the lock.

        Raises:
            UserError: if another run holds it, with its process, or the folder cannot be written.
        """
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._lock.acquire(timeout=0)
            self._file = self._path.stat()
            process = f"process {os.getpid()} on {platform.node()} since {self._since}"
            write_atomically(self._holder, process)
        except Timeout:
            raise self._is_taken() from None
        except OSError as error:
            self._lock.release()
            raise unwritable(self._folder, error, "choose another --output") from None

    def renew(self) -> None:
        """Take the lock again where somebody removed its file.

        Raises:
            UserError: if another run has taken it since.
        """
        if not self._path.exists():
            self._lock.release()
            self.acquire()
        elif not self._is_ours():
            raise self._is_taken()

    def release(self) -> None:
        """Leave the folder to others."""
        # Before the lock is released: afterwards the file may be that of the next run.
        if self._is_ours():
            self._holder.unlink(missing_ok=True)
        self._lock.release()

    def _is_ours(self) -> bool:
        """Return whether the lock's file is still the one that this process has locked."""
        return self._path.exists() and os.path.samestat(self._file, self._path.stat())

    def _is_taken(self) -> UserError:
        return UserError(
            f"{self._folder}: another run is writing here{_held_by(self._holder)}; "
            "wait for it, or choose another --output"
        )


@contextmanager
def lock_for_writing(folder: Path) -> Iterator[FolderLock]:
    """Keep every other run from writing to a folder.

    Raises:
        UserError: as `FolderLock.acquire`.
    """
    lock = FolderLock(folder)
    lock.acquire()
    try:
        yield lock
    finally:
        lock.release()


def current_writer(folder: Path) -> str:
    """Return which process writes to a folder now, or an empty text if none does."""
    holder = folder / ".holder"
    if not holder.exists():
        return ""
    try:
        with FileLock(folder / ".lock").acquire(timeout=0):
            return ""  # the file is left over from a run that was killed
    except OSError:  # another process holds the lock, or we may not open it
        return _held_by(holder).removeprefix(": ") or "another process"


def _held_by(holder: Path) -> str:
    """Return ": " and the process that holds the lock; an empty text if it cannot be read."""
    try:
        return f": {holder.read_text(encoding='utf-8')}"
    except OSError:
        return ""


def _read_description(folder: Path) -> RunRecord:
    """Read run.yaml.

    Raises:
        UserError: if there is none, or it is damaged, of another schema or of other types.
    """
    path = folder / "run.yaml"
    if not path.is_file():
        raise _no_run(folder)
    try:
        description = read_yaml(path).value
    except UserError as error:
        raise UserError(f"{error}; restore it, or run again with another --output") from None
    if not isinstance(description, dict) or "config" not in description:
        raise _no_run(folder)
    _refuse_other_schema(path, description)
    try:
        # As JSON, in which a text is a date; YAML's core schema has no dates either.
        checked: RunRecord = records.RUN.validate_json(json.dumps(description))
    except ValidationError as error:
        fault = error.errors()[0]
        key = ".".join(map(str, fault["loc"]))
        if fault["type"] == "extra_forbidden":
            raise UserError(
                f"{path}: key {key!r} is unknown to this version of lampe-eval; take the version "
                "that wrote it, or run again with another --output"
            ) from None
        raise UserError(
            f"{path}: damaged (key {key!r} {plain_message(fault)}); "
            "restore it, or run again with another --output"
        ) from None
    return checked


def _refuse_other_schema(path: Path, description: Mapping[str, Any]) -> None:
    """Refuse a run of another schema: the meaning of its keys may differ without a trace."""
    schema = description.get("schema")
    if schema == records.SCHEMA:
        return
    raise UserError(
        f"{path}: written in {'no schema' if schema is None else f'schema {schema}'} by lampe-eval "
        f"{_version_that_wrote(description)}; this version reads schema {records.SCHEMA}; "
        "run again with another --output, or take the version that wrote it"
    )


def _version_that_wrote(description: Mapping[str, Any]) -> str:
    """Return the version of the first session; schemas below 3 could hold a single environment."""
    environments = description.get("environments")
    first = environments[0] if isinstance(environments, list) and environments else None
    environment = first or description.get("environment")
    if isinstance(environment, dict):
        return str(environment.get("lampe-eval", "of unknown version"))
    return "of unknown version"


def is_calibration(folder: Path) -> bool:
    """Return whether the runs in a folder are the steps of a calibration."""
    return any(folder.glob("*-calibrated.yaml"))


def _no_run(folder: Path) -> UserError:
    """Return why a folder is not a run's; it lists the runs in one such as a calibration's."""
    runs = sorted(path.parent.name for path in folder.glob("*/run.yaml"))
    if runs and not (folder / "run.yaml").exists():
        kind = "a calibration" if is_calibration(folder) else "a folder of runs"
        names = ", ".join(runs[:MAX_LISTED]) + (", ..." if len(runs) > MAX_LISTED else "")
        return UserError(f"{folder}: {kind}, not a run; give one of those in it: {names}")
    if folder.is_dir():
        return UserError(
            f"{folder / 'run.yaml'}: not the description of a run; give a run's folder"
        )
    problem = "a file" if folder.exists() else "no such folder"
    return UserError(f"{folder}: {problem}; give a run's folder")


def _parse_lines(path: Path) -> Iterator[Any]:
    """Yield the JSON value of each line; None for a damaged line, nothing for a torn last one."""
    if not path.exists():
        return
    # A whole file ends with a newline; what follows the last one was torn by a kill.
    for line in path.read_bytes().split(b"\n")[:-1]:
        try:
            value = json.loads(line)
        except ValueError:
            value = None
        yield value


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
    with path.open("r+b") as file:
        size = file.seek(0, os.SEEK_END)
        if size == 0:
            return
        file.seek(size - 1)
        if file.read(1) == b"\n":
            return
        file.seek(0)
        file.truncate(file.read().rfind(b"\n") + 1)


def _safe(name: str) -> str:
    """Return a name as a folder's: characters that file systems dislike are written as %XX."""
    return "".join(c if c.isalnum() or c in "-_.+=," else f"%{ord(c):02X}" for c in name)
