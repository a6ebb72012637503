"""Results of one run and of several: scores, details and pairs from stored samples."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from lampe_eval import store as store_module
from lampe_eval.benches import find_tasks
from lampe_eval.errors import UserError
from lampe_eval.report.page.page_samples import SCORE_INDEX, compact_samples
from lampe_eval.report.table_model import result_tables
from lampe_eval.results.cell_scores import DETAIL_COLUMNS, SCORE_COLUMNS
from lampe_eval.results.gathered_runs import gather_runs
from lampe_eval.results.method_differences import PAIR_COLUMNS
from tests.lampe_eval import stored_runs

POCKET = stored_runs.configuration()["models"]["pocket"]
NIAH = find_tasks(["niah/grid"])[0].card.model_dump(mode="json")
ANSWERS = {"lampe": {512: [True, True, True]}, "original": {512: [True, False, False]}}


def test_a_run(tmp_path: Path) -> None:
    stored_runs.run(tmp_path / "a", ANSWERS)
    runs = gather_runs([tmp_path / "a"])
    others = ["details", "counts", "resolved", "at_most", "stopping"]
    assert list(runs.scores) == ["run", "settings", *SCORE_COLUMNS, *others]
    assert list(runs.details) == ["run", *DETAIL_COLUMNS]
    assert list(runs.pairs) == [*PAIR_COLUMNS]
    assert runs.scores[["run", "method", "score", "n"]].values.tolist() == [
        ["a", "lampe", 100, 3], ["a", "original", pytest.approx(100 / 3), 3],
    ]  # fmt: skip
    assert runs.details["name"].tolist() == ["depth 0", "depth 50", "depth 100"] * 2
    assert runs.details["value"].tolist() == [100, 100, 100, 100, 0, 0]
    assert runs.details["n"].tolist() == [1] * 6
    (pair,) = runs.pairs.to_dict("records")
    assert (pair["first"], pair["second"], pair["n"]) == ("lampe", "original", 3)
    assert (pair["difference"], pair["p_value"]) == (pytest.approx(200 / 3), 0.5)


def test_tables_and_samples_have_the_scores_of_the_same_scorer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = stored_runs.run(tmp_path, {"lampe": {512: [True, False, None]}})
    monkeypatch.setattr("lampe_eval.benches.niah.Niah.score", lambda *_: 0.25)
    found = gather_runs([tmp_path])
    (rows,) = found.rows.values()
    assert found.scores["score"].tolist() == [25.0]
    assert [row.get("score") for row in rows] == [0.25, 0.25, None]
    shown = compact_samples(found.rows)
    assert [row[SCORE_INDEX] for row in shown["rows"]] == [25, 25, None]
    (cell,) = store.cells()
    assert found.rows["".join(found.runs), cell] == rows


def test_a_file_of_samples_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stored_runs.run(tmp_path, {"lampe": {256: [True], 512: [True], 1024: [False]}})
    read: list[str] = []
    parse_lines = store_module._parse_lines

    def parse(path: Path, **options: Any) -> Iterator[Any]:
        read.append(path.name)
        return parse_lines(path, **options)

    monkeypatch.setattr(store_module, "_parse_lines", parse)
    gather_runs([tmp_path])
    assert read.count("grid.jsonl") == 1


def test_lengths_ascend(tmp_path: Path) -> None:
    """List lengths from the shortest, although a run starts with the longest."""
    stored_runs.run(tmp_path, {method: {512: [True], 256: [True]} for method in ("yarn", "lampe")})
    runs = gather_runs([tmp_path])
    assert runs.scores[["length", "method"]].values.tolist() == [
        [256, "yarn"], [256, "lampe"], [512, "yarn"], [512, "lampe"],
    ]  # fmt: skip
    assert runs.details["length"].tolist() == [256, 256, 512, 512]


def test_failed_samples_are_counted_and_unpaired(tmp_path: Path) -> None:
    stored_runs.run(
        tmp_path, {"lampe": {512: [True, None, True]}, "original": {512: [False, False]}}
    )
    runs = gather_runs([tmp_path])
    assert runs.scores[["n", "errors", "missing"]].values.tolist() == [[2, 1, 0], [2, 0, 1]]
    (pair,) = runs.pairs.to_dict("records")
    assert (pair["n"], pair["difference"]) == (1, 100)


def test_pairs_are_of_one_length_and_corrected_there(tmp_path: Path) -> None:
    answers = {
        "a": {256: [True] * 8, 512: [True] * 8},
        "b": {256: [True] * 8, 512: [False] * 8},
        "c": {256: [True] * 8, 512: [False] * 8},
    }
    stored_runs.run(tmp_path, answers)
    pairs = gather_runs([tmp_path]).pairs.set_index(["length", "first", "second"])
    assert pairs.loc[256, "p_value_holm"].tolist() == [1, 1, 1]
    assert pairs.loc[512, "p_value"].tolist() == [2 / 256, 2 / 256, 1]
    assert pairs.loc[512, "p_value_holm"].tolist() == [6 / 256, 6 / 256, 1]


def test_different_prompts_are_no_pair(tmp_path: Path) -> None:
    """Protocol `lampe` cuts LaMPE's prompts differently from those of other methods."""
    store = stored_runs.run(tmp_path, ANSWERS)
    cell = next(cell for cell in store.cells() if cell.method == "lampe")
    for row in store.rows(cell)[1:]:
        store.append(cell, {**row, "prompt_sha256": "another"})
    (pair,) = gather_runs([tmp_path]).pairs.to_dict("records")
    assert (pair["n"], pair["unpaired"]) == (1, 2)
    store.append(cell, {**store.rows(cell)[0], "prompt_sha256": "another"})
    assert gather_runs([tmp_path]).pairs.empty


