"""What methods cost: the orders that are refused, the rows that are made, and the memory that an answer holds."""

import math
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from typer.testing import CliRunner

from lampe_eval.cli import app
from lampe_eval.commands.speed import measure_speed
from lampe_eval.commands.validate import validate_speed
from lampe_eval.errors import UserError
from lampe_eval.running.progress import Progress
from lampe_eval.speed import speed_table
from lampe_eval.speed.measured_model import load_measured_model
from lampe_eval.speed.speed_comparison import SpeedComparison, time_growth
from lampe_eval.speed.speed_config import SpeedConfig
from lampe_eval.speed.timing import MemoryCost, TimeCost, TimedModel


class Silent:
    def total(self, samples: int) -> None: ...
    def now(self, text: str) -> None: ...
    def finished(self, samples: int = 1) -> None: ...


QUIET: Progress = Silent()


def compare(**options: Any) -> pd.DataFrame:
    comparison = SpeedComparison(validate_speed(options))
    comparison.run(QUIET)
    return comparison.frame


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shape": "llama3-9b"}, "unknown shape 'llama3-9b'"),
        ({"layers": 2}, "--layers is for a --shape"),
        ({"attention": ["flush"]}, "unknown attention backend 'flush'"),
        ({"lengths": ["4q"]}, "--lengths: '4q' is not a length"),
        ({"pairs": 0}, "--pairs: "),
        ({"method": ["lamp"]}, "unknown method 'lamp'"),
        ({"lengths": [""]}, "--lengths: "),
        ({"shape": "llama3-8b", "model": "pocket"}, "--shape takes the place of a --model"),
        ({"shape": "llama3-8b", "layers": 33}, "--layers: llama3-8b has 32"),
    ],
)
def test_an_order_that_cannot_be_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        compare(**options)


def test_a_row_for_each_method_backend_and_length_beside_plain_attention() -> None:
    frame = compare(method=["lampe,yarn"], lengths="100,60", attention="blockwise,flash", pairs=1)
    assert frame["length"].tolist() == [100] * 5 + [60] * 5
    assert frame["method"].tolist()[:5] == ["plain", "lampe", "lampe", "yarn", "yarn"]
    measured, refused = frame[frame["attention"] != "flash"], frame[frame["attention"] == "flash"]
    assert (measured[["prefill_s", "step_s", "held_bytes"]] > 0).all(axis=None)
    assert (measured["prefill_low"] <= measured["prefill_ratio"]).all()
    assert (measured["prefill_ratio"] <= measured["prefill_high"]).all()
    assert (
        refused["prefill_s"].isna().all() and refused["note"].str.contains("it needs a GPU").all()
    )
    assert {"torch", "transformers", "processor", "gpu", "threads", "load", "date"} <= set(frame)
    plain = frame[frame["method"] == "plain"]
    assert (plain[["prefill_ratio", "step_ratio", "held_ratio"]] == 1).all(axis=None)


