"""Pages in a real browser: what they show, and that a hostile prediction can do nothing."""

import json
import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Locator, Page, expect

from lampe_eval.report.page.report_page import leaderboard_page, report_page
from lampe_eval.results.gathered_runs import GatheredRuns
from lampe_eval.results.paired_tests import CellSamples
from lampe_eval.scoring.estimates import Estimate
from lampe_eval.store import Cell
from tests.lampe_eval.report.conftest import Open
from tests.lampe_eval.report.kit import cell, gathered, row, store

HOSTILE = (
    "</script><script>alert(1)</script><img src=x onerror=alert(2)><svg onload=alert(3)>"
    "<style>*{display:none}</style>{{ 7 * 7 }}\u2028\x1b[31m\x00\u202egnp.exe 'quoted\" & <!--"
)
LABEL = "</script><script>alert(4)</script><img src=x onerror=alert(5)>"
SVG = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 9 9">'
    '<script>alert(6)</script><circle r="9"/></svg>'
)
LONG = "lampe:mapping_length=128,attention_factor=1.12,attention_factor_rate=0"
METHODS = ("original", "yarn", "lampe")
SCORES = {"original": 9.5, "yarn": math.nan, "lampe": 100.0}


def _small(tmp_path: Path) -> GatheredRuns:
    """Return three methods at two lengths: one lacks a score, another has a failed sample."""
    cells = {}
    for length in (1024, 512):
        for method in METHODS:
            cells[cell(method, length)] = [row(f"{length}/{n}") for n in range(6)]
    cells[cell("original")][2] |= {
        "error": "OutOfMemoryError: 2 GiB",
        "prediction": "",
        "score": 0.0,
    }
    scores = {
        cell(method): {"score": score, "ci_low": 1.5, "ci_high": 100.0}
        for method, score in SCORES.items()
    }
    scores[cell("original")] |= {"n": 5, "missing": 1, "errors": 2, "cut": 3}
    pairs = [
        {
            "reference": "original",
            "method": "lampe",
            "n": 5,
            "difference": -90.5,
            "ci_low": -93.0,
            "ci_high": -88.0,
        }
        | {"p_value": 0.00001, "p_value_holm": 0.00003},
        {
            "reference": "original",
            "method": "yarn",
            "n": 5,
            "difference": 2.0,
            "ci_low": -1.0,
            "ci_high": 5.0,
        }
        | {"p_value": 0.4, "p_value_holm": 0.8},
    ]
    return gathered(store(tmp_path / "run", cells), scores=scores, pairs=pairs)


def _column(page: Page, table: str, title: str) -> list[str]:
    """Texts of a column as they are shown."""
    head = page.locator(f"#{table} thead th").all_inner_texts()
    return page.locator(
        f"#{table} tbody tr > :nth-child({head.index(title) + 1})"
    ).all_inner_texts()


def _sort(page: Page, table: str, title: str) -> str | None:
    """Clicks a column's head; how the table says that it is sorted."""
    head = page.locator(f"#{table} thead th", has_text=re.compile(f"^{title}$"))
    head.get_by_role("button").click()
    return head.get_attribute("aria-sort")


def test_the_page_opens_without_error_or_request(opened: Open, tmp_path: Path) -> None:
    found = opened(report_page(_small(tmp_path), {"Recall": SVG}), offline=True)
    expect(found.page.locator("h1")).to_have_text("run")
    assert found.page.locator("img").evaluate(
        "image => image.decode().then(() => image.naturalWidth > 0)"
    )
    assert found.console == []
    assert [url for url in found.requests if not url.startswith("data:image/svg+xml;")] == [
        found.page.url
    ]


def test_numbers_sort_as_numbers_and_missing_ones_come_last(opened: Open, tmp_path: Path) -> None:
    here = opened(report_page(_small(tmp_path), {})).page
    here.locator("#scores").get_by_label("Length").select_option("1024")
    assert _sort(here, "scores", "Score") == "ascending"
    assert _column(here, "scores", "Score") == ["9.50", "100.00", "–"]
    assert _sort(here, "scores", "Score") == "descending"
    assert _column(here, "scores", "Score") == ["100.00", "9.50", "–"]
    assert _sort(here, "scores", "Score") == "none"
    assert _column(here, "scores", "Method") == list(METHODS)


