"""What every test shares: no network, the user's caches out of reach, the pocket model loaded once."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lampe_eval import models

if "PYTEST_XDIST_WORKER" in os.environ:  # many processes on the same cores
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def isolated(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Home and working directory of a test are its own."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("LAMPE_EVAL_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("LAMPE_EVAL_DATA", raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.fixture(autouse=True)
def signals() -> Iterator[None]:
    """What the command line does on signals ends with its test."""
    taken = signal.SIGINT, signal.SIGTERM
    before = [signal.getsignal(number) for number in taken]
    yield
    for number, handler in zip(taken, before, strict=True):
        signal.signal(number, handler)


@pytest.fixture(autouse=True)
def seeded() -> Iterator[None]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


@pytest.fixture(scope="session")
def pocket() -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The built-in model and its tokenizer."""
    return models.load_model(models.find_model("pocket"), "cpu")
