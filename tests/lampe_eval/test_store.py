"""Stored results survive a kill at any byte, are checked on reading, and are never mixed."""

import dataclasses
import json
import os
import platform
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from lampe_eval.errors import UserError
from lampe_eval.folder_lock import lock_for_writing
from lampe_eval.records import SCHEMA, SampleRecord
from lampe_eval.store import Cell, Store
from tests.lampe_eval.stored_runs import configuration

CELL = Cell("org/model", "lampe:head_tokens=3", "niah", "single", 256)
METHODS = {"lampe": {"org/model": {"head_tokens": 3}}}
CONFIG = configuration(methods=METHODS)


def _store(folder: Path) -> Store:
    return Store.create(folder, CONFIG, {"torch": "x"})


def _record(key: str, cell: Cell = CELL, **outcome: Any) -> SampleRecord:
    return {
        "id": key,
        "length": cell.length,
        "prompt_sha256": "e3b0",
        "prompt_tokens": 9,
        **outcome,
    }


def test_rows_come_back_in_order_of_their_ids_and_by_length(tmp_path: Path) -> None:
    store = _store(tmp_path)
    for key in ("b", "a"):
        store.append(CELL, _record(key, prediction="ü\n"))
    longer = dataclasses.replace(CELL, length=512)
    store.append(longer, _record("c", longer))
    assert [row["id"] for row in store.rows(CELL)] == ["a", "b"]
    assert store.rows(CELL)[0]["prediction"] == "ü\n"


def test_half_a_surrogate_pair_comes_back_as_it_was(tmp_path: Path) -> None:
    store = _store(tmp_path)
    store.append(CELL, _record("a", prediction="ü\ud83d"))
    assert store.rows(CELL)[0]["prediction"] == "ü\ud83d"


def test_a_line_torn_anywhere_is_dropped_and_done_again(tmp_path: Path) -> None:
    store = _store(tmp_path)
    store.append(CELL, _record("a"))
    path = next(tmp_path.rglob("*.jsonl"))
    whole = path.read_bytes()
    store.append(CELL, _record("b", prediction="ü"))
    line = path.read_bytes()[len(whole) :]
    for cut in range(len(line)):
        path.write_bytes(whole + line[:cut])
        assert [row["id"] for row in store.rows(CELL)] == ["a"]
        store.append(CELL, _record("b"))
        assert [row["id"] for row in store.rows(CELL)] == ["a", "b"]


def test_names_of_any_kind_stay_inside_the_folder(tmp_path: Path) -> None:
    store = _store(tmp_path / "run")
    cell = Cell("../../etc", "a/b:c=1", "niah", "single", 1)
    store.append(cell, _record("a", cell))
    assert all(tmp_path / "run" in path.parents for path in tmp_path.rglob("*.jsonl"))


def test_every_environment_of_a_run_is_recorded_once(tmp_path: Path) -> None:
    _store(tmp_path).append(CELL, _record("a"))
    for torch in "yxy":
        Store.create(tmp_path, CONFIG, {"torch": torch})
    described = yaml.safe_load((tmp_path / "run.yaml").read_text())
    assert described["environments"] == [{"torch": "x"}, {"torch": "y"}]
    assert described["config"] == CONFIG


def test_a_folder_without_samples_takes_a_corrected_configuration(tmp_path: Path) -> None:
    _store(tmp_path)
    assert Store.create(tmp_path, {**CONFIG, "seed": 1}, {}).config["seed"] == 1


DAMAGED = ("{oops", "{}", "3", "[1]", "null", '{"id": [1], "length": 256}', "\0\0\0", "")
GOOD = dict(_record("x"))
FOREIGN = [
    {**GOOD, "length": "256"},
    {**GOOD, "prompt_tokens": None},
    {**GOOD, "score": "high"},
    {**GOOD, "loss": [1.0]},
    {**GOOD, "meta": {"depth": "deep"}},
    {**GOOD, "low_memory": 1},
    {**GOOD, "answers": "one"},
    {**GOOD, "sha256": "e3b0"},
    {key: value for key, value in GOOD.items() if key != "prompt_sha256"},
]


