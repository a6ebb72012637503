"""Results of one run and of several: scores, details and pairs from stored samples."""

import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from filelock import FileLock

from lampe_eval import store as store_module
from lampe_eval.benches import find_tasks
from lampe_eval.commands.report import report
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


def test_samples_of_an_older_version_have_the_documents_of_the_same_prompts(tmp_path: Path) -> None:
    stored_runs.run(tmp_path, ANSWERS)
    (newer,) = tmp_path.glob("samples/*/lampe/niah/grid.jsonl")
    rows = [json.loads(line) for line in newer.read_text().splitlines()]
    for row, document in zip(rows, ("a1", "a1", "b2"), strict=True):
        row["document_sha256"] = document
    newer.write_text("".join(json.dumps(row) + "\n" for row in rows))
    scores = gather_runs([tmp_path]).scores
    assert scores["unit"].tolist() == ["document"] * 2
    assert scores["independent_units"].tolist() == [2, 2]


def test_a_run(tmp_path: Path) -> None:
    stored_runs.run(tmp_path / "a", ANSWERS)
    runs = gather_runs([tmp_path / "a"])
    others = [
        "scale",
        "proportion",
        "details",
        "detail_estimates",
        "resolved",
        "at_most",
        "stopping",
    ]
    assert list(runs.scores) == ["run", "settings", *SCORE_COLUMNS, *others]
    assert list(runs.details) == ["run", *DETAIL_COLUMNS, "weights"]
    assert list(runs.pairs) == [*PAIR_COLUMNS, "test"]
    assert runs.scores[["run", "method", "score", "n"]].values.tolist() == [
        ["a", "lampe", 100, 3], ["a", "original", pytest.approx(100 / 3), 3],
    ]  # fmt: skip
    assert runs.details["name"].tolist() == ["depth 0", "depth 50", "depth 100"] * 2
    assert runs.details["value"].tolist() == [100, 100, 100, 100, 0, 0]
    assert runs.details["n"].tolist() == [1] * 6
    beyond, cell = runs.pairs.to_dict("records")
    for pair, scope in ((beyond, "beyond the window"), (cell, "cell")):
        assert (pair["scope"], pair["reference"], pair["method"]) == (scope, "original", "lampe")
        assert (pair["n"], pair["units"], pair["unit"]) == (3, 3, "points")
        assert pair["difference"] == pytest.approx(200 / 3)
        assert pair["p_value"] == pair["p_value_holm"] == pytest.approx(0.1573, abs=1e-4)
    assert (cell["task"], cell["length"]) == ("grid", 512)
    assert pd.isna(beyond["task"])
    assert pd.isna(beyond["length"])


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
    (pair,) = runs.pairs.to_dict("records")  # nothing is pooled of cells that lack samples
    assert (pair["scope"], pair["n"], pair["difference"]) == ("cell", 1, 100)
    assert pair["unpaired"] == 2


def test_each_method_is_compared_with_the_reference_and_corrected_within_a_scope(
    tmp_path: Path,
) -> None:
    answers = {
        "a": {256: [True] * 8, 512: [True] * 8, 1024: [True] * 8},
        "b": {256: [True] * 8, 512: [False] * 8, 1024: [True] * 8},
        "c": {256: [True] * 8, 512: [False] * 8, 1024: [False] * 7 + [True]},
    }
    stored_runs.run(tmp_path, answers)
    pairs = gather_runs([tmp_path], reference="a").pairs
    assert set(zip(pairs["reference"], pairs["method"], strict=True)) == {("a", "b"), ("a", "c")}
    cells = pairs[pairs["scope"] == "cell"].set_index("length")
    assert cells.loc[256, "p_value_holm"].tolist() == [1, 1]
    p_value = math.erfc(2)  # all 8 differ: z is the root of 8
    assert cells.loc[512, "p_value"].tolist() == pytest.approx([p_value] * 2)
    assert cells.loc[512, "p_value_holm"].tolist() == pytest.approx([2 * p_value] * 2)
    pooled = pairs[pairs["scope"] != "cell"].set_index(["scope", "method"])
    assert pooled["difference"].to_dict() == pytest.approx(
        {
            ("beyond the window", "b"): -50,
            ("beyond the window", "c"): -93.75,
            ("within the window", "b"): 0,
            ("within the window", "c"): 0,
        }
    )
    assert pooled.loc["beyond the window", "n"].tolist() == [16, 16]
    assert pooled.loc["beyond the window", "units"].tolist() == [8, 8]  # the same 8 questions