def test_pairs_are_of_all_runs_whose_settings_agree(tmp_path: Path) -> None:
    methods = {
        method: {512: [True, True, answer]} for method, answer in (("a", True), ("b", False))
    }
    for name, method, seed in (("x", "a", 0), ("y", "b", 0), ("z", "b", 5)):
        stored_runs.run(tmp_path / name, {method: methods[method]}, seed)
    runs = gather_runs([tmp_path / name for name in "xyz"])
    (pair,) = runs.pairs.to_dict("records")
    assert (pair["settings"], pair["first"], pair["second"], pair["n"]) == (
        "seed 0",
        "a · x",
        "b · y",
        3,
    )


@pytest.mark.parametrize(
    ("changes", "settings"),
    [
        ({"seed": 5}, ["seed 0", "seed 5"]),
        ({"limit": None}, ["limit 3", "limit none"]),
        ({"haystack": "own.txt sha256:12"}, ["haystack default", "haystack own.txt"]),
        # niah reads no text, so its hash makes no difference.
        ({"text": "own.txt sha256:12"}, ["", ""]),
        ({"max_batch_tokens": "measured"}, ["batch 1", "batch measured"]),
        (
            {"models": {"pocket": {**POCKET, "dtype": "bfloat16"}}},
            ["dtype float32", "dtype bfloat16"],
        ),
        (
            {"models": {"pocket": {**POCKET, "fingerprint": "sha256:1"}}},
            ["weights sha256:0", "weights sha256:1"],
        ),
        (
            {"tasks": {"niah/grid": {**NIAH, "version": 9}}},
            ["niah/grid version 1", "niah/grid version 9"],
        ),
        # The other run records no user file to compare with.
        ({"user_files": {"niah/grid": "12"}}, ["", ""]),
        ({"device": "cuda"}, ["", ""]),
    ],
)
def test_settings_in_which_runs_differ_are_listed(
    tmp_path: Path, changes: dict[str, Any], settings: list[str]
) -> None:
    stored_runs.run(tmp_path / "a", ANSWERS)
    stored_runs.run(tmp_path / "b", ANSWERS, **changes)
    runs = gather_runs([tmp_path / "a", tmp_path / "b"]).scores
    assert runs.groupby("run")["settings"].unique().explode().tolist() == settings


def test_files_with_equal_names_show_their_hashes(tmp_path: Path) -> None:
    for name in "ab":
        stored_runs.run(tmp_path / name, ANSWERS, haystack=f"own.txt sha256:{name}")
    runs = gather_runs([tmp_path / "a", tmp_path / "b"]).scores["settings"]
    assert sorted(set(runs)) == ["haystack own.txt sha256:a", "haystack own.txt sha256:b"]


def test_labels_have_the_run_where_there_are_several(tmp_path: Path) -> None:
    for name, seed in (("a", 0), ("b", 1)):
        stored_runs.run(tmp_path / name, ANSWERS, seed)
    runs = gather_runs([tmp_path / "a", tmp_path / "b"])
    assert runs.scores["run"].tolist() == ["a", "a", "b", "b"]
    assert runs.labelled(runs.scores)["label"].tolist() == [
        "lampe · a", "original · a", "lampe · b", "original · b",
    ]  # fmt: skip
    alone = gather_runs([tmp_path / "a"])
    assert alone.labelled(alone.scores)["label"].tolist() == ["lampe", "original"]


def test_folders_with_equal_names_are_named_by_their_paths(tmp_path: Path) -> None:
    for parent in "xy":
        stored_runs.run(tmp_path / parent / "run", ANSWERS)
    runs = gather_runs([tmp_path / "x" / "run", tmp_path / "y" / "run"])
    assert set(runs.scores["run"]) == {str(tmp_path / "x" / "run"), str(tmp_path / "y" / "run")}


def test_a_run_without_a_sample_is_left_out(tmp_path: Path) -> None:
    for name, answers in (("a", [True]), ("b", [])):
        stored_runs.run(tmp_path / name, {"lampe": {512: answers}})
    runs = gather_runs([tmp_path / "a", tmp_path / "b"])
    assert (list(runs.runs), runs.left_out) == (
        ["a"],
        [f"left out: {tmp_path / 'b'}: no sample is stored yet"],
    )
    with pytest.raises(UserError, match=re.escape(f"{tmp_path / 'b'}: no sample")):
        gather_runs([tmp_path / "b"])


def test_a_run_that_is_still_written_is_noted_under_its_tables(tmp_path: Path) -> None:
    for name in "ab":
        stored_runs.run(tmp_path / name, ANSWERS)
        (tmp_path / name / ".holder").write_text("process 7 on h")  # b's was killed
    with FileLock(tmp_path / "a" / ".lock"):
        runs = gather_runs([tmp_path / "a", tmp_path / "b"])
    (table,) = result_tables(runs)
    assert table.notes[1:] == ["a is still being written: process 7 on h"]
    assert gather_runs([tmp_path / "a", tmp_path / "b"]).writing == {}


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=re.escape(str(tmp_path / "nothing"))):
        gather_runs([tmp_path / "nothing"])


def test_samples_of_unknown_cells_are_refused(tmp_path: Path) -> None:
    stored_runs.run(tmp_path, ANSWERS)
    (tmp_path / "cells.jsonl").unlink()
    with pytest.raises(UserError, match=r"cells\.jsonl: missing"):
        gather_runs([tmp_path])
