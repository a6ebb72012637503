"""Picture of a position plan: nothing of it is cut off."""

from pathlib import Path

import pytest
from matplotlib.image import imread

from lampe import IDENTITY_PLAN
from lampe_eval.report import plan_picture

LONG = (
    "lampe:variant=reference-nodup,head_tokens=1024,tail_tokens=200,mapping_length=4501,"
    "attention_factor=1.0693,attention_factor_rate=0.141"
)


@pytest.mark.parametrize("title", ["original", f"{LONG}\n32768 tokens, window 8192"])
def test_a_title_stays_inside(tmp_path: Path, title: str) -> None:
    plan_picture.save_png(IDENTITY_PLAN, 16, 16, title, tmp_path / "plan.png")
    pixels = imread(tmp_path / "plan.png")
    assert pixels.min() < 1
    assert pixels[[0, -1]].min() == 1
    assert pixels[:, [0, -1]].min() == 1
