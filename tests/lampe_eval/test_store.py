"""Results on disk survive a kill at any byte, and are never mixed."""

import os
import platform
from pathlib import Path

import pytest
import yaml

from lampe_eval.errors import UserError
from lampe_eval.store import Cell, Store, lock_for_writing

CELL = Cell("org/model", "lampe:head_tokens=3", "niah", "single", 256)
CONFIG = {"seed": 0, "methods": {"lampe": {"head_tokens": 3}}}


def _store(folder: Path) -> Store:
    return Store.create(folder, CONFIG, {"torch": "x"})


def test_rows_come_back_in_order_of_their_ids_and_by_length(tmp_path: Path) -> None:
    store = _store(tmp_path)
    for key in ("b", "a"):
        store.append(CELL, {"id": key, "prediction": "ü\n"})
    store.append(Cell("org/model", "lampe:head_tokens=3", "niah", "single", 512), {"id": "c"})
    assert [row["id"] for row in store.rows(CELL)] == ["a", "b"]
    assert store.rows(CELL)[0]["prediction"] == "ü\n"


def test_half_a_surrogate_pair_comes_back_as_it_was(tmp_path: Path) -> None:
    store = _store(tmp_path)
    store.append(CELL, {"id": "a", "prediction": "ü\ud83d"})
    assert store.rows(CELL)[0]["prediction"] == "ü\ud83d"


def test_a_line_torn_anywhere_is_dropped_and_done_again(tmp_path: Path) -> None:
    store = _store(tmp_path)
    store.append(CELL, {"id": "a"})
    path = next(tmp_path.rglob("*.jsonl"))
    whole = path.read_bytes()
    store.append(CELL, {"id": "b", "prediction": "ü"})
    line = path.read_bytes()[len(whole) :]
    for cut in range(len(line)):
        path.write_bytes(whole + line[:cut])
        assert [row["id"] for row in store.rows(CELL)] == ["a"]
        store.append(CELL, {"id": "b"})
        assert [row["id"] for row in store.rows(CELL)] == ["a", "b"]


def test_names_of_any_kind_stay_inside_the_folder(tmp_path: Path) -> None:
    store = _store(tmp_path / "run")
    store.append(Cell("../../etc", "a/b:c=1", "niah", "single", 1), {"id": "a"})
    assert all(tmp_path / "run" in path.parents for path in tmp_path.rglob("*.jsonl"))


def test_another_configuration_is_refused_by_field(tmp_path: Path) -> None:
    _store(tmp_path).append(CELL, {"id": "a"})
    with pytest.raises(
        UserError, match="another configuration: --seed was 0, now 1; choose another --output"
    ):
        Store.create(tmp_path, {**CONFIG, "seed": 1}, {})
    with pytest.raises(UserError, match=r"--method lampe head_tokens was 3, now 4"):
        Store.create(tmp_path, {**CONFIG, "methods": {"lampe": {"head_tokens": 4}}}, {})
    with pytest.raises(UserError, match="--method was lampe, now lampe, pi; "):
        Store.create(tmp_path, {**CONFIG, "methods": {"lampe": {"head_tokens": 3}, "pi": {}}}, {})
    many = {f"m{i}": {} for i in range(9)}
    with pytest.raises(UserError, match=r"--method was lampe, now \.\.\., m0, m1, "):
        Store.create(tmp_path, {**CONFIG, "methods": {"lampe": {"head_tokens": 3}, **many}}, {})
    with pytest.raises(UserError, match="--max-batch-tokens was not given, now 7; "):
        Store.create(tmp_path, {**CONFIG, "batch": 7}, {})
    Store.create(tmp_path, CONFIG, {"torch": "y"})


def test_every_environment_of_a_run_is_told_once(tmp_path: Path) -> None:
    _store(tmp_path).append(CELL, {"id": "a"})
    for torch in "yxy":
        Store.create(tmp_path, CONFIG, {"torch": torch})
    described = yaml.safe_load((tmp_path / "run.yaml").read_text())
    assert described["environments"] == [{"torch": "x"}, {"torch": "y"}]
    assert described["config"] == CONFIG


def test_a_folder_without_samples_takes_a_corrected_configuration(tmp_path: Path) -> None:
    _store(tmp_path)
    assert Store.create(tmp_path, {**CONFIG, "seed": 1}, {}).config["seed"] == 1


DAMAGED = ("{oops", "{}", "3", "[1]", "null", '{"id": [1], "length": 256}', "\0\0\0", "")


