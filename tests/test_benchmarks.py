"""The benchmarks run; the numbers that they print are not tested."""

from pathlib import Path

import pytest

from benchmarks import attention, batches, paged_decode, sequential
from tests.lampe_eval import stored_runs


def test_the_attention_benchmark_prints_ratios(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(attention, "METHODS", ("lampe",))
    monkeypatch.setattr(attention, "PAIRS", 2)
    attention.main("qwen2.5-7b", "64")
    printed = capsys.readouterr().out
    assert "blockwise" in printed
    assert " to " in printed


def test_the_benchmark_of_batches_prints_gains(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(batches, "PAIRS", 2)
    monkeypatch.setattr(batches, "STEPS", 1)
    batches.main("lampe", "61,90")
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == [batches.PLAIN] * 4 + ["lampe"] * 4


def test_the_benchmark_of_paged_decode_prints_ratios(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("triton")
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    monkeypatch.setattr(paged_decode, "METHODS", ("lampe",))
    monkeypatch.setattr(paged_decode, "LAYOUTS", ("NHD",))
    monkeypatch.setattr(paged_decode, "PAIRS", 1)
    paged_decode.main("qwen2.5-7b", "1x40")
    printed = capsys.readouterr().out
    assert "NHD" in printed
    assert " to " in printed


def test_the_simulation_of_stopping_rules_prints_shares(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sequential, "SAMPLES", 40)
    right = [True] * 20
    answers = {"original": {512: [not answer for answer in right]}, "lampe": {512: right}}
    stored_runs.run(tmp_path / "run", answers)
    sequential.main(2, [tmp_path / "run"])
    printed = capsys.readouterr().out
    assert "13 tasks x 40" in printed
    assert "lampe better" in printed