def test_equal_rows_stay_in_their_order(opened: Open, tmp_path: Path) -> None:
    here = opened(report_page(_small(tmp_path), {})).page
    _sort(here, "scores", "Method")
    _sort(here, "scores", "Length")
    assert _column(here, "scores", "Method") == ["lampe", "original", "yarn"] * 2
    assert _column(here, "scores", "Length") == ["512"] * 3 + ["1,024"] * 3


def test_tables_are_filtered_by_choices_and_words(opened: Open, tmp_path: Path) -> None:
    here = opened(report_page(_small(tmp_path), {})).page
    table = here.locator("#samples")
    expect(table.get_by_role("status")).to_have_text("25 of 36 rows shown")
    table.get_by_role("button", name="Show more").click()
    expect(table.get_by_role("status")).to_have_text("36 of 36 rows shown")
    expect(table.get_by_role("button", name="Show more")).to_be_hidden()
    table.get_by_label("Method").select_option("yarn")
    expect(table.get_by_role("status")).to_have_text("12 of 12 rows shown (of 36)")
    table.get_by_label("Search").fill("PREDICTION 512/3")
    assert _column(here, "samples", "Sample") == ["512/3"]
    table.get_by_label("Search").fill("nowhere")
    expect(table.locator("tbody")).to_have_text("No row matches.")
    table.get_by_role("button", name="Clear").click()
    expect(table.get_by_role("status")).to_have_text("25 of 36 rows shown")
    table.get_by_label("Marks").select_option("failed")
    assert _column(here, "samples", "Marks") == ["failed"]


def test_unscored_samples_are_marked(opened: Open, tmp_path: Path) -> None:
    here = opened(report_page(_small(tmp_path), {})).page
    assert _column(here, "scores", "Marks")[0].split("\n") == ["1 missing2 failed3 cut"]
    expect(here.locator(".warning").first).to_contain_text("1 missing, 2 failed")


def test_a_run_that_is_still_written_is_announced_at_the_top(opened: Open, tmp_path: Path) -> None:
    run = replace(_small(tmp_path), writing={"run": f"run is still being written: {LABEL}"})
    for text in (report_page(run, {}), leaderboard_page(run, {})):
        expect(opened(text).page.locator(".warning").nth(1)).to_have_text(
            f"run is still being written: {LABEL}"
        )


def test_the_overview_marks_the_best_of_complete_scores(opened: Open, tmp_path: Path) -> None:
    run = _small(tmp_path)
    run.scores.loc[run.scores["method"] == "yarn", "score"] = 20.0
    found = opened(report_page(run, {}), java_script_enabled=False).page.locator("#overview")
    expect(
        found.get_by_role("heading", name="niah/single · recall · m, window 256 · protocol fair")
    ).to_be_visible()
    lines = found.get_by_role("row").all_inner_texts()
    assert [line.split("\t")[::3] for line in lines[1:]] == [
        ["original", "9.50 [2, 100] 5 of 8"],
        ["yarn", "20.0 [2, 100]"],
        ["lampe", "100.0 [2, 100]"],
    ]
    # without samples nobody is shown to be worse
    assert found.locator("td .best").all_inner_texts() == ["50.0", "20.0", "20.0", "50.0", "100.0"]


def test_differences_have_p_values(opened: Open, tmp_path: Path) -> None:
    here = opened(report_page(_small(tmp_path), {})).page
    assert _column(here, "differences", "Difference") == ["−90.50", "2.00"]
    assert _column(here, "differences", "p") == ["< 0.0001", "0.4000"]
    assert here.locator("#differences tbody b").all_inner_texts() == ["−90.50"]


def test_a_number_of_samples_links_to_them(opened: Open, tmp_path: Path) -> None:
    here = opened(report_page(_small(tmp_path), {})).page
    here.get_by_role("button", name="5 samples of original, single, 1024").click()
    expect(here.locator("#samples").get_by_role("status")).to_have_text("6 of 6 rows shown (of 36)")
    assert set(_column(here, "samples", "Method")) == {"original"}
    assert set(_column(here, "samples", "Length")) == {"1,024"}


def test_a_click_shows_a_sample(opened: Open, tmp_path: Path) -> None:
    here = opened(report_page(_small(tmp_path), {})).page
    here.locator("#samples").get_by_role("button", name="1024/1", exact=True).first.click()
    sample = here.get_by_role("dialog")
    expect(sample).to_have_accessible_name("original on 1024/1")
    for what in ("start", "end", "prediction", "reference"):
        expect(sample.get_by_text(f"{what} of 1024/1", exact=True).first).to_be_visible()
    sample.get_by_role("button", name="lampe prediction of 1024/1 100.0").click()
    expect(sample).to_have_accessible_name("lampe on 1024/1")
    sample.get_by_role("button", name="Close").click()
    expect(sample).to_be_hidden()


