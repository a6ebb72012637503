"""Command `lampe-eval recommend` and its part of the report page, on stored runs."""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

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


def recommended(text: str) -> str:
    found = re.search(r"^recommended: (.*?): ", text, re.MULTILINE)
    assert found, text
    return found[1]


def test_a_method_that_loses_on_short_prompts_is_not_recommended(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stored_runs.run(tmp_path, RUN)
    recommend(tmp_path, None, None)
    text = capsys.readouterr().out
    assert recommended(text) == "dca:chunk_size=128"
    assert "shown to lose on prompts that fit the window: lampe" in text
    assert "-100.0 points" in text
    assert "lampe.patch(model, 'dca', chunk_size=128)" in text


def test_the_snippet_patches_the_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stored_runs.run(tmp_path, RUN)
    recommend(tmp_path, None, None)
    lines = capsys.readouterr().out.splitlines()
    variables: dict[str, object] = {}
    exec("\n".join(lines[lines.index("import lampe") :]), variables)
    assert lampe.explain(variables["model"]), "the model is patched"


def test_a_method_of_frequencies_is_a_configuration(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stored_runs.run(tmp_path, {method: RUN[method] for method in ("original", "yarn")})
    recommend(tmp_path, 1024, None)
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
        recommend(tmp_path, length, None)


def test_a_method_with_failed_samples_is_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    failed = {**RUN["yarn"], 2048: [*RIGHT[:-1], None]}
    stored_runs.run(tmp_path, {**RUN, "yarn": failed})
    recommend(tmp_path, None, None)
    assert re.search(r"^left out.* yarn$", capsys.readouterr().out, re.MULTILINE)


def test_perplexities_are_recommended_by(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    losses = [2.9, 3.0, 3.1, 3.2, 3.05]
    stored_runs.losses(
        tmp_path,
        {
            "original": {256: losses, 1024: [loss + 2 for loss in losses]},
            "lampe": {256: [loss + 0.04 for loss in losses], 1024: losses},
            "dca": {256: losses, 1024: losses},
        },
    )
    recommend(tmp_path, None, None)
    text = capsys.readouterr().out
    assert recommended(text) == "dca"
    assert "+4.1 %" in text


def test_the_page_opens_with_it_where_a_run_has_what_it_takes(tmp_path: Path) -> None:
    stored_runs.run(tmp_path / "whole", RUN)
    page = report_page(gather_runs([tmp_path / "whole"]), {})
    first = page.index("<section")
    assert page[first:].startswith('<section id="recommendation"')
    assert "recommended: dca:chunk_size=128" in page
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
    (found,) = recommendation_tables(summarize_models(gather_runs([tmp_path])))
    assert any("85.6" in title for title in found.table.columns)
    assert {len(values) + 1 for _, values in found.table.lines} == {len(found.table.columns)}
