"""Runs of the harness on vLLM: the stored answers are those of the local engine."""

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("vllm", reason="vllm is not installed in this Python: make test-vllm")

from lampe_eval.cli import app
from tests.vllm.engines import Engines

RUN = (
    "run --model pocket --dtype float32 --method original,lampe,string --bench niah/single,ppl "
    "--lengths 256,700 --limit 2"
)


def records(folder: Path) -> dict[tuple[str, str], dict[str, Any]]:
    """Return the stored samples of a run by file and id."""
    found = {}
    for path in sorted((folder / "samples").rglob("*.jsonl")):
        for line in path.read_text(encoding="utf-8").splitlines():
            record = json.loads(line)
            found[str(path.relative_to(folder)), record["id"]] = record
    return found


def test_stored_answers_are_those_of_the_local_engine(tmp_path: Path, engines: Engines) -> None:
    engines.stop()
    for name in ("local", "vllm"):
        words = [*RUN.split(), "--engine", name, "--output", str(tmp_path / name)]
        assert app(words, standalone_mode=False) in (None, 0)
    expected, found = records(tmp_path / "local"), records(tmp_path / "vllm")
    assert found.keys() == expected.keys() and found
    for key, record in found.items():
        assert "vllm" in record["backend"]
        for field in ("prediction", "answer_tokens", "stop_reason", "scored_tokens", "error"):
            assert record.get(field) == expected[key].get(field), (key, field)
        if "loss" in record:
            assert record["loss"] == pytest.approx(expected[key]["loss"], rel=1e-5)