@pytest.mark.parametrize(
    ("methods", "recorded", "stated", "reference"),
    [
        (["pi", "original", "lampe"], None, None, "original"),
        (["pi", "lampe"], None, None, "pi"),
        (["pi", "original", "lampe"], "lampe", None, "lampe"),
        (["pi", "original", "lampe"], "lampe", "pi", "pi"),
        (["pi", "lampe:head_tokens=8"], None, "lampe", "lampe:head_tokens=8"),
        (["lampe", "lampe:head_tokens=8", "pi"], None, "lampe", "lampe"),
        (["pi", "lampe"], "gone", None, "pi"),
    ],
)
def test_the_reference(
    methods: list[str],
    recorded: str | None,
    stated: str | None,
    reference: str,
    tmp_path: Path,
) -> None:
    stored_runs.run(tmp_path, {method: {512: [True]} for method in methods})
    if recorded:
        path = tmp_path / "run.yaml"
        path.write_text(f"{path.read_text()}reference: {recorded}\n")
    pairs = gather_runs([tmp_path], reference=stated).pairs
    assert set(pairs["reference"]) == {reference}
    assert set(pairs["method"]) == {*methods} - {reference}


@pytest.mark.parametrize(
    ("stated", "listed"),
    [("yarn", "lampe:head_tokens=8, lampe, pi"), ("lampe:x=1", "pi"), ("", "pi"), ("LAMPE", "pi")],
)
def test_a_reference_that_is_no_method_of_the_runs_is_refused(
    stated: str, listed: str, tmp_path: Path
) -> None:
    methods = ("lampe:head_tokens=8", "lampe", "pi")
    stored_runs.run(tmp_path, {method: {512: [True]} for method in methods})
    with pytest.raises(UserError, match="--reference") as refused:
        gather_runs([tmp_path], reference=stated)
    assert repr(stated) in str(refused.value)
    assert listed in str(refused.value)


def test_a_report_with_a_wrong_reference_writes_nothing(tmp_path: Path) -> None:
    stored_runs.run(tmp_path / "run", ANSWERS)
    with pytest.raises(UserError, match="--reference: 'pi'"):
        report([tmp_path / "run"], tmp_path / "report", "pi")
    assert not (tmp_path / "report").exists()


def test_several_methods_of_the_stated_name_are_refused(tmp_path: Path) -> None:
    methods = ("lampe:head_tokens=8", "lampe:head_tokens=16", "pi")
    stored_runs.run(tmp_path, {method: {512: [True]} for method in methods})
    with pytest.raises(UserError, match=r"one of: lampe:head_tokens=8, lampe:head_tokens=16$"):
        gather_runs([tmp_path], reference="lampe")


def test_different_prompts_are_no_pair(tmp_path: Path) -> None:
    """Protocol `lampe` cuts LaMPE's prompts differently from those of other methods."""
    store = stored_runs.run(tmp_path, ANSWERS)
    cell = next(cell for cell in store.cells() if cell.method == "lampe")
    for row in store.rows(cell)[1:]:
        store.append(cell, {**row, "prompt_sha256": "another"})
    for pair in gather_runs([tmp_path]).pairs.to_dict("records"):
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
    for pair in runs.pairs.to_dict("records"):
        assert (pair["settings"], pair["n"]) == ("seed 0", 3)
        assert (pair["reference"], pair["method"]) == ("a · x", "b · y")


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
