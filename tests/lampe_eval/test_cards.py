"""Cards: every shipped one loads; errors of others name file, line and key."""

import re
from pathlib import Path

import pytest

from lampe_eval.benches import BENCHES, bench_tasks, find_tasks
from lampe_eval.cards import MethodCard, ModelCard, read_card, shipped_card, shipped_names
from lampe_eval.errors import UserError
from lampe_eval.suite import Suite


@pytest.mark.parametrize("name", shipped_names("models"))
def test_model_cards(name: str) -> None:
    card = shipped_card("models", name, ModelCard)
    assert card.window
    assert card.about
    assert card.path == "pocket" or re.fullmatch("[0-9a-f]{40}", card.revision)


@pytest.mark.parametrize("name", shipped_names("methods"))
def test_method_cards(name: str) -> None:
    card = shipped_card("methods", name, MethodCard)
    assert card.about
    assert card.paper


@pytest.mark.parametrize("name", shipped_names("suites"))
def test_suites(name: str) -> None:
    assert shipped_card("suites", name, Suite).about


@pytest.mark.parametrize("bench", [name for name, bench in BENCHES.items() if bench.lists_tasks])
def test_task_cards(bench: str) -> None:
    assert bench_tasks(bench)
    assert any(task.card.default for task in bench_tasks(bench))


def test_a_bench_means_its_default_tasks_and_a_task_is_named_by_both() -> None:
    assert [task.full_name for task in find_tasks(("ppl", "ppl/dense", "ppl/exact"))] == [
        "ppl/exact",
        "ppl/dense",
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path: a\nwindow: [1\n", "card.yaml:3: not valid YAML"),
        (
            "path: a\nwindw: 1\n",
            "card.yaml:2: key 'windw' is unknown (did you mean 'window'",
        ),
        (
            "path: a\nwindow: many\n",
            "card.yaml:2: key 'window': must be a whole number, got 'many'",
        ),
        ("path: a\nsettings:\n  lampe: 3\n", "card.yaml:3: key 'settings.lampe'"),
        ("about: nothing\n", "card.yaml:1: key 'path': is missing"),
        ("path: a\npath: b\n", "card.yaml:2: key 'path'"),
        ("path: a\nsettings:\n  lampe: {x: 1,\n    x: 2}\n", "card.yaml:4: key 'x'"),
        ("path: a\nabout: [{x: 1,\n  x: 2}]\n", "card.yaml:3: key 'x'"),
        ("path: a\n? [b]\n: c\n", "card.yaml:2: not valid YAML"),
        ("- path\n", "card.yaml:1: must be a mapping"),
        ("", "card.yaml:1: must be a mapping"),
        ("path: \x01\n", "card.yaml"),
    ],
)
def test_a_broken_card_names_file_line_and_key(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "card.yaml"
    path.write_text(text)
    with pytest.raises(UserError) as caught:
        read_card(path, ModelCard)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_merged_keys_may_be_overridden(tmp_path: Path) -> None:
    path = tmp_path / "card.yaml"
    path.write_text("path: a\nsettings:\n  one: &one {x: 1, y: 2}\n  two: {<<: *one, x: 3}\n")
    assert read_card(path, ModelCard).settings["two"] == {"x": 3, "y": 2}


def test_a_missing_or_binary_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        read_card(tmp_path / "none.yaml", ModelCard)
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="cannot be read"):
        read_card(tmp_path / "binary.yaml", ModelCard)


def test_an_unknown_card_offers_the_nearest() -> None:
    with pytest.raises(UserError, match=r"'poket' .*'pocket'.*lampe-eval list models"):
        shipped_card("models", "poket", ModelCard)
    with pytest.raises(UserError, match=r"'singel' .*'single'"):
        find_tasks(("niah/singel",))
