"""The benchmarks run; the numbers that they print are not tested."""

import pytest

from benchmarks import attention


def test_the_attention_benchmark_prints_ratios(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(attention, "METHODS", ("lampe",))
    monkeypatch.setattr(attention, "PAIRS", 2)
    attention.main("qwen2.5-7b", "64")
    printed = capsys.readouterr().out
    assert "blockwise" in printed
    assert " to " in printed
