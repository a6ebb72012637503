"""Results on disk. Finished samples are appended one line each and never rewritten; what is there is not done twice.

<run>/run.yaml                                         the resolved configuration; versions and hardware of all sessions
<run>/cells.jsonl                                      every cell and its number of samples
<run>/samples/<model>/<method>/<bench>/<task>.jsonl    one finished sample a line
<run>/run.log                                          what happened when
<run>/.lock, .holder                                   held by the one run that writes, and who that is

Folders of schema 1, whose rows tell neither ends of the prompt nor what a sample cost, are read and gone on with.
"""

import json
import os
import platform
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from datetime import datetime
from pathlib import Path
from typing import Any, cast

import yaml
from filelock import FileLock, Timeout

from lampe_eval.errors import UserError
from lampe_eval.records import SampleRecord

SCHEMA = 2
READABLE_SCHEMAS = (1, 2)
"""Schemas that this version reads."""
FEW = 5
"""Names that a message gives."""
OPTIONS = {
    "models": "--model",
    "methods": "--method",
    "tasks": "--bench",
    "lengths": "--lengths",
    "protocol": "--protocol",
    "limit": "--limit",
    "seed": "--seed",
    "haystack": "--haystack",
    "text": "--text",
    "attention": "--attention",
    "device": "--device",
    "batch": "--max-batch-tokens",
    "plugins": "--plugin",
}
"""What sets a part of the configuration."""


@dataclass(frozen=True)
class Cell:
    """One model x method x task x length: the unit of a table."""

    model: str
    method: str
    bench: str
    task: str
    length: int


CELL = {"samples", *(field.name for field in fields(Cell))}
"""What a line of cells.jsonl says."""


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
            self._description = _described(yaml.safe_load(described.read_text(encoding="utf-8")))
            self.config: dict[str, Any] = self._description["config"]
        except yaml.YAMLError as error:
            what = " ".join(str(error).split())
            raise UserError(
                f"{described}: damaged ({what}); restore it, or run anew with another --output"
            ) from None
        except (OSError, AttributeError, KeyError):
            raise _no_run(folder) from None
        if (schema := self._description["schema"]) not in READABLE_SCHEMAS:
            version = self._description["environments"][0].get("lampe-eval", "of unknown version")
            raise UserError(
                f"{described}: written in schema {schema} by lampe-eval {version}, and this one reads "
                f"{' and '.join(map(str, READABLE_SCHEMAS))}; take the version that wrote it"
            )

    @classmethod
    def create(
        cls, folder: Path, config: Mapping[str, Any], environment: Mapping[str, Any]
    ) -> "Store":
        """The folder of a run of this configuration, new or to be gone on with; for who holds it by ``writing``.

        Raises:
            UserError: where the folder cannot be written, or holds a run of another configuration.
        """
        described = folder / "run.yaml"
        description: dict[str, Any] = {"schema": SCHEMA, "config": config, "environments": []}
        stored = any(folder.glob("samples/**/*.jsonl"))
        if described.exists():
            store = cls(folder)
            if stored:
                store._refuse_other(config)
                description = store._description
        elif stored:
            raise UserError(
                f"{folder}: has samples, but no run.yaml that tells of what; choose another --output"
            )
        if environment not in description["environments"]:
            description["environments"].append(environment)
            try:
                folder.mkdir(parents=True, exist_ok=True)
                _write(described, yaml.safe_dump(description, sort_keys=False, allow_unicode=True))
            except OSError as error:
                raise _unwritable(folder, error) from None
        return cls(folder)

    def plan(self, cells: Mapping[Cell, int]) -> bool:
        """Notes how many samples each cell of the run has, in the order of the tables; whether that was news."""
        lines = [
            json.dumps({**asdict(cell), "samples": samples}, ensure_ascii=False)
            for cell, samples in cells.items()
        ]
        text = "".join(f"{line}\n" for line in lines)
        news = text != self._planned
        if news:
            self.write("cells.jsonl", text)
            self._planned = text
        return news

    def cells(self) -> dict[Cell, int]:
        """Every cell of the run with its number of samples, finished or not.

        Raises:
            UserError: where a line is damaged.
        """
        path, cells = self.folder / "cells.jsonl", dict[Cell, int]()
        for number, record in enumerate(_records(path), start=1):
            if not (isinstance(record, dict) and record.keys() == CELL):
                raise UserError(
                    f"{path}:{number}: damaged; remove the file and run again, which writes it anew"
                )
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
            # half a surrogate pair, which UTF-8 has not, is escaped as JSON escapes it
            with path.open("a", encoding="utf-8", errors="backslashreplace") as file:
                file.write(json.dumps({"length": cell.length, **row}, ensure_ascii=False) + "\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise UserError(
                f"{path}: cannot be written ({error.strerror}); finished samples are kept, run again"
            ) from None

    def rows(self, cell: Cell) -> list[SampleRecord]:
        """Finished samples of a cell in the order of their ids; a line that is torn or damaged does not count."""
        rows = (row for row in _records(self._path(cell)) if _is_row(row))
        found = {row["id"]: row for row in rows if row["length"] == cell.length}
        return [cast(SampleRecord, found[key]) for key in sorted(found)]

    def _path(self, cell: Cell) -> Path:
        return (
            self.folder
            / "samples"
            / _safe(cell.model)
            / _safe(cell.method)
            / cell.bench
            / f"{cell.task}.jsonl"
        )

    def _refuse_other(self, config: Mapping[str, Any]) -> None:
        """Refuses another configuration, naming the first field that differs, those first that options set."""
        for key in dict.fromkeys([*OPTIONS, *self.config, *config]):
            for path, was, now in _differences(
                self.config.get(key), config.get(key), OPTIONS.get(key, key)
            ):
                raise UserError(
                    f"{self.folder}: made with another configuration: {path} was {was}, now {now}; "
                    "choose another --output"
                )


