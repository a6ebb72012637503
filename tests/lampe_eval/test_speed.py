"""Speed comparison: options that are refused, rows of the table, and memory of an answer."""

import gc
import math
from collections.abc import Iterator
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
from lampe_eval.speed.timing import MemoryCost, TimeCost, TimedModel


class IgnoredProgress:
    def total(self, samples: int, *, at_most: bool = False) -> None: ...
    def now(self, text: str) -> None: ...
    def finished(self, samples: int = 1) -> None: ...


NO_DISPLAY: Progress = IgnoredProgress()


COMMAND = ("speed", "--lengths", "100,200", "--method", "lampe", "--pairs", "1")


@pytest.fixture(autouse=True, scope="module")
def frozen_objects() -> Iterator[None]:
    """Hide what exists already from the garbage collector, which every measurement calls."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


def compare(**options: Any) -> pd.DataFrame:
    comparison = SpeedComparison(validate_speed(options))
    comparison.run(NO_DISPLAY)
    return comparison.table


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shape": "llama3-9b"}, "unknown shape 'llama3-9b'"),
        ({"layers": 2}, "--layers .*--shape"),
        ({"attention": ["flush"]}, "unknown backend 'flush'"),
        ({"lengths": ["4q"]}, "--lengths: '4q'"),
        ({"pairs": 0}, "--pairs: "),
        ({"method": ["lamp"]}, "unknown method 'lamp'"),
        ({"lengths": [""]}, "--lengths: "),
        ({"shape": "llama3-8b", "model": "pocket"}, "--shape .*--model"),
        ({"shape": "llama3-8b", "layers": 33}, "--layers: .*33.* llama3-8b has 32"),
    ],
)
def test_invalid_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        compare(**options)


def test_a_row_for_each_method_backend_and_length_beside_plain_attention() -> None:
    table = compare(method=["lampe,yarn"], lengths="100,60", attention="blockwise,flash", pairs=1)
    assert table["length"].tolist() == [100] * 5 + [60] * 5
    assert table["method"].tolist()[:5] == ["plain", "lampe", "lampe", "yarn", "yarn"]
    measured, refused = table[table["attention"] != "flash"], table[table["attention"] == "flash"]
    assert (measured[["prefill_s", "step_s", "held_bytes"]] > 0).all(axis=None)
    assert (measured["prefill_low"] <= measured["prefill_ratio"]).all()
    assert (measured["prefill_ratio"] <= measured["prefill_high"]).all()
    assert (
        refused["prefill_s"].isna().all() and refused["note"].str.contains("it needs a GPU").all()
    )
    assert {"torch", "transformers", "processor", "gpu", "threads", "load", "date"} <= set(table)
    plain = table[table["method"] == "plain"]
    assert (plain[["prefill_ratio", "step_ratio", "held_ratio"]] == 1).all(axis=None)


def test_ratios_compare_the_runs_of_a_pair(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plain runs take 1, 2, 3, ... seconds, and a method three times as long as the run before."""
    runs = iter(range(100))

    def measure_time(timed: TimedModel, length: int) -> TimeCost:
        pair, is_method = divmod(next(runs), 2)
        seconds = float(pair + 1) * (3 if is_method else 1)
        return TimeCost(seconds, seconds, seconds)

    monkeypatch.setattr(TimedModel, "measure_time", measure_time)
    monkeypatch.setattr(TimedModel, "measure_memory", lambda timed, length: MemoryCost(1.0, 1.0))
    table = compare(method=["lampe"], lengths="100", pairs=3)
    assert table["prefill_s"].tolist() == [3.0, 9.0]
    assert table["prefill_plain_s"].tolist() == [3.0, 3.0]
    assert table.loc[1, ["prefill_ratio", "prefill_low", "prefill_high"]].tolist() == [3.0] * 3


