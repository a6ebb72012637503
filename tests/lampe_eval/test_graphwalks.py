"""GraphWalks: graphs of our own have their length and their answers, official rows their cells."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import PreTrainedTokenizerBase

from lampe_eval.benches import find_tasks
from lampe_eval.benches.bench import Prompt, SampleRequest
from lampe_eval.benches.graphs import Graph, GraphQuestion
from lampe_eval.benches.graphwalks import GraphWalks
from lampe_eval.errors import UserError
from lampe_eval.scoring import graphwalks_metrics
from tests.e2e import content
from tests.fixtures import package, pin
from tests.letters import LLAMA3
from tests.parity.data import DATA

BENCH = GraphWalks()
OWN_TASKS = ["parents", "steps_1", "steps_2", "steps_3"]


@pytest.fixture
def tokenizer(pocket: tuple[object, PreTrainedTokenizerBase]) -> PreTrainedTokenizerBase:
    return pocket[1]


def _samples(
    task: str,
    length: int,
    tokenizer: PreTrainedTokenizerBase,
    limit: int = 3,
    protocol: str = "fair",
    seed: int = 0,
) -> list[Prompt]:
    (bench_task,) = find_tasks((f"graphwalks/{task}",))
    request = SampleRequest(tokenizer, length, limit, BENCH.protocol(protocol), seed)
    return list(BENCH.samples(bench_task, request))


def _read_answer(text: str, task: str) -> set[str]:
    """Return the answer to a prompt, read from its text without the code that made it."""
    links: dict[str, set[str]] = {}
    for source, target in re.findall(r"(\w+) -> (\w+)", text):
        assert target not in links.setdefault(source, set())
        links[source].add(target)
    assert all(len(targets) == 2 for targets in links.values())
    (asked,) = re.findall(r"(?:to|does|at) ([0-9a-f]{6})\b(?! ->)", text)
    if task == "parents":
        return {source for source, targets in links.items() if asked in targets}
    distance = {asked: 0}
    steps = int(task.removeprefix("steps_"))
    for step in range(steps):
        for source in [name for name, at in distance.items() if at == step]:
            for target in links[source]:
                distance.setdefault(target, step + 1)
    return {name for name, at in distance.items() if at == steps}


def _check_answers(task: str, tokenizer: PreTrainedTokenizerBase, length: int, limit: int) -> None:
    for sample in _samples(task, length, tokenizer, limit):
        text = str(tokenizer.decode(sample.ids))
        assert len(sample.ids) + sample.max_new_tokens == length
        assert text.endswith("Final Answer: [")
        assert set(sample.references) == _read_answer(text, task)
        assert len(sample.references) == len(set(sample.references)) > 0
        assert 0 <= sample.meta["depth"] < 100


@pytest.mark.parametrize("task", OWN_TASKS)
def test_a_reader_of_the_prompt_finds_the_answer(
    task: str, tokenizer: PreTrainedTokenizerBase
) -> None:
    _check_answers(task, tokenizer, 2048, 60)


@pytest.mark.slow
@pytest.mark.parametrize("task", OWN_TASKS)
def test_a_reader_finds_all_answers(task: str, tokenizer: PreTrainedTokenizerBase) -> None:
    _check_answers(task, tokenizer, 3000, 2000)


@pytest.mark.parametrize("task", OWN_TASKS)
def test_dots_fill_what_is_less_than_a_node(task: str, tokenizer: PreTrainedTokenizerBase) -> None:
    whole_list = re.compile(r"([0-9a-f]{6} -> [0-9a-f]{6}\n)+(?:\.*\n)?")
    for length in range(2048, 2060):
        (sample,) = _samples(task, length, tokenizer, 1)
        text = str(tokenizer.decode(sample.ids))
        edges = text[text.index("only.\n") + 6 :]
        found = whole_list.match(edges)
        assert found and re.match("Which|Start", edges[found.end() :])


def test_samples_are_functions_of_their_index_and_seed(tokenizer: PreTrainedTokenizerBase) -> None:
    first, second, third = _samples("steps_2", 2048, tokenizer)
    assert _samples("steps_2", 2048, tokenizer, 1)[0] == first
    assert first.references != second.references != third.references
    assert _samples("steps_2", 2048, tokenizer, 1, seed=1)[0].references != first.references


@pytest.mark.parametrize("change", ["chat=none", "plan_length=prompt"])
def test_changes_of_the_protocol_make_a_difference(
    change: str, tokenizer: PreTrainedTokenizerBase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokenizer, "chat_template", LLAMA3)
    (plain,) = _samples("steps_2", 2048, tokenizer, 1)
    (changed,) = _samples("steps_2", 2048, tokenizer, 1, f"fair:{change}")
    assert len(plain.ids) == len(changed.ids) == 2048 - plain.max_new_tokens
    assert (list(plain.ids) != list(changed.ids)) == (change == "chat=none")
    protocols = [BENCH.protocol("fair"), BENCH.protocol(f"fair:{change}")]
    assert protocols[0] != protocols[1]


@pytest.mark.parametrize("scorer", ["lm_eval", "lm_eval_flexible", "openbench", "nemo_gym"])
def test_official_scorers_differ(scorer: str) -> None:
    protocol = BENCH.protocol(f"official:scorer={scorer}")
    texts = ["Final Answer: [a]\nOr so.", "final answer: [a]", "Final Answer: [a]\n"]
    rows: list[Any] = [{"prediction": text, "references": ["a"]} for text in texts]
    scores = [BENCH.score("bfs", row, protocol) for row in rows]
    expected = {"lm_eval": [0, 0, 1], "lm_eval_flexible": [1, 0, 1], "openbench": [0, 1, 0]}
    assert scores == expected.get(scorer, [0, 0, 1])


@pytest.mark.parametrize(
    ("prediction", "f1"), [("a, b]", 1), ("b, 'a'] and so on", 1), ("a]", 2 / 3), ("", 0)]
)
def test_the_answer_begins_in_the_prompt(prediction: str, f1: float) -> None:
    row: Any = {"prediction": prediction, "references": ["a", "b"]}
    assert BENCH.score("parents", row, BENCH.protocol("fair")) == f1


def test_exact_answers_are_a_detail() -> None:
    rows: Any = [{"id": str(score), "score": score} for score in (1.0, 0.5, 0.0, 1.0)]
    (task,) = find_tasks(("graphwalks/parents",))
    assert BENCH.details(task, rows, BENCH.protocol("fair")) == {"exact": 50}


@pytest.mark.parametrize(
    ("averages", "change"),
    [
        ({1024: 40.0, 2048: 30.0, 4096: 10.0}, -50),
        ({1024: 0.0, 2048: 30.0}, None),
        ({8: 9.0}, None),
    ],
)
def test_long_score_is_the_change_from_the_shortest_length(
    averages: dict[int, float], change: float | None
) -> None:
    assert [*BENCH.length_averages(averages).values()] == ([] if change is None else [change])


def test_distances_count_the_shortest_path() -> None:
    graph = Graph(np.array([[1, 2], [2, 3], [0, 3], [4, 0], [0, 1]]))
    assert graph.at_distance(0, 3) == [[0], [1, 2], [3], [4]]
    assert graph.parents(0) == [2, 3, 4]


def _row(tokens: int, problem_type: str = "parents", **changes: Any) -> dict[str, Any]:
    # pocket has a token for each of these digits
    return {"prompt": "7" * tokens, "answer_nodes": ["a"], "problem_type": problem_type} | changes


def _write_rows(folder: Path, rows: list[dict[str, Any]]) -> None:
    pin(folder, "graphwalks", "graphwalks_128k_and_shorter.parquet", content.parquet_file(rows))


def test_official_cells_have_rows_of_more_than_half_their_length(
    tokenizer: PreTrainedTokenizerBase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = package(tmp_path, monkeypatch)
    sizes = [300, 500, 700, 750, 1100]
    _write_rows(folder, [*map(_row, sizes), _row(600, "bfs")])
    protocol = "official:max_new_tokens=256"
    samples = _samples("parents", 1000, tokenizer, 9, protocol)
    lengths = [len(sample.ids) for sample in samples]
    assert [sample.skip for sample in samples] == [length + 256 > 1000 for length in lengths]
    assert all(500 < length <= 1000 for length in lengths)
    assert len(_samples("bfs", 1000, tokenizer, 9, protocol)) == 1
    with pytest.raises(UserError, match=r"4000.*--lengths"):
        _samples("bfs", 4000, tokenizer, 9, protocol)


def test_a_row_of_another_schema_is_named(
    tokenizer: PreTrainedTokenizerBase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = package(tmp_path, monkeypatch)
    _write_rows(folder, [_row(700), _row(700, answer_nodes=None)])
    _, faulty = _samples("parents", 1000, tokenizer, 9, "official:max_new_tokens=256")
    assert "row 2" in faulty.error and "answer_nodes" in faulty.error


def test_rows_as_json_lines_are_read(
    tokenizer: PreTrainedTokenizerBase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LAMPE_EVAL_CACHE", str(tmp_path / "cache"))
    lines = "".join(json.dumps(_row(700)) + "\n" for _ in range(2))
    (tmp_path / "graphwalks_128k_and_shorter.jsonl").write_text(lines, encoding="utf-8")
    monkeypatch.setenv("LAMPE_EVAL_DATA", str(tmp_path))
    assert len(_samples("parents", 1000, tokenizer, 9, "official:max_new_tokens=256")) == 2


def _published_rows() -> list[dict[str, Any]]:
    path = DATA / "parity2" / "graphwalks_published_rows.json"
    return json.loads(path.read_text(encoding="utf-8"))["cases"] if path.exists() else []


@pytest.mark.parametrize("row", _published_rows())
def test_published_rows(row: dict[str, Any]) -> None:
    edges = [edge.split(" -> ") for edge in row["edges"]]
    names = list(dict.fromkeys(source for source, _ in edges))
    targets = np.array([names.index(target) for _, target in edges]).reshape(len(names), -1)
    graph, node = Graph(targets), names.index(row["node"])
    found = {names[other] for other in GraphQuestion("", row["depth"] or 0).answer(graph, node)}
    assert found == {*row["answer_without_the_node_itself"]}
    # The first version counted a node with an edge to itself among its own parents.
    assert row["version"] == "2025-04" or found == {*row["answer_nodes"]}
    if "published_reward" in row:
        answer = row["model_last_line"]
        f1 = graphwalks_metrics.score("nemo_gym", answer, row["answer_nodes"])
        assert f1 == row["published_reward"]
