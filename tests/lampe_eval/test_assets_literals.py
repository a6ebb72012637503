"""Constants of upstream's source: literals are read, and nothing is run."""

from pathlib import Path

import pytest

from lampe_eval.assets import literal, literals, strings
from lampe_eval.errors import UserError

SOURCE = '''
import nothing_of_this_exists
raise SystemExit("was run")

LIMIT: int = 3
TABLE = {"one": {"template": "a " "b", "tokens": -128}, "two": ["x", None, True]}
CALL = open("/tmp/was-run", "w")
NAME = TABLE
FORMAT = f"{LIMIT}"
SUM = "a" + "b"
if LIMIT:
    filler = "first"
else:
    filler = CALL
FIRST = SECOND = "both"

def choose(kind):
    """Not this."""
    inner = "hidden"
    if kind == "gsm":
        prompt = "one"
    elif kind == "topic":
        prompt = f"two {kind} three"
    else:
        prompt = "four"
    return prompt

class Other:
    LIMIT = 4
'''


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "upstream.py"
    path.write_text(SOURCE)
    return path


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("LIMIT", 3),
        ("TABLE", {"one": {"template": "a b", "tokens": -128}, "two": ["x", None, True]}),
        ("filler", "first"),
        ("SECOND", "both"),
    ],
)
def test_literals_are_read(source: Path, name: str, value: object) -> None:
    assert literal(source, name) == value


@pytest.mark.parametrize("name", ["CALL", "NAME", "FORMAT", "SUM", "inner", "nothing"])
def test_a_value_that_is_no_literal_is_refused(source: Path, name: str) -> None:
    with pytest.raises(UserError, match=rf"upstream.py: '{name}' .*0 literals"):
        literal(source, name)


def test_a_name_with_several_literals_is_ambiguous(source: Path) -> None:
    source.write_text("A = 1\nA = 2\n")
    with pytest.raises(UserError, match=r"'A' .*2 literals"):
        literal(source, "A")
    assert literals(source, "A") == [1, 2]


def test_inside_a_function(source: Path) -> None:
    assert literals(source, "prompt", "choose") == ["one", "four"]
    assert literal(source, "inner", "choose") == "hidden"
    assert strings(source, "choose") == ["hidden", "gsm", "one", "topic", "two ", " three", "four"]
    with pytest.raises(UserError, match="'chose'"):
        strings(source, "chose")


@pytest.mark.parametrize(
    "text", ["def f(:", "A = " + "(" * 5000, "A = 1\0", "A = " + "[" * 150 + "]" * 150]
)
def test_a_file_that_is_not_python_is_named(source: Path, text: str) -> None:
    source.write_text(text)
    with pytest.raises(UserError, match=r"upstream.py") as caught:
        literal(source, "B")
    assert "\n" not in str(caught.value)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be read"):
        literal(tmp_path / "none.py", "A")
    (tmp_path / "large.py").write_bytes(b"#" * (2 << 20))
    with pytest.raises(UserError, match="larger than"):
        literal(tmp_path / "large.py", "A")