def test_ratios_are_those_of_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plain attention takes 1, 2, 3, ... seconds, a method three times as long as the plain one before it."""
    turns = iter(range(100))

    def cost(way: TimedModel, length: int) -> TimeCost:
        turn = next(turns)
        seconds = float(turn // 2 + 1) * (3 if turn % 2 else 1)
        return TimeCost(seconds, seconds, seconds)

    monkeypatch.setattr(TimedModel, "cost", cost)
    monkeypatch.setattr(TimedModel, "room", lambda way, length: MemoryCost(1.0, 1.0))
    frame = compare(method=["lampe"], lengths="100", pairs=3)
    assert frame["prefill_s"].tolist() == [3.0, 9.0] and frame["prefill_plain_s"].tolist() == [
        3.0,
        3.0,
    ]
    assert frame.loc[1, ["prefill_ratio", "prefill_low", "prefill_high"]].tolist() == [3.0] * 3


def test_the_growth_of_a_cost_is_its_power_of_the_length() -> None:
    rows = pd.DataFrame(
        {"length": [1024, 4096, 16384], "prefill_s": [2e-6 * n**1.5 for n in (1024, 4096, 16384)]}
    )
    assert time_growth(rows) == pytest.approx(1.5)
    assert math.isnan(time_growth(rows[:1]))


@pytest.mark.parametrize("method", ["lampe", "selfextend", "dca"])
def test_an_answer_holds_no_key_twice(method: str) -> None:
    """A copy of the keys would make it half as much again; room for what is to come is some tokens."""
    frame = compare(method=[method], lengths="2048", pairs=1)
    assert frame["held_ratio"].iloc[1] < 1.25


def test_a_prompt_may_be_read_in_chunks() -> None:
    whole, pieces = (
        compare(method=["lampe"], lengths="3072", pairs=1, chunk=chunk) for chunk in (None, 512)
    )
    assert pieces["peak_bytes"].iloc[1] < whole["peak_bytes"].iloc[1]


@pytest.mark.parametrize(
    ("shape", "heads"), [("llama3-8b", 8), ("llama2-7b", 32), ("qwen2.5-7b", 4)]
)
def test_a_shape_is_a_model_without_weights(shape: str, heads: int) -> None:
    model, settings = load_measured_model(
        SpeedConfig.from_options(
            {"shape": shape, "layers": 2, "device": "meta", "dtype": "bfloat16"}
        )
    )
    assert (model.config.num_hidden_layers, model.config.num_key_value_heads) == (2, heads)
    assert model.dtype == torch.bfloat16 and settings == {}


def test_what_is_measured_is_printed_and_written(tmp_path: Path) -> None:
    options = [
        "--lengths",
        "100,200",
        "--method",
        "lampe",
        "--pairs",
        "1",
        "--output",
        str(tmp_path / "x"),
    ]
    result = CliRunner().invoke(app, ["speed", *options])
    assert result.exit_code == 0, result.output
    assert (
        "/ plain" in result.output
        and "grow with this power of its length (from 2 lengths)" in result.output
    )
    assert sorted(path.name for path in (tmp_path / "x").iterdir()) == [
        "speed.csv",
        "speed.md",
        "speed.png",
    ]
    again = pd.read_csv(tmp_path / "x" / "speed.csv")
    assert again["method"].tolist() == ["plain", "lampe"] * 2
    assert "| lampe · blockwise |" in (tmp_path / "x" / "speed.md").read_text()
    assert len(list(speed_table.speed_tables(again))) == 2


def test_what_was_measured_is_written_where_the_rest_is_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cost = TimedModel.cost

    def stopped(way: TimedModel, length: int) -> TimeCost:
        if length == 200:
            raise KeyboardInterrupt
        return cost(way, length)

    monkeypatch.setattr(TimedModel, "cost", stopped)
    options = [
        "--lengths",
        "100,200",
        "--method",
        "lampe",
        "--pairs",
        "1",
        "--output",
        str(tmp_path),
    ]
    result = CliRunner().invoke(app, ["speed", *options])
    assert result.exit_code == 130
    frame = pd.read_csv(tmp_path / "speed.csv")
    assert frame.loc[frame["length"] == 100, "prefill_s"].notna().all()
    assert frame.loc[frame["length"] == 200, "prefill_s"].isna().all()


def test_where_nothing_can_be_measured_it_is_an_error(tmp_path: Path) -> None:
    order = validate_speed({"lengths": "64", "attention": "flash", "output": tmp_path / "x"})
    with pytest.raises(UserError, match=r"nothing could be measured: .* it needs a GPU"):
        measure_speed(order)


def test_a_folder_that_cannot_be_written_is_said_before_anything_is_measured(
    tmp_path: Path,
) -> None:
    (tmp_path / "x").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        measure_speed(validate_speed({"output": tmp_path / "x" / "y"}))
