"""Tables: which score is best, what is marked, and the formats they are written in."""

import math
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from lampe_eval.file_io import save_files
from lampe_eval.report.difference_table import difference_tables
from lampe_eval.report.latex import escaped, to_latex
from lampe_eval.report.markdown import escape_markdown, to_markdown
from lampe_eval.report.table_comparison import power_note
from lampe_eval.report.table_model import (
    ResultTable,
    TableValue,
    result_tables,
    unknown_interval_notes,
)
from lampe_eval.report.tables import print_tables, table_files, to_csv
from lampe_eval.results.gathered_runs import gather_runs
from lampe_eval.results.paired_tests import StudentTest
from lampe_eval.store import Cell
from lampe_eval.terminal import console
from tests.lampe_eval import stored_runs, synthetic_runs

METHODS = ("original", "dca", "lampe")
ANSWERS = {
    "lampe": {256: [True, True, True], 512: [True, True, True]},
    "dca:attention_factor=1.12": {256: [True, True, True], 512: [True, True, False]},
    "yarn": {256: [True, True, True], 512: [True, None, True]},
    "original": {256: [True, True, True], 512: [True, False]},
}


@pytest.fixture
def table(tmp_path: Path) -> ResultTable:
    stored_runs.run(tmp_path, ANSWERS)
    (table,) = result_tables(gather_runs([tmp_path]))
    return table


@pytest.fixture
def marked(tmp_path: Path) -> ResultTable:
    """Return a table with two methods that are shown to differ."""
    stored_runs.run(tmp_path, {"lampe": {512: [True] * 8}, "original": {512: [False] * 8}})
    (table,) = result_tables(gather_runs([tmp_path]))
    return table


def _column(table: ResultTable, title: str) -> dict[str, TableValue]:
    at = table.columns.index(title) - 1
    return {label: values[at] for label, values in table.lines}


def _bold(table: ResultTable, length: str) -> set[str]:
    return {label for label, value in _column(table, length).items() if value.best}


def _differing(table: ResultTable, length: str) -> set[str]:
    return {label for label, value in _column(table, length).items() if value.differs}


def test_bold_is_who_competes_and_is_not_shown_to_be_worse(table: ResultTable) -> None:
    assert _bold(table, "256") == ANSWERS.keys()  # all are alike
    assert _bold(table, "512") == {"lampe", "dca:attention_factor=1.12"}  # the others lack samples


@pytest.mark.parametrize(
    ("scores", "bold", "differing"),
    [
        ([10, 10, 0], {0, 1}, {2}),
        ([10, 4, 0], {0}, {1, 2}),  # 6 of 10: p = 0.014, of two methods 0.029
        ([10, 5, 5], {0, 1, 2}, set()),  # 5 of 10: p = 0.025, of two methods 0.051
        ([4, 10, 4], {1}, {1}),
        ([0, 0, 0], {0, 1, 2}, set()),
        ([7], set(), set()),
    ],
)
def test_bold_and_marked_scores_follow_paired_tests(
    scores: list[int], bold: set[int], differing: set[int], tmp_path: Path
) -> None:
    """Compare methods that are right on so many of the same ten samples with the first one."""
    methods = [f"ntk:factor={index}" for index in range(len(scores))]
    answers = {
        method: {512: [index < score for index in range(10)]}
        for method, score in zip(methods, scores, strict=True)
    }
    stored_runs.run(tmp_path, answers)
    (table,) = result_tables(gather_runs([tmp_path]))
    assert _bold(table, "512") == {methods[index] for index in bold}
    assert _differing(table, "512") == {methods[index] for index in differing}


def test_bold_averages_are_tested_over_their_tasks(tmp_path: Path) -> None:
    tasks = ("vt", "cwe", "fwe")
    cells = [Cell("pocket", method, "ruler", task, 512) for method in METHODS for task in tasks]
    synthetic_runs.store(tmp_path, cells, "fair")
    gathered = gather_runs([tmp_path])
    (table,) = result_tables(gathered)
    (line,) = (values for label, values in table.lines if label.startswith("mean of 3 tasks"))
    (cells_of_bench,) = gathered.comparable.values()
    averages = gathered.details[gathered.details["task"].isna()]
    scores = dict(zip(averages["method"], averages["value"], strict=True))
    expected = cells_of_bench.not_shown_worse(scores, {(task, 512): 1 / 3 for task in tasks})
    assert {label for label, value in zip(METHODS, line, strict=True) if value.best} == expected


