"""Runs of the harness on vLLM: the stored answers are those of the local engine."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("vllm", reason="vllm is not installed in this Python: make test-vllm")

from torch import nn

import lampe
from lampe_eval import models
from lampe_eval.benches.bench import Continuations, Passage, Prompt, Sample, ScoredText
from lampe_eval.checkpoint_files import find_model
from lampe_eval.cli import app
from lampe_eval.engine.local_worker import LocalWorker
from lampe_eval.engine.run_samples import NAN_ERROR
from lampe_eval.engine.vllm_worker import VllmWorker
from tests.vllm.answers import random_prompts
from tests.vllm.engines import Engines
from tests.vllm.test_server import PATIENCE

RUN = (
    "run --model pocket --dtype float32 --method original,lampe,string --bench niah/single,ppl "
    "--lengths 256,700 --limit 2"
)


@pytest.fixture(autouse=True)
def one_engine_at_a_time(engines: Engines, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a run start its engine in the place of the one before."""
    monkeypatch.setattr("lampe_eval.engine.vllm_engine.LLM", engines.load)


def records(folder: Path) -> list[tuple[str, dict[str, Any]]]:
    """Return the stored samples of a run, with the file of each."""
    return [
        (str(path.relative_to(folder)), json.loads(line))
        for path in sorted((folder / "samples").rglob("*.jsonl"))
        for line in path.read_text(encoding="utf-8").splitlines()
    ]


def run_and_kill(words: list[str], folder: Path) -> None:
    """Start a run in a process of its own, and kill it once it has stored samples."""
    command = [sys.executable, "-m", "lampe_eval", *words]
    process = subprocess.Popen(command, start_new_session=True)
    deadline = time.monotonic() + PATIENCE
    while not any((folder / "samples").rglob("*.jsonl")):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def test_a_killed_run_goes_on_to_the_answers_of_the_local_engine(tmp_path: Path) -> None:
    local, served = tmp_path / "local", tmp_path / "vllm"
    assert app([*RUN.split(), "--output", str(local)], standalone_mode=False) in (None, 0)
    words = [*RUN.split(), "--engine", "vllm", "--output", str(served)]
    run_and_kill(words, served)
    before = records(served)
    assert len(before) < len(records(local))
    result = app(words, standalone_mode=False)
    found = records(served)
    assert not [record["error"] for _, record in found if "error" in record]
    assert result in (None, 0)
    assert all(record in found for record in before)
    expected = {(file, record["id"]): record for file, record in records(local)}
    assert sorted((file, record["id"]) for file, record in found) == sorted(expected)
    for file, record in found:
        assert "vllm" in record["backend"]
        key = file, record["id"]
        for field in ("prediction", "answer_tokens", "stop_reason", "scored_tokens", "error"):
            assert record.get(field) == expected[key].get(field), (key, field)
        if "loss" in record:
            assert record["loss"] == pytest.approx(expected[key]["loss"], rel=1e-5)


def test_outcomes_of_samples_of_every_kind() -> None:
    source = models.describe_model(find_model("pocket")[0], "pocket", dtype="float32")
    local, served = LocalWorker(source, "cpu", "auto"), VllmWorker(source, 700, 1)
    rows = random_prompts((200, 300, 700), 745)
    prompts = [Prompt(str(index), ids, 16, ()) for index, ids in enumerate(rows)]
    texts = tuple(ScoredText(rows[2][:length], 3) for length in (200, 300, 301))
    others: list[Sample] = [Passage("passage", rows[2], 400), Continuations("choices", texts, 0)]
    for method in (lampe.method_of("original"), lampe.method_of("lampe")):
        answer = local.run(method, [prompts[1]])[0]["prediction"]
        assert answer[4:6]
        stopping = [dataclasses.replace(each, stop_strings=(answer[4:6],)) for each in prompts]
        too_long = Prompt("too long", rows[0] * 20, 16, ())
        found = [
            *served.run(method, prompts),
            *served.run(method, stopping),
            *served.run(method, [prompts[0], too_long])[:1],
            *(served.run(method, [sample])[0] for sample in others),
        ]
        samples = [*prompts, *stopping, prompts[0], *others]
        for sample, outcome in zip(samples, found, strict=True):
            # One at a time: a row of a batch is padded after its stop string.
            (expected,) = local.run(method, [sample])
            assert "error" not in expected
            for field in ("prediction", "answer_tokens", "stop_reason", "greedy"):
                assert outcome.get(field) == expected.get(field), (sample.id, field)
            for field in {"loss", "loglikelihoods"} & expected.keys():
                assert outcome[field] == pytest.approx(expected[field], rel=1e-5)
    nan: Any = served.engine._llm.apply_model(_forget)
    assert nan
    _forget(local.engine.model)
    for sample in (prompts[0], *others):
        for worker in (local, served):
            assert worker.run(method, [sample])[0].get("error") == NAN_ERROR


def _forget(model: nn.Module) -> bool:
    """Make all logits of a model NaN."""
    nn.init.constant_(model.model.norm.weight, float("nan"))  # type: ignore[union-attr, arg-type]
    return True
