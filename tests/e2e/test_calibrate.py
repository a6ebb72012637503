"""Calibration from the command line: sweep, fit, compare and write a card; and suggestions."""

import math
import re
import sys
from datetime import date
from pathlib import Path

import pandas as pd
import pytest
import yaml

from lampe_eval import run_description
from lampe_eval.calibration.resolved_calibration import resolve_calibration
from lampe_eval.cli import main
from lampe_eval.commands.validate import validate_calibration
from lampe_eval.engine.local_engine import LocalEngine
from lampe_eval.method_specs import parse_methods
from lampe_eval.results.cell_scores import score_run
from lampe_eval.run_description import calibration_date, run_date
from lampe_eval.store import Store
from tests.model_sources import find_model

SMALL = (
    *("--window", "64", "--lengths", "64,128,256", "--held-out", "96,192", "--limit", "2"),
    *("--mapping-lengths", "40,24,40,56", "--attention-factors", "1.0,1.1,1.2"),
)


def run_command(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """Run a command and return its exit code."""
    monkeypatch.setattr(sys, "argv", ["lampe-eval", *arguments])
    with pytest.raises(SystemExit) as stopped:
        main()
    return int(stopped.value.code or 0)


def assert_card_has_the_best_settings(
    settings: dict[str, dict[str, float]], held_out: pd.DataFrame
) -> None:
    """Check that a card has the settings of each method's best row at the held-out lengths."""
    means = held_out.groupby("method")["score"].mean()
    for name, label in (("lampe", "lampe:head_tokens=8,tail_tokens=4"), ("dca", "dca")):
        rows = means[[label for label in means.index if label.startswith(name)]]
        spec = parse_methods([str(rows.idxmin())])[0]
        assert settings.get(name, {}) == spec.settings
        assert rows.min() <= means[label]


def stored_samples(folder: Path) -> list[str]:
    lines: list[str] = []
    for file in folder.rglob("samples/**/*.jsonl"):
        lines += file.read_text().splitlines()
    return sorted(lines)


def files_of(folder: Path) -> dict[Path, bytes]:
    """Return the files in a folder that a second calibration leaves byte for byte as they were."""
    files = [file for file in folder.glob("*.*") if file.suffix != ".png"]
    return {file: file.read_bytes() for file in files}


def test_a_calibration_writes_a_card_that_a_run_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "cal"
    methods = ("--method", "lampe:head_tokens=8,tail_tokens=4,dca")
    command = ("calibrate", *methods, *SMALL, "--output", str(folder))
    assert run_command(monkeypatch, *command) == 0
    # 3 mapping lengths of lampe and 3 attention factors of each method at 3 lengths;
    # 3 + 2 rows at 2 held-out lengths
    printed = capsys.readouterr().out
    assert "37 cells of 2 samples" in printed

    table = pd.read_csv(folder / "calibration.csv")
    assert set(table["setting"]) == {"mapping_length", "attention_factor"}
    assert len(table) == 27
    assert table["score"].between(1, 100).all()
    assert table["score"].between(table["ci_low"], table["ci_high"]).all()
    chosen = next(line for line in printed.splitlines() if line.startswith("chosen"))
    assert chosen.count("[") == (0 if "as given;" in chosen else 2)
    assert (folder / "lampe-mapping_length.png").stat().st_size
    assert (folder / "dca-attention_factor.png").stat().st_size

    card = yaml.safe_load((folder / "pocket-calibrated.yaml").read_text())
    source = find_model(str(folder / "pocket-calibrated.yaml"))
    assert (source.name, source.geometry.window) == ("pocket-calibrated", 64)

    held_out = Store(folder / "held-out")
    assert len({cell.method for cell in held_out.cells()}) == 5
    assert {cell.length for cell in held_out.cells()} == {96, 192}
    assert held_out.config["seed"] == 1
    scores = pd.read_csv(folder / "held-out" / "scores.csv")
    assert_card_has_the_best_settings(card["settings"], scores)

    samples, files = stored_samples(folder), files_of(folder)
    assert run_command(monkeypatch, *command) == 0
    assert stored_samples(folder) == samples
    assert files_of(folder) == files

    run = ("run", "--model", str(folder / "pocket-calibrated.yaml"), "--method", "lampe")
    options = ("--bench", "ppl/exact", "--lengths", "128", "--limit", "1")
    output = tmp_path / "run"
    assert run_command(monkeypatch, *run, *options, "--output", str(output)) == 0
    settings = Store(output).config["methods"]["lampe"]["pocket-calibrated"]
    assert {key: settings[key] for key in card["settings"]["lampe"]} == card["settings"]["lampe"]


def test_group_sizes_are_searched_band_by_band(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ("calibrate", "--method", "dpe:bands=16/16", "--sweep", "group_sizes")
    lengths = ("--window", "64", "--lengths", "64,128,256", "--held-out", "192", "--limit", "1")
    grid = ("--group-sizes", "1,8,32", "--output", str(tmp_path))
    assert run_command(monkeypatch, *command, *lengths, *grid) == 0
    # 3 sizes of 2 bands, of which 8/8 is the start of both; 2 rows held out
    assert "7 cells of 1 samples" in capsys.readouterr().out
    table = pd.read_csv(tmp_path / "calibration.csv")
    assert table.groupby("setting")["value"].apply(list).to_dict() == {
        "group_sizes, band 1": [1, 8, 32],
        "group_sizes, band 2": [1, 8, 32],
    }
    assert set(table["length"]) == {256}
    best = []
    for _, rows in table.groupby("setting"):
        assert rows["best"].iloc[0] == rows["value"][rows["score"].idxmin()]
        best.append(f"{rows['best'].iloc[0]:g}")
    fitted = f"dpe:bands=16/16,group_sizes={'/'.join(best)}"
    assert {cell.method for cell in Store(tmp_path / "held-out").cells()} == {
        "dpe:bands=16/16",
        fitted,
    }
    assert not list(tmp_path.glob("*.png"))


def test_settings_can_be_fitted_by_needles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command = ("calibrate", "--bench", "niah/single", "--sweep", "attention_factor")
    lengths = ("--lengths", "128,192,320", "--output", str(tmp_path))
    grid = ("--attention-factors", "0.3,1.0", "--held-out", "256", "--limit", "2")
    assert run_command(monkeypatch, *command, *lengths, *grid) == 0
    table = pd.read_csv(tmp_path / "calibration.csv")
    for _, rows in table.groupby("length"):
        best = rows[rows["score"] == rows["score"].max()]["value"]
        assert rows["best"].iloc[0] == pytest.approx(best.mean())


def test_a_sweep_ignores_the_attention_factor_of_the_models_card(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    card = tmp_path / "grown.yaml"
    card.write_text(
        "path: pocket\nwindow: 64\n"
        "settings: {dca: {attention_factor: 1.0, attention_factor_rate: 0.3}}\n"
    )
    command = ("calibrate", "--model", str(card), "--method", "dca", *SMALL)
    assert run_command(monkeypatch, *command, "--output", str(tmp_path / "cal")) == 0
    scores = score_run(Store(tmp_path / "cal" / "attention_factor")).scores
    assert set(zip(scores["method"], scores["attention_factor"], strict=True)) == {
        ("dca:attention_factor=1.0,attention_factor_rate=0", "none"),
        ("dca:attention_factor=1.1,attention_factor_rate=0", "1.1000"),
        ("dca:attention_factor=1.2,attention_factor_rate=0", "1.2000"),
    }


@pytest.mark.filterwarnings("ignore:overflow")
@pytest.mark.parametrize(
    ("loss", "part"),
    [
        (math.inf, "18 samples failed"),
        # The loss is a number, but the perplexity of it is none.
        (1e6, "dca:attention_factor=1.0,attention_factor_rate=0 at 64 tokens"),
    ],
)
def test_scores_that_are_not_finite_are_not_fitted(
    loss: float,
    part: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(LocalEngine, "loss", lambda self, passage, **options: loss)
    command = ("calibrate", "--method", "dca", *SMALL, "--output", str(tmp_path / "cal"))
    assert run_command(monkeypatch, *command) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert part in error and "nothing was fitted" in error


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--method", "yarn"), "--method: yarn: "),
        (("--method", "lampe+yarn"), "--method: lampe+yarn: "),
        (
            ("--method", "dca:attention_factor=1.1,attention_factor_rate=0.1"),
            "attention_factor_rate=0.1: attention_factor is",
        ),
        (("--method", "lampe:slope=1.0,intercept=0.0,ceiling=99.0"), "ceiling=99.0: slope is"),
        (("--attention-factors", "1.1"), "--attention-factors: one value"),
        (("--mapping-lengths", "100,100"), "--mapping-lengths: one value"),
        (("--mapping-lengths", "100,256"), "--mapping-lengths: 256 positions"),
        (("--lengths", "100,512,1k"), "window of 256 and 100 tokens"),
        (
            ("--sweep", "attention_factor", "--lengths", "64,128,200"),
            "--lengths: attention_factor grows beyond the window of 256",
        ),
        (("--method", "dca", "--sweep", "mapping_length"), "dca has no mapping_length"),
        (("--method", "lampe:mapping_length=64"), "mapping_length=64: mapping_length is"),
        (("--method", "dca,dca:cap=250"), "--method: dca: dca"),
        (("--bench", "niah"), "--bench"),
        (("--lengths", "256,512"), "--lengths: a curve needs three"),
        (("--sweep", "head"), "--sweep: "),
        (("--attention-factors", "0,1"), "--attention-factors: "),
        (("--attention-factors", "warm"), "--attention-factors: 'warm'"),
        (("--mapping-lengths", "20,100"), "mapping_length=20"),
        (("--model", "no-such.yaml"), "no-such.yaml: "),
    ],
)
def test_what_cannot_be_calibrated_is_refused_in_one_line(
    options: tuple[str, ...],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run_command(monkeypatch, "calibrate", "--dry-run", *options) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.splitlines()) == 1


def test_the_default_folder_depends_on_the_grids_and_not_on_fetched_files() -> None:
    options = {"method": "dca", "sweep": "attention_factor", "text": "pg19-test"}
    folders: list[Path] = []
    for factors in ("1.0,1.1", "1.0,1.2", "1.1,1.0"):
        validated = validate_calibration({**options, "attention_factors": factors})
        folders.append(resolve_calibration(*validated).folder)
    first, other_grid, same_grid = folders
    assert first == same_grid != other_grid


def test_names_are_looked_up_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs of a calibration take the methods, tasks and models that validation resolved."""
    validated = validate_calibration({"method": "lampe,dca", "lengths": "256,512,1k"})

    def refuse(*_: object) -> None:
        raise AssertionError("a name was looked up again")

    for name in ("parse_methods", "find_tasks", "find_model"):
        monkeypatch.setattr(f"lampe_eval.running.resolve.{name}", refuse)
    calibration = resolve_calibration(*validated)
    (sweep, *_) = [
        calibration.sweep_of(spec, "attention_factor")
        for spec in calibration.prepared.resolved.specs
    ]
    prepared = calibration.run(sweep.specs, (512,), "sweep")
    assert [spec.label for spec in prepared.resolved.specs] == [spec.label for spec in sweep.specs]


def test_a_suggestion_names_each_setting_and_its_rule(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert (
        run_command(
            monkeypatch, "suggest", "--model", "pocket", "--length", "1k", "--answer", "200"
        )
        == 0
    )
    paragraphs = capsys.readouterr().out.strip().split("\n\n")[1:]
    flagged = paragraphs.pop()
    assert "beyond the window of 256 at 1224" in flagged and "original" in flagged
    assert "lampe" not in flagged
    blocks = dict(paragraph.split("\n", 1) for paragraph in paragraphs)
    assert "selfextend:window_size=64,group_size=11" in blocks
    assert "two thirds of the window" in blocks["selfextend:window_size=64,group_size=11"]
    assert "BEYOND the window of 256" in blocks["original"]
    assert (
        "largest position 170, inside the window of 256"
        in blocks["selfextend:window_size=64,group_size=11"]
    )
    (lampe,) = (block for label, block in blocks.items() if label.startswith("lampe:"))
    assert re.search("mapping_length +Llama 3's published curve", lampe)


def test_a_suggestion_takes_the_settings_of_the_models_card(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    card = tmp_path / "mine.yaml"
    card.write_text(
        "path: pocket\nwindow: 256\n"
        "settings: {selfextend: {window_size: 100}, lampe: {curve: llama2}}\n"
    )
    assert run_command(monkeypatch, "suggest", "--model", str(card), "--length", "1k") == 0
    output = capsys.readouterr().out
    assert "selfextend:window_size=100,group_size=" in output
    assert re.search("window_size +from the card of the model", output)
    assert re.search("mapping_length +the curve published for the model", output)
    assert "calibrate" not in output


def test_a_suggestion_for_a_composition_has_the_rules_of_both_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    card = tmp_path / "mine.yaml"
    card.write_text("path: pocket\nwindow: 256\nsettings: {yarn: {beta_fast: 16}}\n")
    options = ("--model", str(card), "--length", "1k", "--method", "string+yarn")
    assert run_command(monkeypatch, "suggest", *options) == 0
    output = capsys.readouterr().out
    assert "string+yarn:shift=337,local=32,yarn.factor=4.0,yarn.beta_fast=16" in output
    rules = dict(line.split(maxsplit=1) for line in output.splitlines() if line.startswith("    "))
    assert rules["shift"] == "0.33 of the prompt, as in the paper"
    assert rules["yarn.factor"] == "prompt length over window"
    assert rules["yarn.beta_fast"] == "from the card of the model"


def test_all_steps_of_a_calibration_have_one_date(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def description(folder: Path, day: str) -> None:
        folder.mkdir(parents=True)
        (folder / "run.yaml").write_text(f"date: {day}\n")

    monkeypatch.setattr(
        run_description, "read_description", lambda folder: {"date": days[folder.name]}
    )
    days = {"mapping_length": date(2024, 7, 3), "attention_factor": date(2024, 7, 4)}
    today = calibration_date(tmp_path / "cal")
    assert today == run_date(tmp_path / "cal" / "new")
    for name in days:
        description(tmp_path / "cal" / name, str(days[name]))
    first = calibration_date(tmp_path / "cal")
    assert first == days["mapping_length"]
    assert run_date(tmp_path / "cal" / "held-out", first) == first
    # A step that has begun keeps the date that its prompts have.
    assert run_date(tmp_path / "cal" / "attention_factor", first) == days["attention_factor"]