@pytest.mark.parametrize("line", DAMAGED)
def test_a_damaged_line_does_not_count(tmp_path: Path, line: str) -> None:
    store = _store(tmp_path)
    store.append(CELL, {"id": "a"})
    path = next(tmp_path.rglob("*.jsonl"))
    path.write_text(f"{line}\n{path.read_text()}{line}\n")
    store.append(CELL, {"id": "b"})
    assert [row["id"] for row in store.rows(CELL)] == ["a", "b"]


@pytest.mark.parametrize("line", DAMAGED)
def test_a_damaged_cell_is_named(tmp_path: Path, line: str) -> None:
    store = _store(tmp_path)
    store.plan({CELL: 25})
    path = tmp_path / "cells.jsonl"
    path.write_text(f"{path.read_text()}{line}\n")
    with pytest.raises(
        UserError,
        match=r"cells.jsonl:2: damaged; remove the file and run again, which writes it anew",
    ):
        store.cells()


def test_cells_are_remembered(tmp_path: Path) -> None:
    store = _store(tmp_path)
    store.plan({CELL: 25})
    assert Store(tmp_path).cells() == {CELL: 25}


def test_what_is_no_run_is_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not the description of a run"):
        Store(tmp_path)
    (tmp_path / "run.yaml").write_text("hello")
    with pytest.raises(UserError, match="not the description of a run"):
        _store(tmp_path)


def test_a_folder_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot be written .* choose another --output"):
        _store(tmp_path / "file" / "run")
    with (
        pytest.raises(UserError, match=r"cannot be written .* choose another --output"),
        lock_for_writing(tmp_path / "file"),
    ):
        pytest.fail("a file is written to as a folder")


def test_a_full_disk_is_said_and_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = _store(tmp_path)
    store.append(CELL, {"id": "a"})

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(UserError, match=r"No space left on device.*finished samples are kept"):
        store.append(CELL, {"id": "b"})
    monkeypatch.undo()
    assert store.rows(CELL)[0]["id"] == "a"


def test_who_holds_the_lock_is_said_and_a_dead_holder_holds_nothing(tmp_path: Path) -> None:
    with lock_for_writing(tmp_path / "new"):
        said = rf"another run is writing here: process {os.getpid()} on {platform.node()} since 20\d\d-.*; wait for it"
        with pytest.raises(UserError, match=said), lock_for_writing(tmp_path / "new"):
            pytest.fail("two runs write")
        holder = (tmp_path / "new" / ".holder").read_text()
    assert not (tmp_path / "new" / ".holder").exists()
    (tmp_path / "new" / ".holder").write_text(holder)  # as a killed run leaves it
    with lock_for_writing(tmp_path / "new"):
        pass


def test_schemas_that_can_be_read(tmp_path: Path) -> None:
    store = _store(tmp_path)
    described = yaml.safe_load((tmp_path / "run.yaml").read_text())
    assert described.pop("schema") == 2
    (described["environment"],) = described.pop("environments")
    store.append(CELL, {"id": "a"})
    (tmp_path / "run.yaml").write_text(
        yaml.safe_dump(described)
    )  # as it was before there were schemas
    assert Store.create(tmp_path, CONFIG, {}).rows(CELL) == [{"length": 256, "id": "a"}]
    assert yaml.safe_load((tmp_path / "run.yaml").read_text())["environments"] == [
        {"torch": "x"},
        {},
    ]
    (tmp_path / "run.yaml").write_text(
        yaml.safe_dump({"schema": 3, **described, "environment": {"lampe-eval": "9.1"}})
    )
    said = r"run.yaml: written in schema 3 by lampe-eval 9.1, and this one reads 1 and 2; take the version that wrote it"
    with pytest.raises(UserError, match=said):
        Store(tmp_path)


def test_samples_that_nothing_describes_are_not_gone_on_with(tmp_path: Path) -> None:
    store = Store.create(tmp_path, {"seed": 0}, {})
    store.append(CELL, {"id": "a"})
    (tmp_path / "run.yaml").unlink()
    with pytest.raises(UserError, match=r"has samples, but no run\.yaml"):
        Store.create(tmp_path, {"seed": 0}, {})


def test_a_description_that_is_no_yaml_is_named_with_its_line(tmp_path: Path) -> None:
    Store.create(tmp_path, {"seed": 0}, {})
    (tmp_path / "run.yaml").write_text("config: {}\nx: [\n")
    with pytest.raises(UserError, match=r"run.yaml: damaged .*line [23].*restore it"):
        Store(tmp_path)
