"""Chance levels that docs/benchmarks.md states: derived from what the generators draw."""

from random import Random
from statistics import fmean

import numpy as np
import pytest

from lampe_eval.benches import bench_tasks
from lampe_eval.benches.graphs import Graph, GraphQuestion
from lampe_eval.benches.latent import draw_needles, needle_set
from lampe_eval.benches.small_worlds import PEOPLE, ROOMS, THINGS, Story, draw_story
from lampe_eval.scoring import babilong_metrics, latent_metrics


def _candidates(story: Story) -> list[str]:
    """Return the labels that a guess may name: those of the answer's kind, not in the question."""
    (kind,) = (kind for kind in (PEOPLE, ROOMS, THINGS) if story.answer in kind)
    return [name for name in story.labels if name in kind and name not in story.question]


@pytest.mark.parametrize(
    ("kind", "chance"),
    [("one_place", 1 / 6), ("carried", 1 / 6), ("before", 1 / 5), ("map", 1 / 2)],
)
def test_guesses_at_babilong(kind: str, chance: float) -> None:
    for index in range(50):
        story = draw_story(kind, 0, index)
        scores = [
            babilong_metrics.labels_alone(name, story.answer, story.question, story.labels)
            for name in _candidates(story)
        ]
        assert fmean(scores) == pytest.approx(chance)


def test_guesses_at_gifts_depend_on_the_question() -> None:
    stories = [draw_story("gift", 0, index) for index in range(400)]
    counts = {len(_candidates(story)) for story in stories}
    # One of three things, of the three other people, or of all four.
    assert counts == {3, 4}
    chance = fmean(1 / len(_candidates(story)) for story in stories)
    assert chance == pytest.approx(0.32, abs=0.01)


@pytest.mark.parametrize(
    "card",
    [pytest.param(task.card, id=task.name) for task in bench_tasks("latent") if task.card.decoys],
)
def test_guesses_at_latent_needles(card: object) -> None:
    names = needle_set().names
    for index in range(20):
        draw = draw_needles(card, 0, index)  # type: ignore[arg-type]
        there = [name for name in names if any(name in text for text in draw.sentences)]
        scores = [latent_metrics.one_name(name, [draw.name], names) for name in there]
        assert fmean(scores) == pytest.approx(1 / 8)


@pytest.mark.parametrize(
    ("steps", "size"), [(0, 2.3), (1, 2), (2, 3.9), (3, 7.7)], ids=["parents", "1", "2", "3"]
)
def test_guesses_at_graphs(steps: int, size: float) -> None:
    """Check the mean size of answers: as many names at random share size / nodes of them."""
    question, nodes = GraphQuestion("{node}", steps), 200
    rng, numbers = Random(f"chance {steps}"), np.random.default_rng(steps)
    sizes = []
    for _ in range(200):
        graph = Graph.from_numbers(numbers.integers(0, 1 << 40, (nodes, 2)), nodes)
        sizes.append(len(question.answer(graph, question.ask(graph, rng))))
    assert fmean(sizes) == pytest.approx(size, rel=0.1)


def test_guesses_at_classes_are_one_of_them() -> None:
    """Check the classes by which docs/benchmarks.md states the chance of HELMET's labels."""
    classes = {task.name: task.card.classes for task in bench_tasks("helmet") if task.card.classes}
    assert {name: round(100 / count, 1) for name, count in classes.items()} == {
        "trec_coarse": 16.7,
        "trec_fine": 2.0,
        "banking77": 1.3,
        "clinic150": 0.7,
        "nlu": 1.5,
    }
