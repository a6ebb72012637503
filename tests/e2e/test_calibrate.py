"""Calibration from the command line: sweep, fit, compare, card; gone on with when it was stopped."""

import math
import sys
from pathlib import Path

import pandas as pd
import pytest
import yaml
from lampe_eval.engine.local_engine import LocalEngine

from lampe_eval import models
from lampe_eval.calibration.calibration_config import CalibrationConfig, resolve_calibration
from lampe_eval.cli import main
from lampe_eval.method_specs import parse_methods
from lampe_eval.results.cell_scores import run_scores
from lampe_eval.store import Store

SMALL = (
    *("--window", "64", "--lengths", "64,128,256", "--held-out", "96,192", "--limit", "2"),
    *("--mapping-lengths", "40,24,40,56", "--attention-factors", "1.0,1.1,1.2"),
)


def _cli(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["lampe-eval", *arguments])
    with pytest.raises(SystemExit) as stopped:
        main()
    return int(stopped.value.code or 0)


def _is_the_best_held_out(settings: dict[str, dict[str, float]], frame: pd.DataFrame) -> None:
    means = frame.groupby("method")["score"].mean()
    for name, given in (("lampe", "lampe:head_tokens=8,tail_tokens=4"), ("dca", "dca")):
        own = means[[label for label in means.index if label.startswith(name)]]
        spec = parse_methods([str(own.idxmin())])[0]
        assert settings.get(name, {}) == spec.settings
        assert own.min() <= means[given]


def _lines(folder: Path) -> list[str]:
    return sorted(
        line
        for file in folder.rglob("samples/**/*.jsonl")
        for line in file.read_text().splitlines()
    )


def test_a_calibration_ends_in_a_card_that_a_run_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "cal"
    order = (
        "calibrate",
        "--method",
        "lampe:head_tokens=8,tail_tokens=4,dca",
        *SMALL,
        "--output",
        str(folder),
    )
    assert _cli(monkeypatch, *order) == 0
    said = capsys.readouterr().out
    # 3 mapping lengths of lampe and 3 attention_factors of each at 3 lengths; 3 + 2 rows at 2 lengths held out
    assert "37 cells of 2 samples" in said

    table = pd.read_csv(folder / "calibration.csv")
    assert set(table["setting"]) == {"mapping_length", "attention_factor"}
    assert len(table) == 27
    assert table["score"].between(1, 100).all()
    assert all(
        (folder / name).stat().st_size
        for name in ("lampe-mapping_length.png", "dca-attention_factor.png")
    )

    card = yaml.safe_load((folder / "pocket-calibrated.yaml").read_text())
    source = models.find_model(str(folder / "pocket-calibrated.yaml"))
    assert (source.name, source.geometry.window) == ("pocket-calibrated", 64)

    held_out = Store(folder / "held-out")
    assert len({cell.method for cell in held_out.cells()}) == 5
    assert {cell.length for cell in held_out.cells()} == {96, 192}
    assert held_out.config["seed"] == 1
    _is_the_best_held_out(card["settings"], pd.read_csv(folder / "held-out" / "scores.csv"))

    before, files = _lines(folder), {file: file.read_bytes() for file in folder.glob("*.*")}
    assert _cli(monkeypatch, *order) == 0
    assert _lines(folder) == before
    assert {file: file.read_bytes() for file in files if file.suffix != ".png"} == {
        file: content for file, content in files.items() if file.suffix != ".png"
    }

    run = (
        "run",
        "--model",
        str(folder / "pocket-calibrated.yaml"),
        "--method",
        "lampe",
        "--bench",
        "ppl/exact",
    )
    assert (
        _cli(
            monkeypatch, *run, "--lengths", "128", "--limit", "1", "--output", str(tmp_path / "run")
        )
        == 0
    )
    settings = Store(tmp_path / "run").config["methods"]["lampe"]["pocket-calibrated"]
    assert {key: settings[key] for key in card["settings"]["lampe"]} == card["settings"]["lampe"]


