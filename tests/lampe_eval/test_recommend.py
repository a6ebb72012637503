"""Command `lampe-eval recommend` and its part of the report page, on stored runs."""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

import lampe
from lampe_eval.commands.recommend import recommend
from lampe_eval.errors import UserError
from lampe_eval.report.page.report_page import report_page
from lampe_eval.report.recommendation_table import recommendation_tables
from lampe_eval.results.gathered_runs import gather_runs
from lampe_eval.results.method_summaries import summarize_models
from tests.lampe_eval import stored_runs, synthetic_runs

RIGHT, WRONG = [True] * 20, [False] * 20
RUN: Mapping[str, Mapping[int, Sequence[bool | None]]] = {
    "original": {256: RIGHT, 1024: WRONG, 2048: WRONG},
    "lampe": {256: WRONG, 1024: RIGHT, 2048: RIGHT},
    "yarn": {256: RIGHT, 1024: RIGHT, 2048: WRONG},
    "dca:chunk_size=128": {256: RIGHT, 1024: RIGHT, 2048: RIGHT},
}

POCKET = stored_runs.configuration()["models"]["pocket"]


def recommended(text: str) -> str:
    found = re.search(r"^recommended: (.*?): ", text, re.MULTILINE)
    assert found, text
    return found[1]


def test_a_method_that_loses_on_short_prompts_is_not_recommended(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stored_runs.run(tmp_path, RUN)
    recommend([tmp_path], None, None)
    text = capsys.readouterr().out
    assert recommended(text) == "dca:chunk_size=128"
    assert "shown to lose on prompts that fit the window: lampe" in text
    assert "-100.0 points" in text
    assert "lampe.patch(model, 'dca', chunk_size=128, window=256)" in text


def test_the_snippet_patches_the_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stored_runs.run(tmp_path, RUN)
    recommend([tmp_path], None, None)
    lines = capsys.readouterr().out.splitlines()
    variables: dict[str, object] = {}
    exec("\n".join(lines[lines.index("import lampe") :]), variables)
    assert lampe.explain(variables["model"]), "the model is patched"


def test_a_method_of_frequencies_is_a_configuration(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stored_runs.run(tmp_path, {method: RUN[method] for method in ("original", "yarn")})
    recommend([tmp_path], 1024, None)
    text = capsys.readouterr().out
    assert recommended(text) == "yarn"
    parameters = json.loads(text.splitlines()[-1])["rope_parameters"]
    assert (parameters["rope_type"], parameters["factor"]) == ("yarn", 4.0)


@pytest.mark.parametrize(
    ("answers", "length", "named"),
    [
        ({"lampe": RUN["lampe"]}, None, "original"),
        ({"original": {256: RIGHT}, "lampe": {256: RIGHT}}, None, "--lengths"),
        (RUN, 4096, "256, 1024, 2048"),
        ({method: {256: RIGHT, 1024: [None] * 20} for method in RUN}, None, "1024"),
    ],
)
def test_what_is_missing_is_named(
    tmp_path: Path,
    answers: Mapping[str, Mapping[int, Sequence[bool | None]]],
    length: int | None,
    named: str,
) -> None:
    stored_runs.run(tmp_path, answers)
    with pytest.raises(UserError, match=named):
        recommend([tmp_path], length, None)


@pytest.mark.parametrize("method", ["original", "lampe"])
@pytest.mark.parametrize(
    ("stopping", "output"),
    [({}, "the same"), ({"stopping": {"reference": "a", "margin": 5.0}}, "another")],
)
def test_a_run_that_decides_is_not_to_be_extended(
    tmp_path: Path, method: str, stopping: dict[str, Any], output: str
) -> None:
    stored_runs.run(tmp_path, {method: {256: RIGHT}}, **stopping)
    with pytest.raises(UserError, match=f"{output} --output"):
        recommend([tmp_path], None, None)


def test_a_method_with_failed_samples_is_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    failed = {**RUN["yarn"], 2048: [*RIGHT[:-1], None]}
    stored_runs.run(tmp_path, {**RUN, "yarn": failed})
    recommend([tmp_path], None, None)
    assert re.search(r"^left out.* yarn$", capsys.readouterr().out, re.MULTILINE)


def test_a_method_without_its_base_length_has_no_effective_length(tmp_path: Path) -> None:
    stored_runs.run(tmp_path, {**RUN, "yarn": {**RUN["yarn"], 256: [*RIGHT[:-1], None]}})
    (summary,) = summarize_models(gather_runs([tmp_path]))[0]
    effective = {one.method: one.benches["niah"].effective for one in summary.methods}
    assert [method for method, found in effective.items() if found is None] == ["yarn"]


def test_a_score_that_recovers_is_marked_in_the_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stored_runs.run(tmp_path, {**RUN, "yarn": {256: RIGHT, 1024: WRONG, 2048: RIGHT}})
    recommend([tmp_path], None, None)
    text = capsys.readouterr().out
    assert "256 (again at 2048)" in text
    assert re.search(r"^again: ", text, re.MULTILINE)


def test_no_method_is_recommended_where_all_score_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stored_runs.run(tmp_path, {method: {256: RIGHT, 1024: WRONG} for method in RUN})
    recommend([tmp_path], None, None)
    text = capsys.readouterr().out
    assert "no method is recommended" in text
    assert "lampe.patch" not in text


@pytest.mark.parametrize(
    ("length", "remarks"),
    [
        (2048, ["left out: ppl: .*2048.* 512"]),
        (512, ["left out: niah: .*512.* 256, 1024, 2048", "no effective length in ppl", "window"]),
    ],
)
def test_benchmarks_without_the_length_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], length: int, remarks: list[str]
) -> None:
    stored_runs.run(tmp_path / "a", RUN)
    stored_runs.losses(tmp_path / "b", {method: {512: [2.9, 3.0]} for method in RUN})
    recommend([tmp_path / "a", tmp_path / "b"], length, None)
    text = capsys.readouterr().out
    for remark in remarks:
        assert re.search(remark, text), text