def test_what_samples_can_show_is_noted_under_the_table(tmp_path: Path) -> None:
    answers = {method: {512: [True] * 10} for method in METHODS}
    stored_runs.run(tmp_path / "niah", answers)
    (table,) = result_tables(gather_runs([tmp_path / "niah"]))
    (note,) = (note for note in table.caption if "power" in note)
    # 5 of 10 for one other method (test_pairs.py), at the level of two
    found = re.match(r"10 samples can show differences of (\d+) points or more from original", note)
    assert found
    assert 50 < int(found[1]) < 70
    assert re.search(r"; \d+ samples would show 15 points$", note)
    stored_runs.losses(tmp_path / "ppl", {method: {512: [1.0, 2.0]} for method in METHODS})
    (table,) = result_tables(gather_runs([tmp_path / "ppl"]))
    assert any("windows can show differences of" in note for note in table.caption)


@pytest.mark.parametrize("has_rule", [False, True])
def test_differences_of_a_run_that_stops_by_rule_say_so(tmp_path: Path, has_rule: bool) -> None:
    answers = {"original": {512: [True] * 10}, "lampe": {512: [False] * 10}}
    rule = {"stopping": {"reference": "original", "margin": 5.0}} if has_rule else {}
    stored_runs.run(tmp_path, answers, **rule)
    (table,) = difference_tables(gather_runs([tmp_path]))
    assert any("fixed before" in note for note in table.caption) == has_rule
    assert any("power" in note for note in table.caption) != has_rule


def test_a_need_beyond_all_bounds_is_no_number() -> None:
    note = power_note([StudentTest(0, 1e6, 5)], 2, "original", "windows")
    assert re.search(r"more than 1048576 windows would show 5 %$", note)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"score": 130.0, "independent_units": 10}, "0 to 100"),
        ({"score": -3.0, "independent_units": 10}, "0 to 100"),
        ({"score": -3.0, "independent_units": 1}, "0 to 100"),
        ({"score": -3.0, "independent_units": 10, "scale": "log"}, "logarithm"),
        ({"score": math.inf, "independent_units": 1, "scale": "log"}, "finite"),
        ({"score": 8.0, "independent_units": 1, "scale": "log"}, "single window"),
        ({"score": 8.0, "independent_units": 3, "scale": "log"}, "alike"),
    ],
)
def test_a_missing_interval_has_the_right_reason(changes: dict[str, Any], reason: str) -> None:
    row = {"n": 10, "ci_low": math.nan, "unit": "window", "scale": "percent", **changes}
    (note,) = unknown_interval_notes(pd.DataFrame([row]))
    assert reason in note


def test_an_incomplete_cell_is_marked_and_does_not_compete(table: ResultTable) -> None:
    values = _column(table, "512")
    assert str(values["lampe"]) == "100.0 [33, 100]"
    assert str(values["yarn"]) == "100.0 [22, 100] (2 of 3)"
    assert str(values["original"]) == "50.0 [4, 96] (2 of 3)"
    samples, missing, failed = table.notes
    assert "n = 2 to 3 samples" in samples
    assert re.fullmatch("1 of 24 .* missing: 1 at 512", missing)
    assert re.fullmatch("1 of 24 .* failed: 1 at 512", failed)


def test_equal_counts_at_all_lengths_are_noted_once(tmp_path: Path) -> None:
    stored_runs.run(tmp_path, {"lampe": {256: [True, False], 512: [True, False], 1024: [True]}})
    store = stored_runs.run(tmp_path / "alike", {"lampe": {256: [True], 512: [True]}})
    store.save_cells(dict.fromkeys(store.cells(), 3))
    (some,), (every,) = (
        result_tables(gather_runs([folder])) for folder in (tmp_path, tmp_path / "alike")
    )
    assert some.notes[1:] == ["1 of 6 samples are missing: 1 at 1024"]
    assert every.notes[1:] == ["4 of 6 samples are missing: 2 at each length"]