def test_the_keyboard_shows_a_sample(opened: Open, tmp_path: Path) -> None:
    here = opened(report_page(_small(tmp_path), {})).page
    here.locator("#samples").get_by_label("Length").select_option("1024")
    here.locator("#samples .box").focus()
    for _ in here.locator("#samples thead button").all():
        here.keyboard.press("Tab")
    here.keyboard.press("Tab")
    here.keyboard.press("Enter")
    sample = here.get_by_role("dialog")
    expect(sample).to_have_accessible_name("original on 1024/0")
    here.keyboard.press("ArrowRight")
    here.keyboard.press("ArrowRight")
    expect(sample).to_have_accessible_name("original on 1024/2")
    expect(sample.get_by_text("OutOfMemoryError: 2 GiB")).to_be_visible()
    here.keyboard.press("Escape")
    expect(sample).to_be_hidden()
    expect(
        here.locator("#samples").get_by_role("button", name="1024/0", exact=True).first
    ).to_be_focused()


def test_columns_are_sorted_by_the_keyboard(opened: Open, tmp_path: Path) -> None:
    here = opened(report_page(_small(tmp_path), {})).page
    here.locator("#scores thead button").first.focus()
    here.keyboard.press("Space")
    assert _column(here, "scores", "Method")[:2] == ["lampe", "lampe"]


def _hostile(tmp_path: Path) -> GatheredRuns:
    fields = dict.fromkeys(("prompt_start", "prompt_end", "prediction"), HOSTILE)
    sample = row(
        HOSTILE, **fields, references=[HOSTILE], extras={"all": HOSTILE}, **{HOSTILE: HOSTILE}
    )
    cells = {
        cell(f"{LABEL}:a", model=LABEL): [sample, row("broken", error=HOSTILE, prediction=None)],
        cell(f"{LABEL}:b", model=LABEL): [sample],
    }
    return gathered(store(tmp_path / "<img src=x onerror=alert(7)>", cells, {"haystack": HOSTILE}))


def test_nothing_from_a_run_is_executed(opened: Open, tmp_path: Path) -> None:
    found = opened(report_page(_hostile(tmp_path), {HOSTILE: SVG}))
    here = found.page
    for button in here.locator("#samples tbody").get_by_role("button").all():
        button.click()
        expect(here.get_by_role("dialog")).to_be_visible()
        here.keyboard.press("Escape")
    here.locator("summary").click()
    here.wait_for_timeout(100)
    assert (found.dialogs, found.console) == ([], [])
    assert here.locator("script").count() == 2
    assert here.locator("img").count() == 1
    assert "</script><script>alert(1)</script><img" in here.locator("details pre").inner_text()


def test_control_characters_are_visible(opened: Open, tmp_path: Path) -> None:
    here = opened(report_page(_hostile(tmp_path), {})).page
    here.locator("#samples tbody").get_by_role("button").first.click()
    prediction = here.get_by_role("dialog").locator(".stored-text").first.inner_text()
    assert "⟨U+2028⟩⟨U+001B⟩[31m⟨U+0000⟩⟨U+202E⟩gnp.exe" in prediction


def test_the_policy_blocks_what_escaping_would_miss(opened: Open, tmp_path: Path) -> None:
    found = opened(report_page(_small(tmp_path), {}))
    add = "markup => document.body.append(document.createRange().createContextualFragment(markup))"
    found.page.evaluate(
        add, "<script>alert(1)</script><img src=x onerror=alert(2)><img src=http://127.0.0.1:9/x>"
    )
    found.page.evaluate("fetch('http://127.0.0.1:9/').catch(() => {})")
    found.page.wait_for_timeout(100)
    assert found.dialogs == []
    assert len([line for line in found.console if "Content Security Policy" in line]) >= 4


def test_data_cannot_end_its_block(tmp_path: Path) -> None:
    text = report_page(_hostile(tmp_path), {})
    block = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)
    assert block is not None and "<" not in block[1]
    assert HOSTILE in json.loads(block[1])["samples"]["texts"]