def test_the_growth_of_a_cost_is_its_power_of_the_length() -> None:
    rows = pd.DataFrame(
        {"length": [1024, 4096, 16384], "prefill_s": [2e-6 * n**1.5 for n in (1024, 4096, 16384)]}
    )
    assert time_growth(rows) == pytest.approx(1.5)
    assert math.isnan(time_growth(rows[:1]))


@pytest.mark.parametrize("method", ["lampe", "selfextend", "dca"])
def test_no_key_is_held_twice_during_an_answer(method: str) -> None:
    """Limit the cache to less than 1.5 times the unpatched one: a copy of the keys adds a half."""
    table = compare(method=[method], lengths="2048", pairs=1)
    assert table["held_ratio"].iloc[1] < 1.25


def test_chunks_of_a_prompt_lower_the_peak_of_memory() -> None:
    whole = compare(method=["lampe"], lengths="3072", pairs=1)
    chunked = compare(method=["lampe"], lengths="3072", pairs=1, chunk=512)
    assert chunked["peak_bytes"].iloc[1] < whole["peak_bytes"].iloc[1]


@pytest.mark.parametrize(
    ("shape", "heads"), [("llama3-8b", 8), ("llama2-7b", 32), ("qwen2.5-7b", 4)]
)
def test_a_shape_gives_a_model_with_so_many_layers_and_key_heads(shape: str, heads: int) -> None:
    model, settings = load_measured_model(
        validate_speed({"shape": shape, "layers": 2, "device": "meta", "dtype": "bfloat16"})
    )
    assert (model.config.num_hidden_layers, model.config.num_key_value_heads) == (2, heads)
    assert model.dtype == torch.bfloat16 and settings == {}


def test_a_measurement_is_printed_and_written(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, [*COMMAND, "--output", str(tmp_path / "x")])
    assert result.exit_code == 0, result.output
    assert "/ plain" in result.output
    assert "(from 2 lengths)" in result.output
    names = sorted(path.name for path in (tmp_path / "x").iterdir())
    assert names == ["speed.csv", "speed.md", "speed.png"]
    table = pd.read_csv(tmp_path / "x" / "speed.csv")
    assert table["method"].tolist() == ["plain", "lampe"] * 2
    assert "| lampe · blockwise |" in (tmp_path / "x" / "speed.md").read_text()
    assert len(list(speed_table.speed_tables(table))) == 2


def test_an_interrupted_measurement_is_written_up_to_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measure_time = TimedModel.measure_time

    def interrupted(timed: TimedModel, length: int) -> TimeCost:
        if length == 200:
            raise KeyboardInterrupt
        return measure_time(timed, length)

    monkeypatch.setattr(TimedModel, "measure_time", interrupted)
    result = CliRunner().invoke(app, [*COMMAND, "--output", str(tmp_path)])
    assert result.exit_code == 130
    table = pd.read_csv(tmp_path / "speed.csv")
    assert table.loc[table["length"] == 100, "prefill_s"].notna().all()
    assert table.loc[table["length"] == 200, "prefill_s"].isna().all()


def test_it_is_an_error_if_nothing_can_be_measured(tmp_path: Path) -> None:
    config = validate_speed({"lengths": "64", "attention": "flash", "output": tmp_path / "x"})
    with pytest.raises(UserError, match="it needs a GPU"):
        measure_speed(config)


def test_a_folder_that_cannot_be_written_is_refused_before_anything_is_measured(
    tmp_path: Path,
) -> None:
    (tmp_path / "x").write_text("")
    with pytest.raises(UserError, match="--output"):
        measure_speed(validate_speed({"output": tmp_path / "x" / "y"}))


def test_settings_that_no_length_allows_are_refused_before_a_measurement(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(TimedModel, "measure_time", lambda *_: pytest.fail("measured"))
    options = {"method": ("lampe:head_tokens=-1",), "lengths": (512,)}
    with pytest.raises(UserError, match="head_tokens=-1"):
        SpeedComparison(validate_speed(options))