def test_the_lowest_perplexity_is_best(tmp_path: Path) -> None:
    losses = {"lampe": [1.0, 2, 3], "dca": [1.001, 2.002, 2.999], "original": [5, 6.01, 7]}
    stored_runs.losses(tmp_path, {method: {512: means} for method, means in losses.items()})
    (table,) = result_tables(gather_runs([tmp_path]))
    assert _bold(table, "512") == {"lampe", "dca"}
    assert _differing(table, "512") == {"lampe", "dca"}


def test_one_cell_of_two_runs_is_two_rows(tmp_path: Path) -> None:
    for name, answers in (("a", [True, True]), ("b", [True, False])):
        stored_runs.run(tmp_path / name, {"lampe": {512: answers}})
    (table,) = result_tables(gather_runs([tmp_path / "a", tmp_path / "b"]))
    assert {label: str(value) for label, value in _column(table, "512").items()} == {
        "lampe · a": "100.0 [22, 100]", "lampe · b": "50.0 [4, 96]",
    }  # fmt: skip


def test_runs_with_different_settings_do_not_compete(tmp_path: Path) -> None:
    """Expect a table for each run, with a title that names the setting in which they differ."""
    for name, seed in (("a", 0), ("b", 5)):
        stored_runs.run(
            tmp_path / name, {"lampe": {512: [True, not seed]}, "yarn": {512: [False, True]}}, seed
        )
    first, second = result_tables(gather_runs([tmp_path / "a", tmp_path / "b"]))
    head = "niah/grid · recall · pocket, window 256 · protocol fair"
    assert (first.title, second.title) == (f"{head} · seed 0", f"{head} · seed 5")
    assert _bold(first, "512") == {"lampe · a", "yarn · a"}
    assert _bold(second, "512") == {"lampe · b", "yarn · b"}


def test_averages_are_those_of_the_runs_of_their_table(tmp_path: Path) -> None:
    for name, window in (("a", 256), ("b", 512)):
        cells = [
            Cell("pocket", "lampe", "ruler", "vt", 512),
            Cell("pocket", "lampe", "ruler", "vt", 1024),
            Cell("pocket", "lampe", "ruler", "cwe", 512),
            Cell("pocket", "lampe", "ruler", "cwe", 1024),
        ]
        synthetic_runs.store(
            tmp_path / name,
            cells,
            "fair",
            models={"pocket": {**synthetic_runs.model_description("pocket"), "window": window}},
        )
    tables = result_tables(gather_runs([tmp_path / "a", tmp_path / "b"]))
    averages = [table for table in tables if " · over tasks · " in table.title]
    assert [table.columns[1:] for table in averages] == [["lampe · a"], ["lampe · b"]]
    for table in averages:
        for _, values in table.lines:
            assert "-" not in map(str, values)


@pytest.mark.parametrize(
    ("documents", "units"),
    [
        ([None] * 4, "windows, taken as independent"),
        ([0, 0, 1, 1], "2 documents"),
        ([0, 0, 0, 0], "windows, taken as independent"),
    ],
)
def test_the_units_of_intervals_are_noted(
    tmp_path: Path, documents: list[int | None], units: str
) -> None:
    store = stored_runs.losses(tmp_path, {"lampe": {512: [1, 2, 3, 4]}})
    (cell,) = store.cells()
    for row, document in zip(store.rows(cell), documents, strict=True):
        store.append(cell, row if document is None else {**row, "meta": {"document": document}})
    (table,) = result_tables(gather_runs([tmp_path]))
    (note,) = table.notes
    assert note.startswith("n = 4 samples")
    assert note.endswith(f"95 % interval over {units}")


def test_a_length_without_a_score_is_a_dash(tmp_path: Path) -> None:
    stored_runs.run(tmp_path / "a", {"lampe": {512: [True]}})
    stored_runs.run(tmp_path / "b", {"lampe": {256: [True]}})
    (table,) = result_tables(gather_runs([tmp_path / "a", tmp_path / "b"]))
    (_, first), (_, second) = table.lines
    assert list(map(str, first[1:])) == ["-", "100.0 [8, 100]"]
    assert list(map(str, second[1:])) == ["100.0 [8, 100]", "-"]