def test_half_a_surrogate_pair_does_not_stop_it(opened: Open, tmp_path: Path) -> None:
    run = store(tmp_path / "run", {cell(): [row("a")]})
    path = next((tmp_path / "run").glob("samples/**/*.jsonl"))
    path.write_text(path.read_text().replace("prediction of a", "half \\ud83d"))
    here = opened(report_page(gathered(run), {})).page
    assert _column(here, "samples", "Prediction") == ["half ?"]


def test_a_long_text_keeps_start_and_end(opened: Open, tmp_path: Path) -> None:
    text = "first " + "x" * 1_000_000 + " last"
    whole = report_page(
        gathered(store(tmp_path / "run", {cell(): [row("a", prediction=text)]})), {}
    )
    assert len(whole) < 100_000
    here = opened(whole).page
    here.locator("#samples tbody").get_by_role("button").click()
    shown = here.get_by_role("dialog").locator(".stored-text").first.inner_text()
    assert shown.startswith("first xx") and shown.endswith("xx last")
    assert "[… 996,011 characters …]" in shown


def test_infinite_and_missing_scores_are_shown_and_sorted(opened: Open, tmp_path: Path) -> None:
    cells = {
        cell(method, bench="ppl", task="exact"): [row("a", score=None, loss=2.5, scored_tokens=2)]
        for method in METHODS
    }
    scores = dict(
        zip(cells, ({"score": math.inf}, {"score": 3.25}, {"score": math.nan}), strict=True)
    )
    here = opened(report_page(gathered(store(tmp_path / "run", cells), scores=scores), {})).page
    _sort(here, "scores", "Score")
    assert _column(here, "scores", "Score") == ["3.25", "∞", "–"]
    assert _column(here, "samples", "Loss") == ["1.2500"] * 3


@pytest.mark.parametrize("build", ["report", "site"])
def test_a_phone_scrolls_tables_and_not_the_page(opened: Open, tmp_path: Path, build: str) -> None:
    long = "lampe:" + "mapping_length=128," * 6 + "x" * 80
    run = store(
        tmp_path / ("r" * 120),
        {cell(long): [row("i" * 200, prediction="p" * 5_000)], cell("a b " * 20): [row("b")]},
    )
    found = gathered(run)
    here = opened(
        report_page(found, {"t" * 90: SVG}) if build == "report" else leaderboard_page(found, {}),
        width=360,
    ).page
    width = "document.documentElement.scrollWidth"
    assert here.evaluate(width) == 360
    if build == "report":
        here.locator("#samples tbody").get_by_role("button").first.click()
        sample = here.get_by_role("dialog").locator(".body")
        assert sample.evaluate("body => body.scrollWidth - body.clientWidth") == 0
        assert here.evaluate(width) == 360


@pytest.mark.parametrize("width", [390, 1280])
def test_the_leaderboard_shows_the_score_beside_the_method(
    opened: Open, tmp_path: Path, width: int
) -> None:
    """Show the score on a phone without scrolling, and all columns on a wide screen."""
    methods = (LONG, "yarn", "dca")
    runs = [
        store(
            tmp_path / f"pocket-3d0d796{i}",
            {cell(method, task=f"task_{i}", model=f"model-{i}"): [row("a")]},
        )
        for i, method in enumerate(methods)
    ]
    found = gathered(
        *runs, scores={cell(LONG, task="task_0", model="model-0"): {"missing": 10, "cut": 10}}
    )
    found.scores["window"], found.scores["protocol"] = [256, 4096, 8192], [*methods[1:], "fair"]
    found.scores["settings"] = (
        "weights sha256:85fdadd77d2bb07a, dtype float32, limit none",
        "seed 5",
        "",
    )
    here = opened(leaderboard_page(found, {}), width=width).page
    box = here.locator("#standings .box")
    assert here.locator("#standings thead th").all_inner_texts()[:2] == ["Method", "Score"]
    assert len(here.locator("#standings thead th").all()) == 12
    score = here.locator("#standings tbody td").first.bounding_box()
    assert score is not None and score["x"] + score["width"] <= width
    if width == 1280:
        assert box.evaluate("box => box.scrollWidth - box.clientWidth") == 0