@pytest.mark.parametrize("line", [*DAMAGED, *map(json.dumps, FOREIGN)])
def test_a_damaged_or_foreign_line_does_not_count(tmp_path: Path, line: str) -> None:
    store = _store(tmp_path)
    store.append(CELL, _record("a"))
    path = next(tmp_path.rglob("*.jsonl"))
    path.write_text(f"{line}\n{path.read_text()}{line}\n")
    store.append(CELL, _record("b"))
    assert [row["id"] for row in store.rows(CELL)] == ["a", "b"]


WRONG_CELLS = [
    {**dataclasses.asdict(CELL), "samples": "25"},
    {**dataclasses.asdict(CELL), "samples": 25, "length": 256.5},
    {**dataclasses.asdict(CELL), "samples": 25, "depth": 0},
]


@pytest.mark.parametrize("line", [*DAMAGED, *map(json.dumps, WRONG_CELLS)])
def test_a_damaged_cell_is_named(tmp_path: Path, line: str) -> None:
    store = _store(tmp_path)
    store.save_cells({CELL: 25})
    path = tmp_path / "cells.jsonl"
    path.write_text(f"{path.read_text()}{line}\n")
    with pytest.raises(UserError, match=r"cells\.jsonl:2: damaged"):
        store.cells()


def test_cells_are_stored(tmp_path: Path) -> None:
    store = _store(tmp_path)
    assert store.save_cells({CELL: 25})
    assert not store.save_cells({CELL: 25})
    assert Store(tmp_path).cells() == {CELL: 25}


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"run.yaml: no such file"):
        Store(tmp_path)
    (tmp_path / "run.yaml").write_text("hello")
    with pytest.raises(UserError, match="not the description"):
        _store(tmp_path)


def test_a_folder_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot write .*--output"):
        _store(tmp_path / "file" / "run")
    with (
        pytest.raises(UserError, match=r"cannot write .*--output"),
        lock_for_writing(tmp_path / "file"),
    ):
        pytest.fail("a file is written to as a folder")


def test_a_full_disk_is_an_error_and_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = _store(tmp_path)
    store.append(CELL, _record("a"))

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(UserError, match="No space left on device"):
        store.append(CELL, _record("b"))
    monkeypatch.undo()
    assert store.rows(CELL)[0]["id"] == "a"


def test_a_removed_lock_is_taken_again_unless_another_run_has_it(tmp_path: Path) -> None:
    with lock_for_writing(tmp_path / "run") as lock:
        lock.renew()
        shutil.rmtree(tmp_path / "run")
        lock.renew()
        with pytest.raises(UserError, match="another run"), lock_for_writing(tmp_path / "run"):
            pytest.fail("two runs write")
        (tmp_path / "run" / ".lock").unlink()
        with lock_for_writing(tmp_path / "run"), pytest.raises(UserError, match="another run"):
            lock.renew()
    assert not (tmp_path / "run" / ".holder").exists()


@pytest.mark.parametrize("removed", ["run.yaml", "cells.jsonl", "samples", ""])
def test_what_is_removed_while_a_run_writes_is_written_anew(
    tmp_path: Path, removed: str, capsys: pytest.CaptureFixture[str]
) -> None:
    store = _store(tmp_path / "run")
    store.save_cells({CELL: 2})
    store.append(CELL, _record("a"))
    path = tmp_path / "run" / removed
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    store.append(CELL, _record("b"))
    again = Store(tmp_path / "run")
    assert (again.config, again.cells()) == (CONFIG, {CELL: 2})
    lost = removed in ("samples", "")
    assert [row["id"] for row in again.rows(CELL)] == (["b"] if lost else ["a", "b"])
    assert f"{removed or 'run.yaml'}" in capsys.readouterr().err


def test_lost_cells_are_those_that_have_samples(tmp_path: Path) -> None:
    card = {"version": 1, "samples": 9}
    config = configuration(
        models={"org/model": CONFIG["models"]["pocket"]},
        methods={**METHODS, "lampe:head_tokens=3": {}},
        tasks={"niah/single": card, "niah/grid": card},
        lengths={"org/model": {"niah": [512, 256]}},
    )
    store = Store.create(tmp_path, config, {})
    store.append(CELL, _record("a"))
    assert store.known_cells() == {CELL: 9}