def test_numbers_of_batches_are_flagged_under_every_table(tmp_path: Path) -> None:
    store = stored_runs.run(tmp_path, {"lampe": {256: [True, True], 512: [True, True]}})
    (alone,) = result_tables(gather_runs([tmp_path]))
    cell = next(iter(store.cells()))
    store.append(cell, {**store.rows(cell)[0], "batch_size": 4})
    gathered = gather_runs([tmp_path])
    (batched,) = result_tables(gathered)
    *notes, note = batched.notes
    assert notes == alone.notes
    assert "batches of up to 4" in note
    assert gathered.scores["batch_size"].tolist() == [4, 1]
    assert note in to_markdown(batched).splitlines()
    assert rf"\item {note}." in to_latex([batched])


def test_markdown(table: ResultTable) -> None:
    lines = to_markdown(table).splitlines()
    assert lines[0] == "### niah/grid · recall · pocket, window 256 · protocol fair"
    assert lines[2] == "| method | attention_factor | 256 | 512 |"
    assert lines[4] == "| lampe | none | **100.0 [33, 100]** | **100.0 [33, 100]** |"
    assert lines[6].endswith("| 100.0 [22, 100] (2 of 3) |")
    assert "bold" in lines[9]
    assert all(escape_markdown(note) in lines for note in table.caption)


