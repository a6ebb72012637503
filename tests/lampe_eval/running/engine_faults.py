"""Faults of the engine in the middle of a run."""

import itertools
from collections.abc import Callable
from typing import Any

import pytest

from lampe_eval.engine.local_engine import GeneratedAnswer, LocalEngine


def fault_at_answer(monkeypatch: pytest.MonkeyPatch, call: int, fault: Callable[[], None]) -> None:
    """Put a fault before the `call`-th answer of every engine."""
    answer, calls = LocalEngine.answer, itertools.count(1)

    def faulty(engine: LocalEngine, *arguments: Any, **options: Any) -> list[GeneratedAnswer]:
        if next(calls) == call:
            fault()
        return answer(engine, *arguments, **options)

    monkeypatch.setattr(LocalEngine, "answer", faulty)