@contextmanager
def lock_for_writing(folder: Path) -> Iterator[None]:
    """Keeps every other run from writing to a folder, which need not be there yet.

    Raises:
        UserError: where another run does, and it says which; where the folder cannot be written.
    """
    lock, holder = FileLock(folder / ".lock"), folder / ".holder"
    since = datetime.now().astimezone().isoformat(sep=" ", timespec="seconds")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
        _write(holder, f"process {os.getpid()} on {platform.node()} since {since}")
    except Timeout:
        raise UserError(
            f"{folder}: another run is writing here{_held_by(holder)}; wait for it, or choose another --output"
        ) from None
    except OSError as error:
        lock.release()
        raise _unwritable(folder, error) from None
    try:
        yield
    finally:
        holder.unlink(missing_ok=True)
        lock.release()


def _unwritable(folder: Path, error: OSError) -> UserError:
    return UserError(f"{folder}: cannot be written ({error.strerror}); choose another --output")


def _no_run(folder: Path) -> UserError:
    """Why a folder is no run's; of one with runs in it, such as a calibration's, their names."""
    runs = sorted(path.parent.name for path in folder.glob("*/run.yaml"))
    if runs and not (folder / "run.yaml").exists():
        kind = "a calibration" if any(folder.glob("*-calibrated.yaml")) else "a folder of runs"
        named = ", ".join(runs[:FEW]) + (", ..." if len(runs) > FEW else "")
        return UserError(f"{folder}: {kind}, not a run; give one of those in it: {named}")
    if folder.is_dir():
        return UserError(
            f"{folder / 'run.yaml'}: not the description of a run; give a run's folder"
        )
    return UserError(
        f"{folder}: {'a file' if folder.exists() else 'no such folder'}; give a run's folder"
    )


def current_writer(folder: Path) -> str:
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


def _described(text: dict[str, Any]) -> dict[str, Any]:
    """A run's description; an older one tells of a single environment."""
    return {
        "schema": text.get("schema", 1),
        "config": text["config"],
        "environments": text.get("environments") or [text.get("environment") or {}],
    }


def _differences(was: Any, now: Any, path: str) -> Iterator[tuple[str, str, str]]:
    """Paths of the innermost fields that differ, with both values, or with the names where one has others."""
    if not (isinstance(was, dict) and isinstance(now, dict)):
        if was != now:
            yield path, _shown(was), _shown(now)
    elif was.keys() != now.keys():
        yield path, _listed(was, now), _listed(now, was)
    else:
        for step in was:
            yield from _differences(was[step], now[step], f"{path} {step}")


def _records(path: Path) -> Iterator[Any]:
    """What the whole lines of a file say; None of one that is damaged."""
    for line in path.read_bytes().split(b"\n")[:-1] if path.exists() else ():
        try:
            yield json.loads(line)
        except ValueError:
            yield None


def _is_row(record: Any) -> bool:
    return isinstance(record, dict) and isinstance(record.get("id"), str) and "length" in record


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


def _shown(value: Any) -> str:
    if value is None:
        return "not given"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _listed(names: Collection[str], others: Collection[str]) -> str:
    """Names; of many, those alone that are not among the others."""
    if len(names) <= FEW:
        return ", ".join(names) or "nothing"
    return ", ".join(["...", *(name for name in names if name not in others)])
