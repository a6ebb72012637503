"""Names that differ only in case, or by a letter, from a known one."""

import pytest

from lampe_eval.benches import find_tasks
from lampe_eval.cards import find_model_card
from lampe_eval.commands.validate import validate_suite
from lampe_eval.errors import UserError, suggestion
from lampe_eval.method_specs import method_card
from lampe_eval.results.published_tables import find_table


@pytest.mark.parametrize(
    ("kind", "name", "nearest"),
    [
        ("method", "LaMPE", "lampe"),
        ("method", "YARN", "yarn"),
        ("method", "Leaky-ReRoPE", "leaky-rerope"),
        ("model", "Pocket", "pocket"),
        ("model", "LLAMA3-8B", "llama3-8b"),
        ("bench", "NIAH", "niah"),
        ("bench", "LongBench", "longbench"),
        ("task", "niah/SINGLE", "single"),
        ("suite", "Demo", "demo"),
        ("suite", "LAMPE-TABLE1", "lampe-table1"),
        ("table", "LaMPE-Table1", "lampe-table1"),
    ],
)
def test_a_name_in_another_case_is_recognised(kind: str, name: str, nearest: str) -> None:
    find = {
        "method": method_card,
        "model": find_model_card,
        "bench": lambda name: find_tasks((name,)),
        "task": lambda name: find_tasks((name,)),
        "suite": lambda name: validate_suite(name, {}),
        "table": find_table,
    }[kind]
    with pytest.raises(UserError) as caught:
        find(name)
    assert f"did you mean {nearest!r}" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "expected"),
    [("lampe", "lampe"), ("LAMEP", "lampe"), ("Dca", "DCA"), ("zzzz", None), ("", None)],
)
def test_the_nearest_name_is_given_as_it_is_written(name: str, expected: str | None) -> None:
    text = suggestion(name, ["lampe", "DCA", "yarn"])
    assert text == (f" (did you mean {expected!r}?)" if expected else "")
