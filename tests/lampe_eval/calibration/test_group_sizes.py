"""Best group size of a band of rotated pairs."""

import pandas as pd
import pytest

from lampe_eval.calibration.setting_sweep import GroupSizeSweep
from lampe_eval.method_specs import parse_methods


@pytest.mark.parametrize(
    ("scores", "best", "edge"),
    [
        ((90, 70, 60, 80), 1, False),
        ((60, 70, 80, 90), 64, True),
        # Of equal sizes the one nearest to that of the other bands, by their ratio.
        ((90, 90, 90, 90), 8, False),
        ((100, 90, 90, 100), 1, False),
        ((90, 80, 80, 100), 64, True),
    ],
)
def test_the_best_size_was_tried(scores: tuple[float, ...], best: int, edge: bool) -> None:
    (spec,) = parse_methods(["dpe"])
    sweep = GroupSizeSweep(spec, "group_sizes", (1, 4, 8, 64), sizes=(8, 8, 8), band=1)
    labels = [row.label for row in sweep.specs]
    assert labels[0] == "dpe:group_sizes=8/1/8"
    columns = {"length": 512, "stderr": 0, "ci_low": 0, "ci_high": 0, "n": 1}
    table = sweep.table(pd.DataFrame({"method": labels, "score": scores, **columns}))
    assert set(table["setting"]) == {"group_sizes, band 2"}
    (found,) = sweep.best(table, higher_is_better=True)
    assert (found.length, found.value, found.edge) == (512, best, edge)
