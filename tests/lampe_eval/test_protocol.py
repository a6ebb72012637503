"""Protocols: every change that is accepted makes a difference, every other one is refused."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lampe_eval.benches import BENCHES, bench_tasks
from lampe_eval.benches.bench import Prompt, SampleRequest, Score, Task
from lampe_eval.errors import UserError
from lampe_eval.prompts.protocol import bench_protocols
from tests.e2e import content
from tests.fixtures import package
from tests.letters import LLAMA3, Letters


def _protocols() -> Iterator[tuple[str, str, Any]]:
    for bench, instance in BENCHES.items():
        for name, protocol in bench_protocols(instance.protocols_folder).items():
            yield bench, name, protocol


def _changes() -> Iterator[tuple[str, str, str, str]]:
    """Yield all changes but those of wordings, which the tests of their benches compare."""
    for bench, name, protocol in PROTOCOLS:
        if not BENCHES[bench].lists_tasks:  # tests/lampe_eval/test_lm_eval.py tests these
            continue
        for field, values in protocol.changes.items():
            for value in values:
                if value != str(getattr(protocol, field)) and field != "prompts":
                    yield bench, name, field, value


PROTOCOLS = list(_protocols())
CHANGES = list(_changes())


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = package(tmp_path, monkeypatch)
    content.everything(folder)
    return folder


def _effects(bench: str, text: str) -> Iterator[Any]:
    """Yield a protocol's prompts of a task, its score of an answer and its average of scores."""
    instance = BENCHES[bench]
    protocol = instance.protocol(text)
    task = next(task for task in bench_tasks(bench) if instance.has_task(task, protocol))
    yield from _prompts(bench, task, text)
    # The harness hands them to the engine with each prompt.
    yield protocol.plan_length, protocol.plan
    rows = {"prediction": "C or B", "references": ["b", "B"], "extras": {}}
    if bench == "infinitebench":
        yield instance.score("longbook_choice_eng", rows, protocol)
    values = {"hotpotqa": 10.0, "musique": 20.0, "lcc": 60.0}
    scores = {name: Score(value, 0.0, 1) for name, value in values.items()}
    if bench.startswith("longbench"):
        yield list(instance.task_averages(scores, protocol).values())[:1]


def _prompts(bench: str, task: Task, text: str) -> Iterator[Any]:
    instance = BENCHES[bench]
    length = {"longbench-v2": 1024, "mrcr": 3000, "oolong": 3500}.get(bench, 1500)
    tokenizer: Any = Letters(LLAMA3)
    request = SampleRequest(tokenizer, length, 1, instance.protocol(text))
    for sample in instance.samples(task, request):
        assert isinstance(sample, Prompt)
        yield list(sample.ids), sample.skip


@pytest.mark.matrix
@pytest.mark.parametrize(("bench", "name", "field", "value"), CHANGES)
def test_a_change_that_is_accepted_makes_a_difference(
    files: Path, bench: str, name: str, field: str, value: str
) -> None:
    if bench in ("babilong", "graphwalks", "helmet", "latent", "niah", "ruler"):
        pytest.skip("needs a tokenizer with batches; the tests of these benches do this")
    assert list(_effects(bench, name)) != list(_effects(bench, f"{name}:{field}={value}"))


def test_there_are_changes() -> None:
    assert {(bench, field) for bench, _, field, _ in CHANGES} >= {
        ("longbench", "truncation"), ("longbench", "average"), ("leval", "chat"),
        ("infinitebench", "scorer"),
    }  # fmt: skip


@pytest.mark.parametrize(("bench", "name", "protocol"), PROTOCOLS)
def test_every_other_change_is_refused(bench: str, name: str, protocol: Any) -> None:
    family = BENCHES[bench].protocols_of or bench
    for field in set(type(protocol).model_fields) - set(protocol.changes):
        with pytest.raises(UserError, match=re.escape(f"{name!r} of {family}: {field!r} ")):
            BENCHES[bench].protocol(f"{name}:{field}=middle")
    for field in protocol.changes:
        with pytest.raises(UserError, match=f"{field} .*'nonsense'"):
            BENCHES[bench].protocol(f"{name}:{field}=nonsense")


def test_wordings_are_named_as_they_are_written() -> None:
    assert BENCHES["ruler"].protocol("fair:prompts=2024").prompts == "2024"


@pytest.mark.parametrize("length", [1, 256, 500, 512])
@pytest.mark.parametrize("bench", ["longbench", "longbench-v2", "leval", "infinitebench"])
def test_lengths_that_leave_nothing_are_refused(files: Path, bench: str, length: int) -> None:
    instance, task = BENCHES[bench], bench_tasks(bench)[0]
    if bench == "infinitebench":
        # It reserves no tokens, so only a length of 0 is too short.
        length = 0
    tokenizer: Any = Letters()
    request = SampleRequest(tokenizer, length, 1, instance.protocol("official"))
    with pytest.raises(UserError, match=rf"\blength {length}\b"):
        list(instance.samples(task, request))


def test_averages_over_some_tasks_name_their_number() -> None:
    longbench, protocol = BENCHES["longbench"], BENCHES["longbench"].protocol("fair")
    english = {name: Score(value, 0.0, 1) for name, value in (("hotpotqa", 10.0), ("lcc", 60.0))}
    assert longbench.task_averages(english, protocol) == {"mean of categories, 2 of 16 tasks": 35}
    chinese = english | {"dureader": Score(20.0, 0.0, 1)}
    assert longbench.task_averages(chinese, protocol) == {
        "mean of categories, 2 of 16 tasks": 35,
        "mean of categories, Chinese, 2 of 7 tasks": 40,
    }
    assert longbench.task_averages({"lcc": english["lcc"]}, protocol) == {}
