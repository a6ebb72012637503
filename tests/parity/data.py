"""Prediction files of third parties, with the scores that the benchmarks' own code gave them.

They lie outside the repository (``../shared/data``); a checkout without them skips.
"""

import json
import os
from pathlib import Path
from typing import Any

import pytest

DATA = Path(os.environ.get("LAMPE_DATA") or Path(__file__).parents[3] / "shared" / "data")


def golden(name: str) -> dict[str, Any]:
    """Expected scores by file; where there are none, the module that asks for them is skipped."""
    path = DATA / "golden" / f"{name}.json"
    if not path.exists():
        pytest.skip(
            f"no prediction files under {DATA}; LAMPE_DATA names their folder",
            allow_module_level=True,
        )
    expected: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return expected
