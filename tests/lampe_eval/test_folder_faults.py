"""Folders from somebody else: links are never followed, and damage is one line or a counted row."""

import json
import os
import time
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from lampe_eval.errors import UserError
from lampe_eval.file_io import DRAFT_SECONDS, MAX_NAME_BYTES, safe_name, write_atomically
from lampe_eval.folder_lock import lock_for_writing
from lampe_eval.report.tables import to_csv
from lampe_eval.results.gathered_runs import GatheredRuns, gather_runs
from lampe_eval.running.resolve import resolve_suite
from lampe_eval.running.watchdog import Watchdog
from lampe_eval.store import Cell, Store
from lampe_eval.suite import Suite
from tests.lampe_eval.stored_runs import losses, run

NESTED = "[" * 100_000 + "]" * 100_000
DIGITS = "9" * 6000
PRECIOUS = "precious"


def _needles(folder: Path) -> Path:
    run(folder, {"original": {256: [True, True, False]}})
    return folder


def _samples(folder: Path) -> Path:
    return next(folder.glob("samples/**/*.jsonl"))


def _change_sample(folder: Path, **changes: Any) -> None:
    """Change the keys of the first sample; None removes one."""
    path = _samples(folder)
    first, *others = path.read_text().splitlines(keepends=True)
    sample = {**json.loads(first), **changes}
    line = json.dumps({key: value for key, value in sample.items() if value is not None})
    path.write_text(f"{line}\n{''.join(others)}")


def _counts(gathered: GatheredRuns) -> dict[str, int]:
    (row,) = gathered.scores.to_dict("records")
    return {name: row[name] for name in ("n", "missing", "errors")}


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    path = tmp_path / "victim"
    path.write_text(PRECIOUS)
    return path


@pytest.mark.parametrize("name", [".lock", ".holder", "run.log", "cells.jsonl", ".holder.part"])
def test_a_link_in_the_folder_is_not_followed(tmp_path: Path, victim: Path, name: str) -> None:
    folder = _needles(tmp_path / "run")
    (folder / name).unlink(missing_ok=True)
    (folder / name).symlink_to(victim)
    try:
        with lock_for_writing(folder), Watchdog(folder):
            Store(folder).save_cells({})
    except UserError as error:
        assert name in str(error)  # noqa: PT017
    assert victim.read_text() == PRECIOUS


@pytest.mark.parametrize("depth", range(5))
def test_links_where_samples_are_are_refused(tmp_path: Path, depth: int) -> None:
    folder = _needles(tmp_path / "run")
    path = folder.joinpath(*_samples(folder).relative_to(folder).parts[: depth + 1])
    moved = path.rename(tmp_path / "moved")
    path.symlink_to(moved)
    cell = Cell("pocket", "original", "niah", "grid", 256)
    with pytest.raises(UserError, match="link"):
        Store(folder).append(cell, {"id": "x"})  # type: ignore[typeddict-item]
    with pytest.raises(UserError, match="link"):
        gather_runs([folder])


def test_the_folder_itself_may_be_a_link(tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(_needles(tmp_path / "run"))
    assert _counts(gather_runs([link]))["n"] == 3


def test_old_drafts_are_removed_and_new_ones_stay(tmp_path: Path) -> None:
    old, new, other = (tmp_path / name for name in (".a.1.part", ".a.2.part", ".b.1.part"))
    for draft in (old, new, other):
        draft.touch()
    past = time.time() - DRAFT_SECONDS - 9
    for draft in (old, other):
        os.utime(draft, (past, past))
    write_atomically(tmp_path / "a", "x")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".a.2.part", ".b.1.part", "a"]


RUN_FILES = [
    b"\xff\xfe\x00",
    b"",
    b"3",
    b"{",
    b"config: &a [*a]\nschema: 3",
    b"schema: 2020-13-45",
    b"config: {}\nschema: " + DIGITS.encode(),
    b"? [a]\n: {}",
    b"[" * 1000,
    b"config: 3\nschema: 3\nenvironments: []",
    b"\0",
]


@pytest.mark.parametrize("content", RUN_FILES)
def test_a_damaged_description_is_one_line(tmp_path: Path, content: bytes) -> None:
    folder = _needles(tmp_path / "run")
    (folder / "run.yaml").write_bytes(content)
    with pytest.raises(UserError, match=r"run\.yaml"):
        gather_runs([folder])


@pytest.mark.parametrize("cut", [1, 90, 400, 700])
def test_a_description_that_was_cut_is_one_line(tmp_path: Path, cut: int) -> None:
    folder = _needles(tmp_path / "run")
    whole = (folder / "run.yaml").read_bytes()
    (folder / "run.yaml").write_bytes(whole[:cut])
    with pytest.raises(UserError, match=r"run\.yaml"):
        gather_runs([folder])


