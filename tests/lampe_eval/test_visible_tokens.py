"""Methods that do not see all tokens say so: in plans, pictures, settings, tables and estimates."""

import dataclasses
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.image import imread

import lampe
from lampe_eval.commands import show
from lampe_eval.engine.local_engine import PROMPT_CHUNK
from lampe_eval.method_specs import parse_methods
from lampe_eval.models import ModelCost
from lampe_eval.report import plan_picture
from lampe_eval.report.settings_table import settings_tables
from lampe_eval.report.table_model import result_tables
from lampe_eval.running import preview
from lampe_eval.running.prepared_run import PreparedRun
from lampe_eval.running.resolved_settings import resolved_settings
from tests.lampe_eval.report import kit

GEOMETRY = lampe.Geometry(window=64)
FORGETFUL = lampe.method_of("streaming-llm")


def test_show_plan_says_how_much_is_seen(capsys: pytest.CaptureFixture[str]) -> None:
    show.plans(parse_methods(["streaming-llm", "lampe"]), None, 64, 256, None)
    forgetful, complete = capsys.readouterr().out.split("lampe for a prompt")
    for text in ("sees 4 + 32 of 256 tokens", "keys 0 to 3", "inside the window", "not seen"):
        assert text in forgetful
    assert "sees" not in complete and "not seen" not in complete


def test_a_picture_marks_pairs_that_are_not_seen() -> None:
    plan = FORGETFUL.encode(GEOMETRY, 256).plan
    rows = plan_picture.terminal_picture(plan, 256, 64).plain.splitlines()[:-1]
    assert rows[0].startswith("░ ") and plan_picture.UNSEEN not in rows[1]
    assert rows[-1][0] in plan_picture.SHADES
    assert rows[-1][1:-8] == plan_picture.UNSEEN * len(rows[-1][1:-8])
    grey = []
    for each in (plan, lampe.IDENTITY_PLAN):
        pixels = imread(io.BytesIO(plan_picture.draw_plan(each, 256, 64, "title")))[..., :3]
        grey.append(int(np.all(np.abs(pixels - 211 / 255) < 0.01, axis=-1).sum()))
    assert grey[0] > 50 * max(1, grey[1])


def test_settings_and_tables_say_how_much_is_seen(tmp_path: Path) -> None:
    cells = {kit.cell("streaming-llm", length): [kit.row("a")] for length in (32, 1024)}
    cells[kit.cell("lampe")] = [kit.row("a")]
    scores: dict[Any, dict[str, Any]] = {}
    for cell in cells:
        method = lampe.method_of(cell.method)
        scores[cell] = {"resolved": resolved_settings(method, GEOMETRY, cell.length)}
    assert "visible_tokens" not in scores[kit.cell("lampe")]["resolved"]
    runs = kit.gathered(kit.store(tmp_path / "run", cells), scores=scores)
    notes = [note for table in result_tables(runs) for note in table.notes if " sees " in note]
    assert notes
    for note in notes:
        assert "streaming-llm sees all of 32 tokens, 4 + 32 of 1024 tokens; " in note
    (table,) = settings_tables(runs)
    seen = [values for _, values in table.lines if values[0].text == "sees"]
    assert [[value.text for value in values] for values in seen] == [
        ["sees", "all of 32 tokens", "4 + 32 of 1024 tokens"]
    ]


@dataclasses.dataclass
class _Suite:
    engine: str


@dataclasses.dataclass
class _Resolved:
    suite: _Suite


@pytest.mark.parametrize(
    ("engine", "visible", "tokens", "expected"),
    [
        ("local", None, 100_000, 100_000),
        ("local", 2005, 100_000, PROMPT_CHUNK + 2005),
        ("ray", 2005, 1000, 1000),
        ("vllm", 2005, 100_000, 100_000),
    ],
)
def test_estimates_of_memory_count_what_a_cache_holds(
    engine: str, visible: int | None, tokens: int, expected: int
) -> None:
    resolved: Any = _Resolved(_Suite(engine))
    prepared = PreparedRun(resolved, [], {}, "cpu", None)
    assert prepared.cached_tokens(visible, tokens) == expected


def test_estimates_of_time_count_what_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Count pairs of tokens, and tokens that the steps of an answer read."""
    monkeypatch.setattr(preview, "operations_per_second", lambda device: 1.0)
    monkeypatch.setattr(preview, "bytes_per_second", lambda device: 1.0)
    cost = ModelCost(parameters=0, parameter_bytes=4, cache_bytes=1, attention_operations=1)
    sample = preview.Prompt("a", (0,) * 90, 10, None)
    seconds = [preview._least_seconds([sample], "cpu", cost, count) for count in (None, 100, 20)]
    assert seconds == [5000 + 900, 5000 + 900, 20 * 100 - 200 + 200]
