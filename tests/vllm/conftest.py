"""Fixtures of the tests that need vLLM."""

from collections.abc import Iterator
from typing import Any

import pytest


@pytest.fixture(scope="module")
def engines() -> Iterator[Any]:
    """Return a starter of engines; the last one is stopped after the tests of a module."""
    from tests.vllm.engines import Engines

    engines = Engines()
    yield engines
    engines.stop()