@pytest.mark.parametrize("key", ["models", "methods", "protocols", "tasks", "limit", "seed"])
@pytest.mark.parametrize("value", [[], -1.5])
def test_a_key_of_the_description_of_another_type_is_one_line(
    tmp_path: Path, key: str, value: Any
) -> None:
    folder = _needles(tmp_path / "run")
    description = yaml.safe_load((folder / "run.yaml").read_text())
    description["config"][key] = value
    (folder / "run.yaml").write_text(yaml.safe_dump(description))
    with pytest.raises(UserError, match=r"run\.yaml"):
        gather_runs([folder])


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("bench", "nope"),
        ("bench", ".."),
        ("task", "nope"),
        ("model", "nope"),
        ("method", "nope"),
        ("length", "256"),
        ("length", -1),
        ("length", 10**30),
        ("length", True),
        ("samples", -1),
        ("samples", 10**30),
        ("samples", None),
    ],
)
def test_a_damaged_cell_names_file_and_line(tmp_path: Path, key: str, value: Any) -> None:
    folder = _needles(tmp_path / "run")
    path = folder / "cells.jsonl"
    path.write_text(path.read_text() + json.dumps({**json.loads(path.read_text()), key: value}))
    with pytest.raises(UserError, match=r"cells\.jsonl:2: "):
        gather_runs([folder])