def test_needles_can_be_what_is_fitted_by(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order = (
        "calibrate",
        "--bench",
        "niah/single",
        "--sweep",
        "attention_factor",
        "--lengths",
        "128,192,320",
    )
    grid = ("--attention-factors", "0.3,1.0", "--held-out", "256", "--limit", "2")
    assert _cli(monkeypatch, *order, *grid, "--output", str(tmp_path)) == 0
    table = pd.read_csv(tmp_path / "calibration.csv")
    for _, at in table.groupby("length"):
        winners = at[at["score"] == at["score"].max()]["value"]
        assert at["best"].iloc[0] == pytest.approx(winners.mean())


def test_what_a_card_says_of_temperature_does_not_reach_a_sweep(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    card = tmp_path / "grown.yaml"
    card.write_text(
        "path: pocket\nwindow: 64\nsettings: {dca: {attention_factor: 1.0, attention_factor_rate: 0.3}}\n"
    )
    order = (
        "calibrate",
        "--model",
        str(card),
        "--method",
        "dca",
        *SMALL,
        "--output",
        str(tmp_path / "cal"),
    )
    assert _cli(monkeypatch, *order) == 0
    frame = run_scores(Store(tmp_path / "cal" / "attention_factor"))
    assert set(zip(frame["method"], frame["attention_factor"], strict=True)) == {
        ("dca:attention_factor=1.0,attention_factor_rate=0", "none"),
        ("dca:attention_factor=1.1,attention_factor_rate=0", "1.1000"),
        ("dca:attention_factor=1.2,attention_factor_rate=0", "1.2000"),
    }


def test_scores_that_are_no_numbers_are_not_fitted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(LocalEngine, "loss", lambda self, passage, **options: math.inf)
    order = ("calibrate", "--method", "dca", *SMALL, "--output", str(tmp_path / "cal"))
    assert _cli(monkeypatch, *order) == 2
    assert "at 64 tokens scores inf; nothing was fitted" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--method", "yarn"), "yarn: only a method of positions, alone, has something to fit"),
        (("--method", "lampe+yarn"), "lampe+yarn: only a method of positions, alone"),
        (
            ("--method", "dca:attention_factor=1.1,attention_factor_rate=0.1"),
            "attention_factor is what is to be fitted",
        ),
        (
            ("--method", "lampe:slope=1.0,intercept=0.0,ceiling=99.0"),
            "slope is what is to be fitted",
        ),
        (("--attention-factors", "1.1"), "one value is no sweep"),
        (("--mapping-lengths", "100,100"), "one value is no sweep"),
        (("--mapping-lengths", "100,256"), "256 positions do not fit a window of 256"),
        (("--lengths", "100,512,1k"), "do not fit a window of 256 and 100 tokens"),
        (
            ("--sweep", "attention_factor", "--lengths", "64,128,200"),
            "attention_factor grows beyond the window",
        ),
        (("--method", "dca", "--sweep", "mapping_length"), "dca has no mapping length"),
        (("--method", "lampe:mapping_length=64"), "mapping_length is what is to be fitted"),
        (("--method", "dca,dca:cap=250"), "dca stands twice"),
        (("--bench", "niah"), "one task as --bench"),
        (("--lengths", "256,512"), "three lengths or more"),
        (("--sweep", "head"), "--sweep: "),
        (("--attention-factors", "0,1"), "--attention-factors: "),
        (("--attention-factors", "warm"), "--attention-factors: "),
        (("--mapping-lengths", "20,100"), "mapping_length=20 must exceed"),
        (("--model", "no-such.yaml"), "no-such.yaml: cannot be read"),
    ],
)
def test_what_cannot_be_calibrated_is_said_in_one_line(
    options: tuple[str, ...],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert _cli(monkeypatch, "calibrate", "--dry-run", *options) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.splitlines()) == 1


def test_a_folder_is_named_before_files_are_fetched_and_after_the_grids() -> None:
    asked = {"method": "dca", "sweep": "attention_factor", "text": "pg19-test"}
    grids = ("1.0,1.1", "1.0,1.2", "1.1,1.0")
    first, other, same = (
        resolve_calibration(
            CalibrationConfig.from_options({**asked, "attention_factors": grid})
        ).folder
        for grid in grids
    )
    assert first == same != other


def test_a_suggestion_says_each_setting_and_its_rule(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert (
        _cli(monkeypatch, "suggest", "--model", "pocket", "--length", "1k", "--answer", "200") == 0
    )
    blocks = dict(
        block.split("\n", 1) for block in capsys.readouterr().out.strip().split("\n\n")[1:]
    )
    assert "selfextend:window_size=64,group_size=10" in blocks
    assert "two thirds of the window" in blocks["selfextend:window_size=64,group_size=10"]
    assert "BEYOND the window of 256" in blocks["original"]
    assert "reaches position 180 of 256" in blocks["selfextend:window_size=64,group_size=10"]
    (lampe,) = (block for label, block in blocks.items() if label.startswith("lampe:"))
    assert "mapping_length      Llama 3's published curve" in lampe


def test_a_suggestion_takes_what_the_models_card_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    card = tmp_path / "mine.yaml"
    card.write_text(
        "path: pocket\nwindow: 256\nsettings: {selfextend: {window_size: 100}, lampe: {curve: llama2}}\n"
    )
    assert _cli(monkeypatch, "suggest", "--model", str(card), "--length", "1k") == 0
    said = capsys.readouterr().out
    assert "selfextend:window_size=100,group_size=" in said
    assert "window_size         from the card of the model" in said
    assert "mapping_length      the curve published for the model" in said
    assert "calibrate" not in said