@pytest.mark.parametrize("width", [390, 700, 1280])
def test_pictures_keep_their_size_and_no_link_is_cut(
    opened: Open, tmp_path: Path, width: int
) -> None:
    drawn = {f"{wide} inches": _svg(wide) for wide in (3, 9)}
    here = opened(report_page(_small(tmp_path), drawn), width=width).page
    assert [image.evaluate("image => image.width") for image in here.locator("img").all()] == [
        288,
        864,
    ]
    assert here.evaluate("document.documentElement.scrollWidth") == width
    for link in here.locator("nav a").all():
        box = link.bounding_box()
        assert box is not None and box["x"] >= 0 and box["x"] + box["width"] <= width


def _svg(inches: int) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{72 * inches}pt" height="72pt">'
        '<circle r="9"/></svg>'
    )


WHOLE = """cell => {
  const texts = [...cell.childNodes].filter((node) => node.nodeType === Node.TEXT_NODE);
  return texts.every((node) => {
    const range = document.createRange();
    range.selectNodeContents(node);
    return range.getClientRects().length === 1;
  });
}"""
"""Whether no line breaks within a piece of a cell's text."""


@pytest.mark.parametrize("width", [360, 1280])
@pytest.mark.parametrize("build", ["report", "site"])
def test_a_long_label_is_broken_after_punctuation(
    opened: Open, tmp_path: Path, build: str, width: int
) -> None:
    found = gathered(store(tmp_path / "run", {cell(LONG): [row("a")]}))
    here = opened(
        report_page(found, {}) if build == "report" else leaderboard_page(found, {}), width=width
    ).page
    cells = here.locator("#overview tbody th, #scores tbody th, #standings tbody th").all()
    assert [cell.inner_text() for cell in cells] == [LONG] * (2 if build == "report" else 1)
    assert all(cell.evaluate(WHOLE) for cell in cells)


