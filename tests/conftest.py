"""Fixtures of all tests: a home folder for each test, and the pocket model, loaded once."""

import os
import signal
import zlib
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import pytest
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lampe_eval import models
from tests.model_sources import find_model

if "PYTEST_XDIST_WORKER" in os.environ:
    # Several processes share the cores; more threads than cores would slow all of them down.
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)

PARTS = 4
"""Parts of a large matrix, of which each day has one."""


def pytest_configure() -> None:
    # Set for the processes of xdist too, so that all of them have the same part after midnight.
    os.environ.setdefault("LAMPE_TESTS_DAY", str(date.today().toordinal()))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the cases of large matrices that another day has, unless -m names them."""
    if "matrix" in config.option.markexpr:
        return
    part = int(os.environ["LAMPE_TESTS_DAY"]) % PARTS
    kept, left_out = [], []
    for item in items:
        is_left_out = (
            item.get_closest_marker("matrix") and zlib.crc32(item.nodeid.encode()) % PARTS != part
        )
        (left_out if is_left_out else kept).append(item)
    config.hook.pytest_deselected(items=left_out)
    items[:] = kept


@pytest.fixture(autouse=True)
def isolated(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Give a test its own home and working directory."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("LAMPE_EVAL_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("LAMPE_EVAL_DATA", raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.fixture(autouse=True)
def signals() -> Iterator[None]:
    """Restore the signal handlers that the command line replaces."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    handlers = [signal.getsignal(number) for number in numbers]
    yield
    for number, handler in zip(numbers, handlers, strict=True):
        signal.signal(number, handler)


@pytest.fixture(autouse=True)
def seeded() -> Iterator[None]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


@pytest.fixture(scope="session")
def pocket() -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Return the built-in model and its tokenizer."""
    return models.load_model(find_model("pocket"), "cpu")