def test_long_labels_are_broken_after_punctuation(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stored_runs.run(
        tmp_path, {"lampe:mapping_length=128,head_tokens=32,attention_factor=1.12": {512: [True]}}
    )
    gathered = gather_runs([tmp_path])
    (table,) = result_tables(gathered)
    start, end = "lampe:mapping_length=128,head_tokens=32,", "attention_factor=1.12"
    assert f"| {start}<br>{end} | none |" in to_markdown(table)
    print_tables(gathered, [table], console())
    first, second = (line for line in capsys.readouterr().out.splitlines() if line.startswith("│"))
    assert first.startswith(f"│ {start} │")
    assert second.startswith(f"│ {end:{len(start)}} │")


def test_latex(table: ResultTable) -> None:
    text = to_latex([table])
    assert (
        r"dca:attention\_factor=1.12 & none & \textbf{100.0} {\scriptsize [33, 100]} & "
        r"\textbf{66.7} {\scriptsize [14, 98]} \\" in text
    )
    assert r"\item bold: not shown to be worse" in text
    assert r"\caption{niah/grid \textperiodcentered{} recall" in text
    assert text.count(r"\tnote{a}") == 2
    assert r"\item[a] 2 of 3 samples." in text
    assert r"\item n = 2 to 3 samples per cell; in brackets 95 \% interval." in text
    assert [text.index(rule) for rule in (r"\toprule", r"\midrule", r"\bottomrule")] == sorted(
        text.index(rule) for rule in (r"\toprule", r"\midrule", r"\bottomrule")
    )


def test_latex_marks_differences_and_names_tables(marked: ResultTable) -> None:
    text = to_latex([marked, marked, replace(marked, title="ruler · at 512 tokens")])
    assert r"original & none & 0.00 {\scriptsize [0, 39]} \\" in text
    assert r"lampe & none & \textbf{100.0}$^{\dagger}$ {\scriptsize [61, 100]} \\" in text
    assert r"\item $^{\dagger}$ shown to differ from original" in text
    assert re.findall(r"\\label{(.*)}", text) == ["tab:niah-grid", "tab:niah-grid-2", "tab:ruler"]


def test_marks_are_explained_in_markdown_and_the_terminal(
    marked: ResultTable, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    print_tables(gather_runs([tmp_path]), [marked], console())
    for text in (to_markdown(marked), capsys.readouterr().out):
        assert "100.0† [61, 100]" in text
        assert "† shown to differ from original" in text
        assert "bold: " in text


def test_pooled_differences_have_a_table(tmp_path: Path) -> None:
    stored_runs.run(
        tmp_path,
        {
            "lampe": {256: [True] * 8, 512: [True] * 8, 1024: [True] * 8},
            "original": {256: [True] * 8, 512: [False] * 8, 1024: [False] * 8},
        },
    )
    (table,) = difference_tables(gather_runs([tmp_path]))
    assert table.columns == ["method", "beyond the window", "within the window"]
    ((label, (beyond, within)),) = table.lines
    assert label == "lampe"
    assert re.fullmatch(r"\+100\.0† \[\+\d\d\.\d, \+100\.0\]", str(beyond))
    assert re.fullmatch(r"\+0\.0 \[-\d\d\.\d, \+\d\d\.\d\]", str(within))
    assert "original" in table.title
    powers = [note for note in table.caption if "8 independent units can show" in note]
    assert [note.partition(":")[0] for note in powers] == table.columns[1:]


def test_names_are_escaped_in_markdown() -> None:
    hostile = ResultTable(
        r"a|b <i> `c` \d *e* [f](g)",
        ["method", "1|2"],
        [("<b>|`x`", [TableValue("1")])],
        ["*note*\n# no"],
    )
    title, _, columns, _, line, _, note, *_ = to_markdown(hostile).splitlines()
    assert title == r"### a\|b \<i> \`c\` \\d \*e\* \[f](g)"
    assert columns == r"| method | 1\|2 |"
    assert line == r"| \<b>\|\`x\` | 1 |"
    assert note == r"\*note\* # no"


def test_csv_has_no_formulas_and_no_trailing_zeros() -> None:
    frame = pd.DataFrame(
        {
            "model": ["=cmd()", "plain", "@a", None],
            "n": [-1, 2, 3, 4],
            "x": [-0.5, 495, 1 / 3, None],
        }
    )
    assert to_csv(frame).splitlines() == [
        "model,n,x", "'=cmd(),-1,-0.5", "plain,2,495", "'@a,3,0.333333", ",4,",
    ]  # fmt: skip


def test_names_are_escaped_in_latex() -> None:
    assert escaped("mapping_length=250") == r"mapping\_length=250"
    assert escaped(r"50% of \x{a} & $1 #2 ~ ^") == (
        r"50\% of \textbackslash{}x\{a\} \& \$1 \#2 \textasciitilde{} \textasciicircum{}"
    )


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no pdflatex")
def test_latex_sets_the_table(table: ResultTable, tmp_path: Path) -> None:
    hostile = ResultTable(
        r"100% \of $all_#{x}~^<>|",
        table.columns,
        [(r"a_b&c\d", values) for _, values in table.lines],
        [],
    )
    (tmp_path / "table.tex").write_text(to_latex([table, hostile]), encoding="utf-8")
    packages = to_latex([]).removeprefix("% ")
    body = r"\begin{document}\input{table}\ref{tab:niah-grid}\end{document}"
    document = rf"\documentclass{{article}}{packages}{body}"
    (tmp_path / "paper.tex").write_text(document, encoding="utf-8")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "paper.tex"]
    for _ in range(2):  # the second knows where the first set the tables
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    if "File `threeparttable.sty' not found" in done.stdout:
        pytest.skip("no threeparttable")
    assert done.returncode == 0, done.stdout[-2000:]
    assert "Overfull" not in done.stdout
    assert "undefined" not in done.stdout


def test_files(tmp_path: Path) -> None:
    for name, seed in (("a", 0), ("b", 1)):
        stored_runs.run(tmp_path / name, ANSWERS, seed)
    alone, both = gather_runs([tmp_path / "a"]), gather_runs([tmp_path / "a", tmp_path / "b"])
    for folder, gathered in (("one", alone), ("two", both)):
        files = table_files(gathered, list(result_tables(gathered)))
        save_files(tmp_path / folder, files)
        assert {path.name for path in (tmp_path / folder).iterdir()} == files.keys()
    by_method = pd.read_csv(tmp_path / "one" / "table.csv").set_index("method")
    columns = ["256 n", "256 unscored", "512 n", "512 unscored", "512 cut"]
    assert by_method.loc["yarn", columns].tolist() == [3, 0, 2, 1, 0]
    scores = [pd.read_csv(tmp_path / folder / "scores.csv") for folder in ("one", "two")]
    assert "run" not in scores[0]
    assert scores[1]["run"].tolist() == ["a"] * 8 + ["b"] * 8
    wide = pd.read_csv(tmp_path / "two" / "table.csv")
    assert wide[["run", "method", "512"]].values.tolist()[:2] == [
        ["a", "lampe", 100], ["a", "dca:attention_factor=1.12", pytest.approx(66.666667)],
    ]  # fmt: skip
    pairs = pd.read_csv(tmp_path / "one" / "pairs.csv")
    # three methods at two lengths; pooled, those without unscored samples
    assert pairs["scope"].value_counts().to_dict() == {
        "cell": 2 * 3, "within the window": 3,
    }  # fmt: skip
