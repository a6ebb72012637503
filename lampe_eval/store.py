"""Results on disk. Finished samples are appended one line each and never rewritten; what is there is not done twice.

<run>/run.yaml                                         the resolved configuration, versions and hardware
<run>/cells.jsonl                                      every cell and its number of samples
<run>/samples/<model>/<method>/<bench>/<task>.jsonl    one finished sample a line
<run>/run.log                                          what happened when
<run>/.lock, .holder                                   held by the one run that writes, and who that is

Folders of schema 1, whose rows tell neither ends of the prompt nor what a sample cost, are read and gone on with.
"""

import json
import os
import platform
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock, Timeout

from lampe_eval.errors import UserError

SCHEMA = 2
READ = (1, 2)
"""Schemas that this version reads."""
FEW = 5
"""Runs that a message names."""


@dataclass(frozen=True)
class Cell:
    """One model x method x task x length: the unit of a table."""

    model: str
    method: str
    bench: str
    task: str
    length: int


class Store:
    """The folder of one run.

    Raises:
        UserError: where the folder holds no run.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._planned = ""
        described = folder / "run.yaml"
        try:
            description = yaml.safe_load(described.read_text(encoding="utf-8"))
            self.config: dict[str, Any] = description["config"]
        except (OSError, yaml.YAMLError, TypeError, KeyError):
            raise _no_run(folder) from None
        schema = description.get("schema", 1)
        if schema not in READ:
            raise UserError(
                f"{described}: written in schema {schema} by lampe-eval {_version(description)}, and this one reads "
                f"{' and '.join(map(str, READ))}; take the version that wrote it"
            )

    @classmethod
    def create(cls, folder: Path, config: Mapping[str, Any], environment: Mapping[str, Any]) -> "Store":
        """The folder of a run of this configuration, new or to be gone on with.

        Raises:
            UserError: where the folder cannot be written, or holds a run of another configuration.
        """
        described = folder / "run.yaml"
        if described.exists():
            store = cls(folder)
            if any(folder.glob("samples/**/*.jsonl")):
                store._refuse_other(config)
                return store
        description = {"schema": SCHEMA, "config": config, "environment": environment}
        try:
            folder.mkdir(parents=True, exist_ok=True)
            _write(described, yaml.safe_dump(description, sort_keys=False, allow_unicode=True))
        except OSError as error:
            raise UserError(f"{folder}: cannot be written ({error.strerror}); choose another --output") from None
        return cls(folder)

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Keeps every other run from writing here.

        Raises:
            UserError: where another run does; it says which.
        """
        lock, holder = FileLock(self.folder / ".lock"), self.folder / ".holder"
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise UserError(
                f"{self.folder}: another run is writing here{_held_by(holder)}; wait for it, or choose another --output"
            ) from None
        except OSError as error:
            raise UserError(f"{self.folder}: cannot be written ({error.strerror}); choose another --output") from None
        try:
            since = datetime.now().astimezone().isoformat(sep=" ", timespec="seconds")
            self.write(holder.name, f"process {os.getpid()} on {platform.node()} since {since}")
            yield
        finally:
            holder.unlink(missing_ok=True)
            lock.release()

    def plan(self, cells: Mapping[Cell, int]) -> bool:
        """Notes how many samples each cell of the run has, in the order of the tables; whether that was news."""
        lines = [
            json.dumps({**asdict(cell), "samples": samples}, ensure_ascii=False) for cell, samples in cells.items()
        ]
        text = "".join(f"{line}\n" for line in lines)
        news = text != self._planned
        if news:
            self.write("cells.jsonl", text)
            self._planned = text
        return news

    def cells(self) -> dict[Cell, int]:
        """Every cell of the run with its number of samples, finished or not."""
        cells: dict[Cell, int] = {}
        for record in _lines(self.folder / "cells.jsonl"):
            samples = record.pop("samples")
            cells[Cell(**record)] = samples
        return cells

    def write(self, name: str, text: str) -> None:
        """Writes a file of the run, such as a table, whole or not at all.

        Raises:
            UserError: where the disk refuses.
        """
        try:
            _write(self.folder / name, text)
        except OSError as error:
            raise UserError(f"{self.folder / name}: cannot be written ({error.strerror})") from None

    def append(self, cell: Cell, row: Mapping[str, Any]) -> None:
        """Stores a finished sample; it is on disk when this returns.

        Raises:
            UserError: where the disk refuses, such as a full one; what was stored before is whole.
        """
        path = self._path(cell)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            _drop_torn_line(path)
            with path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"length": cell.length, **row}, ensure_ascii=False) + "\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise UserError(
                f"{path}: cannot be written ({error.strerror}); finished samples are kept, run again"
            ) from None

    def rows(self, cell: Cell) -> list[dict[str, Any]]:
        """Finished samples of a cell in the order of their ids; a torn last line does not count."""
        found = {row["id"]: row for row in _lines(self._path(cell)) if row["length"] == cell.length}
        return [found[key] for key in sorted(found)]

    def _path(self, cell: Cell) -> Path:
        return self.folder / "samples" / _safe(cell.model) / _safe(cell.method) / cell.bench / f"{cell.task}.jsonl"

    def _refuse_other(self, config: Mapping[str, Any]) -> None:
        """Refuses another configuration, naming the first field that differs."""
        for key, was, now in _differences(self.config, config):
            raise UserError(
                f"{self.folder}: made with another configuration: {key} was {_short(was)}, now {_short(now)}; "
                "choose another --output"
            )