def test_benchmarks_with_a_length_each_have_no_effective_length(tmp_path: Path) -> None:
    stored_runs.run(tmp_path / "a", {method: {256: RIGHT} for method in RUN})
    stored_runs.losses(tmp_path / "b", {method: {512: [2.9, 3.0]} for method in RUN})
    with pytest.raises(UserError, match="niah at 256, ppl at 512"):
        recommend([tmp_path / "a", tmp_path / "b"], None, None)


@pytest.mark.parametrize(
    ("parts", "labels"),
    [
        # every method in one run, and a method that both runs have
        ([["original", "yarn"], ["lampe"]], ["original", "yarn", "lampe"]),
        ([["original"], ["original", "lampe"]], ["original · a", "original · b", "lampe"]),
    ],
)
def test_several_runs_are_compared_as_one(
    tmp_path: Path, parts: list[list[str]], labels: list[str]
) -> None:
    folders = [tmp_path / name for name in "ab"]
    for folder, methods in zip(folders, parts, strict=True):
        stored_runs.run(folder, {method: RUN[method] for method in methods})
    (summary,) = summarize_models(gather_runs(folders))[0]
    assert [one.method for one in summary.methods] == labels
    assert summary.sources["lampe"] == ("b", "lampe")
    tax = summary.methods[-1].benches["niah"].tax
    assert tax is not None
    assert tax.difference == -100


def test_lengths_of_several_runs_are_one_series(tmp_path: Path) -> None:
    lengths = (256, 1024, 2048)
    folders = [tmp_path / str(length) for length in lengths]
    for folder, length in zip(folders, lengths, strict=True):
        stored_runs.run(folder, {method: {length: RUN[method][length]} for method in RUN})
    apart = summarize_models(gather_runs(folders))[0]
    stored_runs.run(tmp_path / "whole", RUN)
    whole = summarize_models(gather_runs([tmp_path / "whole"]))[0]
    assert [one.benches for one in apart[0].methods] == [one.benches for one in whole[0].methods]


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"seed": 1}, ["seed 0", "seed 1"]),
        ({"protocol": "official"}, ["protocol fair", "protocol official"]),
        ({"models": {"pocket": {**POCKET, "window": 512}}}, ["window", "256 in a", "512 in b"]),
    ],
)
def test_runs_that_cannot_be_compared_are_refused(
    tmp_path: Path, changes: Mapping[str, Any], named: list[str]
) -> None:
    stored_runs.run(tmp_path / "a", RUN)
    stored_runs.run(tmp_path / "b", RUN, **changes)
    with pytest.raises(UserError) as refusal:
        recommend([tmp_path / "a", tmp_path / "b"], None, None)
    for text in named:
        assert text in str(refusal.value)


def test_a_model_that_lacks_something_does_not_hide_the_others(tmp_path: Path) -> None:
    cells = [
        synthetic_runs.Cell(model, method, "niah", "single", length)
        for model, methods in (("pocket", ("original", "lampe")), ("llama3-8b", ("lampe",)))
        for method in methods
        for length in (256, 512)
    ]
    synthetic_runs.store(tmp_path, cells, "fair")
    summaries, problems = summarize_models(gather_runs([tmp_path]))
    assert [summary.model for summary in summaries] == ["pocket"]
    assert [problem for problem in problems if "llama3-8b" in problem]


