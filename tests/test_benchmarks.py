"""That the benchmarks run; what they print is told apart from what tests prove."""

import pytest

from benchmarks import attention


def test_attention_alone_is_measured(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(attention, "METHODS", ("lampe",))
    monkeypatch.setattr(attention, "PAIRS", 2)
    attention.main("qwen2.5-7b", "64")
    printed = capsys.readouterr().out
    assert "blockwise" in printed and " to " in printed
