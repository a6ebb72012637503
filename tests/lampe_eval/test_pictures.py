"""Pictures: which are drawn, that they show the scores, and that equal runs give equal bytes."""

from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from lampe_eval.report.pictures import picture_files, pictures, svg_elements
from lampe_eval.results.gathered_runs import gather_runs
from tests.lampe_eval import stored_runs

ANSWERS = {
    "lampe": {256: [True, True, True], 512: [True, True, False]},
    "original": {256: [True, True, True], 512: [False, None, False]},
}


@pytest.fixture
def needles(tmp_path: Path) -> dict[str, Figure]:
    stored_runs.run(tmp_path / "run", ANSWERS)
    return pictures(gather_runs([tmp_path / "run"]))


def test_needles_have_two_pictures(needles: dict[str, Figure]) -> None:
    assert list(needles) == ["niah/grid by length", "niah/grid by depth"]
    for figure in needles.values():
        assert [axes.get_title(loc="left") for axes in figure.axes[:2]] == ["lampe", "original"]


def test_a_heat_map_has_depths_down_and_lengths_across(needles: dict[str, Figure]) -> None:
    panels = needles["niah/grid by depth"].axes[:2]
    lampe, original = (np.ma.filled(axes.images[0].get_array(), np.nan) for axes in panels)
    np.testing.assert_array_equal(lampe, [[100, 100], [100, 100], [100, 0]])
    # The sample in the middle failed, so there is no score.
    np.testing.assert_array_equal(original, [[100, 0], [100, np.nan], [100, 0]])


def test_a_heat_map_has_rings_where_samples_are_missing(needles: dict[str, Figure]) -> None:
    figure = needles["niah/grid by depth"]
    lampe, original = (axes.lines[0].get_xydata().tolist() for axes in figure.axes[:2])
    assert lampe == []
    assert original == [[1, 0], [1, 1], [1, 2]]
    assert "rings: samples are missing" in figure.get_supxlabel()


def test_a_method_is_drawn_over_the_others_with_the_window(needles: dict[str, Figure]) -> None:
    lampe, original = needles["niah/grid by length"].axes
    *_, scores, incomplete, window = lampe.lines
    assert scores.get_ydata().tolist() == [100, pytest.approx(200 / 3)]
    assert incomplete.get_ydata().tolist() == []
    assert window.get_xdata() == [256, 256]
    assert original.lines[-2].get_xdata().tolist() == [512]  # hollow, as a sample failed
    assert [label.get_text() for label in original.get_xticklabels()] == ["256", "512"]


def test_a_very_large_perplexity_is_off_the_scale(tmp_path: Path) -> None:
    losses = {
        "lampe": {256: [1.0, 1.1], 512: [1.0, 1.2]},
        "original": {256: [1.0, 1.0], 512: [7.0, 8.0]},
        "yarn": {256: [3, 3], 512: [20, 20]},
    }
    stored_runs.losses(tmp_path, losses)
    lampe, original, yarn = pictures(gather_runs([tmp_path]))["ppl/exact by length"].axes
    assert lampe.get_ylim()[1] == pytest.approx(2 * np.exp(1.0))
    assert _labels(lampe) == []
    assert _labels(original) == [(512, "1808 [3, 1.0e+06]")]
    # Windows that are all alike have no interval.
    assert _labels(yarn) == [(256, "20.1"), (512, "4.85e+08")]
    (arrows,) = (line for line in yarn.lines if line.get_marker() == "^")
    assert arrows.get_xdata().tolist() == [256, 512]


def _labels(axes: Axes) -> list[tuple[float, str]]:
    return [(text.get_position()[0], text.get_text()) for text in axes.texts]


def test_methods_of_two_runs_have_a_panel_each(tmp_path: Path) -> None:
    stored_runs.run(tmp_path / "a", ANSWERS)
    stored_runs.run(tmp_path / "b", ANSWERS)
    (by_length, _) = pictures(gather_runs([tmp_path / "a", tmp_path / "b"])).values()
    assert len(by_length.axes) == 4


def test_a_name_may_hold_dollars(tmp_path: Path) -> None:
    stored_runs.run(tmp_path / "cost $5 to $x_{$", ANSWERS)
    stored_runs.run(tmp_path / "b", ANSWERS)
    (by_length, _) = pictures(gather_runs([tmp_path / "cost $5 to $x_{$", tmp_path / "b"])).values()
    assert by_length.axes[0].get_title(loc="left").endswith("cost $5 to $x_{$")
    assert all(picture_files({"by length": by_length}).values())


LONG = [
    "original",
    "lampe:mapping_length=128,attention_factor=1.12",
    "chunkllama:pretraining_length=256,local_window=32,"
    "attention_factor=1.12,attention_factor_rate=0",
    "selfextend+yarn:window_size=64,group_size=10",
]


@pytest.mark.parametrize("methods", [LONG, LONG[-2:], LONG[1:2]])
@pytest.mark.parametrize("lengths", [(256, 512), (256, 512, 1024, 2048, 4096)])
def test_long_headings_stay_over_their_own_panel(
    tmp_path: Path, methods: list[str], lengths: tuple[int, ...]
) -> None:
    runs = [tmp_path / name for name in ("pocket-3d0d7963", "calibrated-run-of-llama3-8b-instruct")]
    answers = {length: [True, True, False] for length in lengths}
    for run in runs:
        stored_runs.run(run, dict.fromkeys(methods, answers))
    for folders in (runs[:1], runs):
        for figure in pictures(gather_runs(folders)).values():
            _assert_headings_do_not_overlap(figure)


def _assert_headings_do_not_overlap(figure: Figure) -> None:
    figure.draw_without_rendering()
    panels = [axes for axes in figure.axes if axes.get_title(loc="left")]
    headings = [_box(axes, axes.get_title(loc="left")) for axes in panels]
    headings.append(_box(figure, figure.get_suptitle()))
    assert not any(one.overlaps(other) for one, other in combinations(headings, 2))
    for heading in headings:
        assert not any(heading.overlaps(axes.bbox) for axes in panels)
        assert heading.x0 >= 0
        assert heading.x1 <= figure.bbox.x1
        assert heading.y1 <= figure.bbox.y1


def _box(artist: Artist, text: str) -> Bbox:
    (label,) = artist.findobj(lambda child: isinstance(child, Text) and child.get_text() == text)
    return label.get_window_extent()


def test_equal_runs_give_equal_bytes(tmp_path: Path) -> None:
    stored_runs.run(tmp_path / "run", ANSWERS)
    first, second = (picture_files(pictures(gather_runs([tmp_path / "run"]))) for _ in range(2))
    kinds = ("png", "svg", "pdf")
    by_length = [f"niah-grid-by-length.{kind}" for kind in kinds]
    by_depth = [f"niah-grid-by-depth.{kind}" for kind in kinds]
    assert sorted(first) == sorted(by_length + by_depth)
    assert first == second


def test_svg_is_a_single_element(needles: dict[str, Figure]) -> None:
    text = svg_elements(needles, picture_files(needles))["niah/grid by depth"]
    assert text.startswith("<svg")
    assert text.rstrip().endswith("</svg>")