def _labelled_run(folder: Path, given: str, settings: Mapping[str, Any]) -> None:
    """Store a run of a model that was given by one name and labelled "mine"."""
    answers = {method: RUN[method] for method in ("original", "lampe")}
    stored_runs.run(folder, answers, models={"mine": {**POCKET, "window": 128}})
    (folder / "samples" / "pocket").rename(folder / "samples" / "mine")
    for path in folder.rglob("*.jsonl"):
        path.write_text(path.read_text().replace('": "pocket', '": "mine'))
    description = yaml.safe_load((folder / "run.yaml").read_text())
    description["config"]["methods"] = {"original": {"mine": {}}, "lampe": {"mine": settings}}
    session = {"model": [given], "label": ["mine"], "method": ["original,lampe"]}
    time = "2026-11-28 01:21:06+00:00"
    description["history"] = [{"time": time, "options": session, "added": {}}]
    (folder / "run.yaml").write_text(yaml.safe_dump(description))


@pytest.mark.parametrize("given", ["pocket", "card.yaml"])
def test_the_snippet_has_the_model_and_the_settings_of_the_run(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    given: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    # the card of today, which has other settings than the run
    Path("card.yaml").write_text("path: pocket\nwindow: 64\nsettings: {lampe: {head_tokens: 5}}\n")
    settings = {"head_tokens": 9, "attention_factor": 1.05}
    _labelled_run(tmp_path / "run", given, lampe.method_of("lampe", **settings).settings)
    recommend([tmp_path / "run"], 1024, None)
    lines = capsys.readouterr().out.splitlines()
    assert any("not those that were measured" in line for line in lines)
    variables: dict[str, Any] = {}
    exec("\n".join(lines[lines.index("import lampe") :]), variables)
    handle = variables["handle"]
    assert handle.method == lampe.method_of("lampe", **settings)
    assert handle.geometry.window == 128


def test_the_snippet_of_a_composed_method_patches_the_model(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    label = "lampe+yarn:yarn.beta_fast=16"
    stored_runs.run(tmp_path, {"original": RUN["original"], label: RUN["dca:chunk_size=128"]})
    recommend([tmp_path], None, None)
    lines = capsys.readouterr().out.splitlines()
    variables: dict[str, Any] = {}
    exec("\n".join(lines[lines.index("import lampe") :]), variables)
    assert variables["handle"].method.settings["yarn.beta_fast"] == 16


def test_the_snippet_says_where_a_model_is_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _labelled_run(tmp_path, "gone/away/model", {})
    recommend([tmp_path], 1024, None)
    text = capsys.readouterr().out
    assert re.search(r"^# .*mine.*path", text, re.MULTILINE)
    assert "dtype='float32'" in text


def test_perplexities_are_recommended_by(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    losses = [2.9, 3.0, 3.1, 3.2, 3.05]
    stored_runs.losses(
        tmp_path,
        {
            "original": {256: losses, 1024: [loss + 2 for loss in losses]},
            "lampe": {256: [loss + 0.04 for loss in losses], 1024: losses},
            "dca": {256: [loss - 1e-6 for loss in losses], 1024: losses},
        },
    )
    recommend([tmp_path], None, None)
    text = capsys.readouterr().out
    assert recommended(text) == "dca"
    assert "+4.1 %" in text
    assert not re.search(r"-0\.0(?!\d)", text)


def test_the_page_opens_with_it_where_a_run_has_what_it_takes(tmp_path: Path) -> None:
    stored_runs.run(tmp_path / "whole", RUN)
    page = report_page(gather_runs([tmp_path / "whole"]), {})
    first = page.index("<section")
    assert page[first:].startswith('<section id="recommendation"')
    assert "recommended: dca:chunk_size=128" in page
    assert re.search(r"<br>effective length: [^;<]*<br>", page), "each note has a line"
    stored_runs.run(tmp_path / "part", {"lampe": RUN["lampe"]})
    assert 'id="recommendation"' not in report_page(gather_runs([tmp_path / "part"]), {})


def test_ruler_has_its_own_threshold_too(tmp_path: Path) -> None:
    cells = [
        synthetic_runs.Cell("pocket", method, "ruler", task, length)
        for method in ("original", "lampe")
        for task in ("vt", "cwe")
        for length in (256, 512)
    ]
    synthetic_runs.store(tmp_path, cells, "fair")
    summaries, _ = summarize_models(gather_runs([tmp_path]))
    (found,) = recommendation_tables(summaries)
    assert any("85.6" in title for title in found.table.columns)
    assert {len(values) + 1 for _, values in found.table.lines} == {len(found.table.columns)}