def test_a_torn_last_line_of_cells_is_damage(tmp_path: Path) -> None:
    folder = _needles(tmp_path / "run")
    path = folder / "cells.jsonl"
    line = path.read_text()
    path.write_text(line + line[: len(line) // 2])
    with pytest.raises(UserError, match=r"cells\.jsonl:2: "):
        gather_runs([folder])


@pytest.mark.parametrize(
    "line", [NESTED, DIGITS, '{"id": "x", "length": ' + DIGITS + "}", "\0", "[1]", "9" * 10**6]
)
def test_a_damaged_sample_is_counted_as_missing(tmp_path: Path, line: str) -> None:
    folder = _needles(tmp_path / "run")
    path = _samples(folder)
    _, *others = path.read_text().splitlines()
    path.write_text("\n".join([line, *others, ""]))
    assert _counts(gather_runs([folder])) == {"n": 2, "missing": 1, "errors": 0}


NOT_FINITE = ["NaN", "Infinity", "-Infinity", "1e999", "-1e999"]


def _with_number(line: str, key: str, number: str) -> str:
    """Return a JSON object with a number in place of a key's value, or as a further key's."""
    text = json.dumps({**json.loads(line), key: "@@"})
    return text.replace('"@@"', f'{{"x": {number}}}' if key in ("meta", "extras") else number)


@pytest.mark.parametrize("number", NOT_FINITE)
@pytest.mark.parametrize("key", ["largest_position", "score", "seconds", "loss", "meta", "extras"])
def test_a_sample_with_a_number_that_is_not_finite_is_damaged(
    tmp_path: Path, key: str, number: str
) -> None:
    folder = _needles(tmp_path / "run")
    first, *others = _samples(folder).read_text().splitlines()
    _samples(folder).write_text("\n".join([_with_number(first, key, number), *others, ""]))
    gathered = gather_runs([folder])
    assert _counts(gathered) == {"n": 2, "missing": 1, "errors": 0}
    assert any("line 1" in line for line in gathered.left_out)


@pytest.mark.parametrize("number", NOT_FINITE)
@pytest.mark.parametrize("key", ["samples", "length", "resolved"])
def test_a_cell_with_a_number_that_is_not_finite_is_damaged(
    tmp_path: Path, key: str, number: str
) -> None:
    folder = _needles(tmp_path / "run")
    path = folder / "cells.jsonl"
    path.write_text(_with_number(path.read_text(), key, number) + "\n")
    with pytest.raises(UserError, match=r"cells\.jsonl:1: "):
        gather_runs([folder])


@pytest.mark.parametrize("number", [".nan", ".inf", "-.inf"])
@pytest.mark.parametrize("key", ["seed", "limit", "models", "protocols"])
def test_a_description_with_a_number_that_is_not_finite_is_damaged(
    tmp_path: Path, key: str, number: str
) -> None:
    folder = _needles(tmp_path / "run")
    description = yaml.safe_load((folder / "run.yaml").read_text())
    description["config"][key] = {"fair": {"x": "@@"}} if key == "protocols" else "@@"
    text = yaml.safe_dump(description).replace("'@@'", number)
    (folder / "run.yaml").write_text(text)
    with pytest.raises(UserError, match=r"run\.yaml"):
        gather_runs([folder])


@pytest.mark.parametrize("key", ["prediction", "references", "largest_position"])
def test_a_sample_without_what_scores_need_is_counted_as_failed(tmp_path: Path, key: str) -> None:
    folder = _needles(tmp_path / "run")
    _change_sample(folder, **{key: None})
    assert _counts(gather_runs([folder])) == {"n": 2, "missing": 0, "errors": 1}


def test_samples_of_another_task_that_do_not_say_so_are_counted_as_failed(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    losses(folder, {"original": {256: [1.0, 2.0, 3.0]}})
    path = _samples(_needles(tmp_path / "other"))
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for row in rows:
        del row["cell"]  # as runs of before 0.2 store them
    _samples(folder).write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    assert _counts(gather_runs([folder])) == {"n": 0, "missing": 0, "errors": 3}


@pytest.mark.parametrize("from_method", ["pi", "original"])
def test_samples_that_were_copied_from_another_cell_are_named(
    tmp_path: Path, from_method: str
) -> None:
    folder = tmp_path / "run"
    right = {256: [True, True, True]}
    run(folder, {"original": {256: [True, False, False]}, "pi": right})
    losses(tmp_path / "other", {from_method: {256: [1.0, 2.0, 3.0]}})
    source = tmp_path / "other" if from_method == "original" else folder
    copied = next((source / "samples/pocket" / from_method).rglob("*.jsonl"))
    target = folder / "samples/pocket/original/niah/grid.jsonl"
    target.write_bytes(copied.read_bytes())
    gathered = gather_runs([folder])
    assert list(gathered.scores["n"]) == [0, 3]
    assert any("grid.jsonl: 3 lines" in line for line in gathered.left_out)


@pytest.mark.parametrize("name", ["cells.jsonl", "run.yaml", "samples"])
def test_a_folder_in_place_of_a_file_is_one_line(tmp_path: Path, name: str) -> None:
    folder = _needles(tmp_path / "run")
    path = _samples(folder) if name == "samples" else folder / name
    path.unlink()
    path.mkdir()
    with pytest.raises(UserError, match=path.name):
        gather_runs([folder])


@pytest.mark.parametrize("methods", [["original"], ["original", "pi"]])
def test_a_sample_that_is_none_of_the_cell_is_left_out_and_named(
    tmp_path: Path, methods: list[str]
) -> None:
    folder = tmp_path / "run"
    run(folder, {method: {256: [True, True, False]} for method in methods})
    before = gather_runs([folder]).scores
    path = _samples(folder)
    line = {**json.loads(path.read_text().splitlines()[0]), "id": "!foreign"}
    path.write_text(path.read_text() + json.dumps(line) + "\n")
    gathered = gather_runs([folder])
    pd.testing.assert_frame_equal(gathered.scores, before)
    assert "!foreign" in "".join(gathered.left_out)


def test_csv_neutralises_texts_and_leaves_numbers() -> None:
    frame = pd.DataFrame({"a": ["=1", "＝1", "x"], "b": [-1.5, "@x", "y"], "c": [-1.0, 0.5, 2]})
    lines = to_csv(frame, "%.2f").splitlines()
    assert lines == ["a,b,c", "'=1,-1.5,-1.00", "'＝1,'@x,0.50", "x,y,2.00"]


def test_names_become_names_of_files() -> None:
    kept = ["org%2Fmodel", "lampe%3Ahead_tokens=3", "ü", ".hidden", "CON"]
    assert [safe_name(name) for name in ("org/model", "lampe:head_tokens=3", "ü")] == kept[:3]
    assert safe_name("..") == "%2E%2E"
    long_names = {safe_name("ü" * 300), safe_name("ü" * 299), safe_name("/" * 300)}
    assert len(long_names) == 3
    assert all(len(name.encode()) <= MAX_NAME_BYTES for name in long_names)


def test_a_path_that_is_too_long_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such folder"):
        Store(tmp_path / ("x" * 300))
    with (
        pytest.raises(UserError, match="--output"),
        lock_for_writing(tmp_path / ("x" * 300)),
    ):
        pass


LABELS = ["", " ", "..", "a\nb", "\x1b[31m", "x" * 300, "a\\b", "a,a", "a,", "\ud800"]


@pytest.mark.parametrize("label", LABELS)
def test_a_label_that_names_nothing_is_refused(label: str) -> None:
    with pytest.raises(UserError, match="--label"):
        Suite.from_options({"label": [label]})


def test_labels_name_models_in_their_order() -> None:
    suite = Suite.from_options({"model": "pocket,llama3-8b", "label": "mine, org/8b"})
    assert list(resolve_suite(suite).model_cards) == ["mine", "org/8b"]
    with pytest.raises(UserError, match="--label"):
        resolve_suite(Suite.from_options({"model": "pocket", "label": "a,b"}))