def _no_run(folder: Path) -> UserError:
    """Why a folder is no run's; of one with runs in it, such as a calibration's, their names."""
    runs = sorted(path.parent.name for path in folder.glob("*/run.yaml"))
    if runs and not (folder / "run.yaml").exists():
        kind = "a calibration" if any(folder.glob("*-calibrated.yaml")) else "a folder of runs"
        named = ", ".join(runs[:FEW]) + (", ..." if len(runs) > FEW else "")
        return UserError(f"{folder}: {kind}, not a run; give one of those in it: {named}")
    what = "not the description of a run" if folder.is_dir() else "no such folder"
    return UserError(f"{folder / 'run.yaml'}: {what}; give a run's folder")


def writer(folder: Path) -> str:
    """Who writes to a folder at the moment, as far as it is written; empty where nobody does."""
    holder = folder / ".holder"
    if not holder.exists():
        return ""
    try:
        with FileLock(folder / ".lock").acquire(timeout=0):
            return ""  # a run that was killed left its name
    except OSError:  # held, or not ours to ask
        return _held_by(holder).removeprefix(": ") or "another process"


def _held_by(holder: Path) -> str:
    """Who holds the lock, as far as it is written."""
    try:
        return f": {holder.read_text(encoding='utf-8')}"
    except OSError:
        return ""


def _version(description: Mapping[str, Any]) -> str:
    return str((description.get("environment") or {}).get("lampe-eval", "of unknown version"))


def _differences(was: Any, now: Any, key: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Paths of the innermost fields that differ, with both values."""
    if isinstance(was, dict) and isinstance(now, dict):
        for step in [*was, *(step for step in now if step not in was)]:
            yield from _differences(was.get(step), now.get(step), f"{key}.{step}" if key else step)
    elif was != now:
        yield key, was, now


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    if not path.exists():
        return
    for number, line in enumerate(path.read_bytes().splitlines(keepends=True), start=1):
        if line.endswith(b"\n"):
            try:
                yield json.loads(line)
            except ValueError:
                raise UserError(f"{path}:{number}: damaged; take the line out and run again") from None


def _drop_torn_line(path: Path) -> None:
    """Cuts off what a killed run left of its last line."""
    if not path.exists():
        return
    with path.open("r+b") as file:
        end = file.seek(0, os.SEEK_END)
        if end and (file.seek(end - 1), file.read(1))[1] != b"\n":
            file.seek(0)
            file.truncate(file.read().rfind(b"\n") + 1)


def _write(path: Path, text: str) -> None:
    """Writes a file whole or not at all."""
    draft = path.with_suffix(path.suffix + ".part")
    draft.write_text(text, encoding="utf-8")
    draft.replace(path)


def _safe(name: str) -> str:
    """A name as a folder: characters that file systems dislike are written as %XX."""
    return "".join(c if c.isalnum() or c in "-_.+=," else f"%{ord(c):02X}" for c in name)


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 80 else f"{text[:77]}..."