def test_the_holder_of_the_lock_is_named_and_a_dead_one_holds_nothing(tmp_path: Path) -> None:
    with lock_for_writing(tmp_path / "new"):
        holder_of_lock = rf"process {os.getpid()} on {platform.node()} since 20\d\d-"
        with pytest.raises(UserError, match=holder_of_lock), lock_for_writing(tmp_path / "new"):
            pytest.fail("two runs write")
        holder = (tmp_path / "new" / ".holder").read_text()
    assert not (tmp_path / "new" / ".holder").exists()
    (tmp_path / "new" / ".holder").write_text(holder)  # as a killed run leaves it
    with lock_for_writing(tmp_path / "new"):
        pass


@pytest.mark.parametrize("schema", [None, 1, 2, 4, "3"])
def test_another_schema_is_refused(tmp_path: Path, schema: object) -> None:
    _store(tmp_path).append(CELL, _record("a"))
    path = tmp_path / "run.yaml"
    description = yaml.safe_load(path.read_text())
    assert description.pop("schema") == SCHEMA
    if schema is not None:
        description["schema"] = schema
    description["environments"] = [{"lampe-eval": "9.1"}]
    path.write_text(yaml.safe_dump(description))
    name = "no schema" if schema is None else f"schema {schema}"
    for read in (Store, _store):
        with pytest.raises(UserError, match=rf"run.yaml: .*{name} .*9\.1.*schema 3"):
            read(tmp_path)


def test_an_environment_of_schema_2_names_the_version(tmp_path: Path) -> None:
    description = {"schema": 2, "config": {}, "environment": {"lampe-eval": "0.1.0"}}
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(description))
    with pytest.raises(UserError, match=r"schema 2 by lampe-eval 0\.1\.0"):
        Store(tmp_path)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("environments", {}),
        ("environments", None),
        ("config", []),
        ("config.seed", "0"),
        ("config.seed", None),
        ("config.models.pocket.window", None),
        ("config.methods", {"lampe": 3}),
        ("config.lengths", {"pocket": {"niah": "256"}}),
    ],
)
def test_a_description_of_other_types_is_one_line(tmp_path: Path, key: str, value: object) -> None:
    _store(tmp_path)
    path = tmp_path / "run.yaml"
    description = yaml.safe_load(path.read_text())
    *parents, last = key.split(".")
    mapping = description
    for parent in parents:
        mapping = mapping[parent]
    if value is None:
        del mapping[last]
    else:
        mapping[last] = value
    path.write_text(yaml.safe_dump(description))
    with pytest.raises(UserError, match=f"run.yaml: damaged .key '{key}") as caught:
        Store(tmp_path)
    assert "\n" not in str(caught.value)


def test_samples_without_a_description_are_refused(tmp_path: Path) -> None:
    store = _store(tmp_path)
    store.append(CELL, _record("a"))
    (tmp_path / "run.yaml").unlink()
    with pytest.raises(UserError, match=r"no run\.yaml"):
        _store(tmp_path)


def test_a_description_that_is_not_yaml_is_named_with_its_line(tmp_path: Path) -> None:
    _store(tmp_path)
    (tmp_path / "run.yaml").write_text("config: {}\nx: [\n")
    with pytest.raises(UserError, match=r"run.yaml:[23]: .*--output"):
        Store(tmp_path)


@pytest.mark.parametrize("key", ["config.drafts", "config.models.org/model.quantized"])
def test_a_configuration_with_a_key_unknown_here_is_refused(tmp_path: Path, key: str) -> None:
    model = {"fingerprint": "sha256:0", "dtype": "float32", "window": 256}
    Store.create(tmp_path, configuration(models={"org/model": model}), {"torch": "x"})
    path = tmp_path / "run.yaml"
    description = yaml.safe_load(path.read_text())
    *parents, last = key.split(".")
    mapping = description
    for parent in parents:
        mapping = mapping[parent]
    mapping[last] = 4
    path.write_text(yaml.safe_dump(description))
    with pytest.raises(UserError, match=f"run.yaml: key '{key}' is unknown"):
        Store(tmp_path)