CONTRASTS = """() => {
  const channels = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const luminance = (colour) => {
    const [red, green, blue] = channels(colour).map((value) => value / 255)
      .map((value) => (value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4));
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
  };
  const ground = (node) => {
    const colour = getComputedStyle(node).backgroundColor;
    const opaque = channels(colour).length < 4 || channels(colour)[3] === 1;
    return opaque || !node.parentElement ? colour : ground(node.parentElement);
  };
  const faint = [];
  let seen = 0;
  for (const node of document.body.querySelectorAll("*")) {
    const isText = (child) => child.nodeType === Node.TEXT_NODE && child.data.trim();
    if (![...node.childNodes].some(isText)) continue;
    if (!node.checkVisibility() || node.closest("script")) continue;
    const colours = [getComputedStyle(node).color, ground(node)];
    const [lighter, darker] = colours.map(luminance).sort((a, b) => b - a);
    const contrast = (lighter + 0.05) / (darker + 0.05);
    seen += 1;
    if (contrast < 4.5) faint.push(`${node.outerHTML.slice(0, 90)} ${contrast}`);
  }
  return [seen, faint];
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_contrasts_with_its_background(opened: Open, tmp_path: Path, scheme: str) -> None:
    here = opened(report_page(_small(tmp_path), {"Recall": SVG}), color_scheme=scheme).page
    here.locator("summary").click()
    here.locator("#samples").get_by_role("button", name="1024/2", exact=True).first.click()
    expect(here.get_by_text("OutOfMemoryError: 2 GiB").last).to_be_visible()
    seen, faint = here.evaluate(CONTRASTS)
    assert faint == []
    assert seen > 300
    dark = here.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(23, 22, 20)"
    assert dark == (scheme == "dark")


def test_without_scripts_settings_are_shown_and_a_note_explains(
    opened: Open, tmp_path: Path
) -> None:
    here = opened(report_page(_small(tmp_path), {}), java_script_enabled=False).page
    expect(here.get_by_text("The tables need JavaScript")).to_be_visible()
    expect(here.locator("details pre")).to_contain_text("seed: 0")


def test_the_leaderboard_links_to_existing_reports(opened: Open, tmp_path: Path) -> None:
    runs = [
        store(tmp_path / name, {cell(method): [row("a")]})
        for name, method in (("one", "lampe"), ("two", "yarn"))
    ]
    found = opened(leaderboard_page(gathered(*runs), {"one": "one/report.html"}))
    assert _column(found.page, "standings", "Run") == ["one", "two"]
    links = found.page.locator("#standings tbody a")
    assert [link.get_attribute("href") for link in links.all()] == ["one/report.html"]
    found.page.locator("#standings").get_by_label("Run").select_option("two")
    assert _column(found.page, "standings", "Method") == ["yarn"]
    assert found.console == []


def _ranked(tmp_path: Path) -> GatheredRuns:
    """Return runs of two models and protocols: three methods at two lengths, two of them tied."""
    scores = {"original": (10.0, 90.0), "yarn": (80.0, 50.0), LABEL: (85.0, 5.0)}
    runs = []
    found: dict[Cell, dict[str, Any]] = {}
    for name, protocol in (("m", "fair"), ("n", "official")):
        cells = {}
        for method, of_method in scores.items():
            for length, score in zip((512, 1024), of_method, strict=True):
                cells[cell(method, length, model=name)] = [row("a")]
                interval = {"ci_low": score - 10, "ci_high": score + 10}
                fields = {"score": score, **interval, "protocol": protocol}
                found[cell(method, length, model=name)] = fields
        runs.append(store(tmp_path / f"run-{name}", cells))
    # twenty answers a cell, from which ranks are computed
    answers: dict[tuple[str, Cell], CellSamples] = {}
    for run in runs:
        for each in run.cells():
            right = round(found[each]["score"] / 5)
            estimate = Estimate.mean([100.0] * right + [0.0] * (20 - right))
            ids = [(str(number), "") for number in range(20)]
            answers[run.folder.name, each] = CellSamples(ids, estimate)
    return replace(gathered(*runs, scores=found), cell_samples=answers)


def _methods(ranking: Locator) -> list[str]:
    return [text.split("\n")[0] for text in ranking.locator("tbody th").all_inner_texts()]


def test_the_leaderboard_ranks_methods_by_the_chosen_column(opened: Open, tmp_path: Path) -> None:
    found = opened(leaderboard_page(_ranked(tmp_path), {"run-m": "m/report.html"}), offline=True)
    ranking = found.page.locator("#rankings article").first
    assert _methods(ranking) == ["original", "yarn", LABEL]
    assert ranking.locator("tbody .rank").all_inner_texts() == ["3", "1", "1 =", "2", "1 =", "3"]
    assert ranking.locator("tbody td .place-1").count() == 3
    expect(ranking.locator("tbody td").nth(1)).to_contain_text("90.0 [80, 100]")
    expect(ranking.locator("figcaption")).to_contain_text("at 1024")
    assert ranking.get_by_role("link", name="run-m").get_attribute("href") == "m/report.html"
    ranking.get_by_role("button", name="512").click()
    assert _methods(ranking) == [LABEL, "yarn", "original"]
    assert ranking.locator("figure .name").all_inner_texts() == [LABEL, "yarn", "original"]
    expect(ranking.locator("figcaption")).to_contain_text("at 512")
    expect(ranking.get_by_role("button", name="512")).to_be_focused()
    assert (found.console, found.dialogs) == ([], [])


def test_the_leaderboard_draws_intervals_where_they_are(opened: Open, tmp_path: Path) -> None:
    here = opened(leaderboard_page(_ranked(tmp_path), {})).page
    track = here.locator("#rankings .track").first
    box, line = track.bounding_box(), track.locator("b").bounding_box()
    assert box is not None and line is not None
    assert line["x"] - box["x"] == pytest.approx(0.8 * box["width"], abs=1)
    assert line["width"] == pytest.approx(0.2 * box["width"], abs=1)


@pytest.mark.parametrize(("name", "value"), [("Model", "n"), ("Protocol", "official")])
def test_the_leaderboard_is_filtered(opened: Open, tmp_path: Path, name: str, value: str) -> None:
    here = opened(leaderboard_page(_ranked(tmp_path), {})).page
    rankings, shown = here.locator("#rankings"), here.locator("#rankings article:visible")
    status = rankings.get_by_role("status")
    expect(status).to_have_text("2 of 2 rankings shown")
    rankings.get_by_label(name).select_option(value)
    expect(status).to_have_text("1 of 2 rankings shown")
    expect(shown.locator(".note")).to_contain_text("n, window 256")
    rankings.get_by_label("Method").select_option("yarn")
    assert _methods(shown) == ["yarn"]
    # The rank among all methods.
    assert shown.locator("tbody .rank").all_inner_texts() == ["1 =", "2"]
    assert rankings.get_by_label("Benchmark").count() == 0


@pytest.mark.parametrize("width", [390, 1280])
def test_rankings_scroll_inside_the_page(opened: Open, tmp_path: Path, width: int) -> None:
    here = opened(leaderboard_page(_ranked(tmp_path), {}), width=width).page
    assert here.evaluate("document.documentElement.scrollWidth") == width
