"""Picture of a position plan: nothing of it is cut off."""

import io

import pytest
from matplotlib.image import imread

from lampe import IDENTITY_PLAN
from lampe_eval.report import plan_picture

LONG = (
    "lampe:variant=reference-nodup,head_tokens=1024,tail_tokens=200,mapping_length=4501,"
    "attention_factor=1.0693,attention_factor_rate=0.141"
)


@pytest.mark.parametrize("title", ["original", f"{LONG}\n32768 tokens, window 8192"])
def test_a_title_stays_inside(title: str) -> None:
    pixels = imread(io.BytesIO(plan_picture.draw_plan(IDENTITY_PLAN, 16, 16, title)))
    assert pixels.min() < 1
    assert pixels[[0, -1]].min() == 1
    assert pixels[:, [0, -1]].min() == 1
