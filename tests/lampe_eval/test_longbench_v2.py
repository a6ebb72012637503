"""LongBench v2's prompts, its second question after reasoning, and upstream's prediction files."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from lampe_eval import json_arrays
from lampe_eval.benches import bench_tasks, find_tasks
from lampe_eval.benches import longbench_v2 as bench_module
from lampe_eval.benches.bench import Prompt, SampleRequest
from lampe_eval.benches.longbench_v2 import LongBenchV2, questions, truncate_as_text
from lampe_eval.errors import UserError
from lampe_eval.scoring.prediction_files import score_folder
from tests.fixtures import package, pin
from tests.letters import LLAMA3, Letters
from tests.parity.data import DATA
from tests.upstream import V2_TEMPLATES, v2_row

BENCH = LongBenchV2()
K128 = 131072

QUESTION = "So: Why?\n(A) one\n(B) two\n(C) three\n(D) four\n"


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """LongBench v2 with files of our own."""
    folder = package(tmp_path, monkeypatch)
    for name, text in V2_TEMPLATES.items():
        pin(folder, "longbench-v2", name, text.encode())
    _data(folder, v2_row())
    return folder


def _data(folder: Path, *rows: Any) -> None:
    pin(folder, "longbench-v2", "data.json", json.dumps(rows, indent=2).encode())


def _prompts(
    task: str, protocol: str, template: str | None = None, *, length: int = K128, limit: int = 503
) -> list[Prompt]:
    (bench_task,) = find_tasks((f"longbench-v2/{task}",))
    tokenizer: Any = Letters(template)
    request = SampleRequest(tokenizer, length, limit, BENCH.protocol(protocol))
    return list(BENCH.samples(bench_task, request))  # type: ignore[arg-type]


def _text(prompt: Prompt) -> str:
    """Return the text after the BOS token, which every prompt has once."""
    text = Letters().decode(list(prompt.ids))
    assert text.startswith("<s>")
    return text.removeprefix("<s>")


@pytest.mark.parametrize("protocol", ["official", "fair"])
@pytest.mark.parametrize(
    ("task", "text", "answer"),
    [
        ("direct", f"See:\nA tale.\n{QUESTION}Which?", 128),
        ("cot", f"See:\nA tale.\n{QUESTION}Think:", 1024),
        ("no-context", f"{QUESTION}Which?", 128),
    ],
)
def test_prompts(files: Path, protocol: str, task: str, text: str, answer: int) -> None:
    (prompt,) = _prompts(task, protocol)
    assert _text(prompt) == text
    assert (prompt.max_new_tokens, prompt.references, prompt.cut_tokens) == (answer, ["C"], 0)
    assert prompt.extras == {"_id": "q0", "domain": "Law", "difficulty": "hard", "length": "short"}
    (turn,) = _prompts(task, protocol, LLAMA3)
    user = f"<|start_header_id|>user<|end_header_id|>\n\n{text}<|eot_id|>"
    assert _text(turn) == f"{user}<|start_header_id|>assistant<|end_header_id|>\n\n"


def test_parts_are_put_in_one_after_another(files: Path) -> None:
    """Fill the slots one after another, as upstream does.

    A text with the slot of a later part gets that part.
    """
    _data(files, v2_row(context="It is $Q$ or $DOC$.", question="$C_A$?"))
    assert _text(_prompts("direct", "fair")[0]).startswith("See:\nIt is one? or $DOC$.\nSo: one?\n")


def test_official_leaves_120000_tokens_of_128k(files: Path) -> None:
    """Cut to half of them at either end, BOS included, without counting template and answer."""
    _data(files, v2_row(context="".join(chr(0x4E00 + index % 5000) for index in range(200_000))))
    whole = _text(_prompts("direct", "fair:truncation=none")[0])
    (prompt,) = _prompts("direct", "official", LLAMA3)
    expected = whole[: 60_000 - 1] + whole[-60_000:]
    assert _text(prompt) == f"<|start_header_id|>user<|end_header_id|>\n\n{expected}<|eot_id|>" + (
        "<|start_header_id|>assistant<|end_header_id|>\n\n"
    )
    assert prompt.cut_tokens == len(whole) + 1 - 120_000


@pytest.mark.parametrize("protocol", ["official", "fair"])
def test_a_template_that_begins_the_text_does_so_once(files: Path, protocol: str) -> None:
    (prompt,) = _prompts("direct", protocol, chr(Letters.bos_token_id) + LLAMA3)
    assert list(prompt.ids).count(Letters.bos_token_id) == 1


@pytest.mark.parametrize(
    ("limit", "expected"), [(6, "abhij"), (7, "abghij"), (11, "abcdefghij"), (1, "j")]
)
def test_of_an_odd_limit_the_end_has_more(limit: int, expected: str) -> None:
    tokenizer: Any = Letters()
    assert truncate_as_text(tokenizer, "abcdefghij", limit) == (expected, 11 - limit)


def test_both_ends_are_decoded_as_one_text() -> None:
    class Marked(Letters):
        def decode(self, ids: list[int], skip_special_tokens: bool = False) -> str:
            assert skip_special_tokens
            return f"[{super().decode(ids, True)}]"

    tokenizer: Any = Marked()
    assert truncate_as_text(tokenizer, "abcdefghij", 6) == ("[abhij]", 5)


def test_fair_cuts_ids_so_that_prompt_and_answer_make_the_length(files: Path) -> None:
    _data(files, v2_row(context="word " * 3000))
    for task, answer in (("direct", 128), ("cot", 1024)):
        (prompt,) = _prompts(task, "fair", LLAMA3, length=2048)
        assert len(prompt.ids) + answer == 2048
        assert _text(prompt).endswith("<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n")


@pytest.mark.parametrize(("protocol", "length"), [("official", 8192), ("fair", 128)])
def test_a_length_without_room_is_refused(files: Path, protocol: str, length: int) -> None:
    with pytest.raises(UserError, match=rf"length {length} .*--lengths"):
        _prompts("direct", protocol, length=length)


@pytest.mark.parametrize("protocol", ["official", "fair"])
def test_reasoning_is_followed_by_a_second_question_without_the_text(
    files: Path, protocol: str
) -> None:
    (prompt,) = _prompts("cot", protocol)
    assert prompt.follow_up
    second = prompt.follow_up.make_prompt("\n Since $Q$ is asked. ")
    assert _text(second) == f"{QUESTION}Thought: Since $Q$ is asked.\nWhich?"
    assert (second.max_new_tokens, second.references) == (128, ["C"])
    assert (
        prompt.follow_up.join_answers("The correct answer is (A)", "The correct answer is (C)")
        == "The correct answer is (C)"
    )
    assert _prompts("direct", protocol)[0].follow_up is None


def test_naming_the_bench_runs_direct_answers() -> None:
    assert [task.name for task in find_tasks(("longbench-v2",))] == ["direct"]
    assert {task.name: task.card.samples for task in bench_tasks("longbench-v2")} == dict.fromkeys(
        bench_module.TEMPLATES, 503
    )


def test_a_task_needs_its_templates_and_the_data() -> None:
    needs = {
        task.name: BENCH.required_files(task, BENCH.protocol("fair"))
        for task in bench_tasks("longbench-v2")
    }
    assert needs["direct"] == ["longbench-v2/0shot.txt", "longbench-v2/data.json"]
    assert needs["cot"] == [
        "longbench-v2/0shot_cot.txt",
        "longbench-v2/0shot_cot_ans.txt",
        "longbench-v2/data.json",
    ]


@pytest.mark.parametrize("chunk", [1, 7, 1 << 20])
@pytest.mark.parametrize("indent", [None, 2])
def test_data_is_read_row_by_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk: int, indent: int | None
) -> None:
    monkeypatch.setattr(json_arrays, "CHUNK_LETTERS", chunk)
    rows = [v2_row(index, context=f'A "[tale], {index}\\ 雨 😀]') for index in range(3)]
    path = tmp_path / "data.json"
    path.write_text(json.dumps(rows, indent=indent, ensure_ascii=indent is None), encoding="utf-8")
    assert [row.model_dump(by_alias=True) for row in questions(path)] == rows


def test_only_as_many_rows_are_read_as_needed(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_arrays, "CHUNK_LETTERS", 10)
    _data(files, v2_row(0), v2_row(1), {"broken": True})
    assert [prompt.extras["_id"] for prompt in _prompts("direct", "fair", limit=2)] == ["q0", "q1"]
    (*_, faulty) = _prompts("direct", "fair", limit=3)
    assert "row 3" in faulty.error


GOOD = json.dumps(v2_row())


@pytest.mark.parametrize(
    ("content", "error"),
    [
        ("{}", "is not a JSON array"),
        ("", "is not a JSON array"),
        (f"[{GOOD}, {GOOD[:50]}", "row 2: is not JSON"),
        ("[]", "has no rows"),
        (f"[{GOOD}", "row 1: is not JSON"),
        ("[7]", "row 1: is not a JSON object"),
        (json.dumps([v2_row(answer="E")]), "row 1: 'answer': .*'A'"),
        (
            json.dumps([v2_row(difficulty="Hard")]),
            "row 1: 'difficulty': .*'easy'",
        ),
        (
            json.dumps([v2_row(length=3)]),
            "row 1: 'length': .*'medium'",
        ),
        (json.dumps([v2_row(context=None)]), "row 1: 'context': "),
        (
            json.dumps([{k: v for k, v in v2_row().items() if k != "_id"}]),
            "row 1: has no '_id'",
        ),
        (b"[\xff]", "row 1: is not JSON"),
        (f"[{GOOD} {GOOD}]", "row 1: is not JSON"),
        (f"[{GOOD},, {GOOD}]", "row 2: is not JSON"),
        (f"[{GOOD}] {GOOD}", "has more behind its array"),
        (b'["\xff"]', "row 1: .*UTF-8"),
    ],
)
def test_broken_data_is_named_with_its_row(
    tmp_path: Path, content: str | bytes, error: str
) -> None:
    path = tmp_path / "data.json"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError, match=f"data.json: {error}"):
        list(questions(path))


def test_accuracy_with_bands() -> None:
    answers = [
        ("The correct answer is (C)", "easy", "short"),
        ("**The correct answer is C**", "hard", "long"),
        ("The correct answer is (A)", "hard", "long"),
        ("C", "hard", "long"),
    ]
    protocol = BENCH.protocol("fair")
    rows: list[Any] = [
        {
            "prediction": prediction,
            "references": ["C"],
            "extras": {"difficulty": difficulty, "length": length},
        }
        for prediction, difficulty, length in answers
    ]
    for row in rows:
        row["score"] = BENCH.score("direct", row, protocol)
    (task,) = find_tasks(("longbench-v2",))
    score = BENCH.cell_score(task, rows, protocol)
    assert (score.value, score.n) == (50, 4)
    assert score.stderr == pytest.approx(100 * math.sqrt(1 / 3) / 2)
    details = dict(score.details)
    assert math.isnan(details.pop("medium"))
    assert details == {"easy": 100, "hard": 33.3, "short": 100, "long": 33.3}


def _write(path: Path, *lines: dict[str, Any]) -> None:
    path.write_text("".join(f"{json.dumps(line)}\n" for line in lines), encoding="utf-8")


def test_prediction_files_are_scored_by_response_else_as_upstream_judged(tmp_path: Path) -> None:
    row = v2_row() | {"pred": "A", "judge": False}
    answered = row | {"response": "**The correct answer is (C)**", "length": "long"}
    _write(
        tmp_path / "Some-8B.jsonl", answered, answered | {"response": "C"}, row | {"judge": True}
    )
    _write(tmp_path / "Some-8B_cot.jsonl", row, {"_id": "q1", "error": "too long"})
    results = score_folder("longbench-v2", tmp_path)
    assert [(name, result.n, result.skipped) for name, result in results.items()] == [
        ("Some-8B", 3, 0),
        ("Some-8B_cot", 1, 1),
    ]
    scores = dict(results["Some-8B"].scores)
    assert list(scores) == ["overall", "easy", "hard", "short", "medium", "long"]
    assert (scores["overall"], scores["hard"], scores["short"], scores["long"]) == (
        66.7,
        66.7,
        100,
        50,
    )
    assert results["Some-8B_cot"].scores["overall"] == 0


@pytest.mark.parametrize(
    ("line", "error"),
    [
        ({"pred": "A", "judge": True, "length": "short"}, "has no 'difficulty'"),
        ({"pred": "A", "difficulty": "easy", "length": "short"}, "has no 'judge'"),
        ({"response": "x", "difficulty": "easy", "length": "short"}, "has no 'answer'"),
        (
            {"response": None, "answer": "A", "difficulty": "easy", "length": "short"},
            "'response' is not a text",
        ),
    ],
)
def test_broken_prediction_files_are_named(
    tmp_path: Path, line: dict[str, Any], error: str
) -> None:
    _write(tmp_path / "model.jsonl", line)
    with pytest.raises(UserError, match=rf"model\.jsonl:1: {error}"):
        score_folder("longbench-v2", tmp_path)


REAL = DATA / "longbench-v2"


@pytest.mark.skipif(not REAL.is_dir(), reason="no prediction files")
def test_published_predictions_have_upstreams_numbers() -> None:
    """Average upstream's own judgements: the files hold neither responses nor answers."""
    for name, result in score_folder("longbench-v2", REAL).items():
        lines = [
            json.loads(line)
            for line in (REAL / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
        ]
        judged = [line for line in lines if "error" not in line]
        assert (result.n, result.skipped) == (len(judged), 503 - len(judged)) == (312, 191)
        for band, value in result.scores.items():
            hits = [
                line["judge"]
                for line in judged
                if band in ("overall", line["difficulty"], line["length"])
            ]
            assert value == round(100 * sum(hits) / len(hits), 1) if hits else math.isnan(value)


@pytest.mark.skipif(not REAL.is_dir(), reason="no prompt files")
@pytest.mark.parametrize("task", bench_module.TEMPLATES)
def test_official_templates_to_the_byte(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, task: str
) -> None:
    """Fill upstream's pinned templates with rows of the published files: no placeholder is left."""
    folder = package(tmp_path, monkeypatch)
    for name in V2_TEMPLATES:
        (folder / "data").mkdir(exist_ok=True)
        (folder / "data" / name).write_bytes((REAL / name).read_bytes())
    first, *_ = (REAL / "cot_gpt4omini_preds.jsonl").read_text(encoding="utf-8").splitlines()
    row = {key: value for key, value in json.loads(first).items() if key in v2_row()} | {
        "answer": "A"
    }
    _data(folder, row)
    template = (REAL / bench_module.TEMPLATES[task]).read_text(encoding="utf-8")
    before, mark, rest = template.partition("$DOC$")
    question = (rest if mark else before).replace("$Q$", row["question"].strip())
    for letter in "ABCD":
        question = question.replace(f"$C_{letter}$", row[f"choice_{letter}"].strip())
    expected = f"{before}{row['context'].strip()}{question}" if mark else question
    (prompt,) = _prompts(task, "official")
    assert _text(prompt) == expected
    assert "$" not in expected.replace(row["context"].strip(), "")


def test_questions_on_a_text_share_its_hash(files: Path) -> None:
    _data(files, v2_row(), v2_row(), v2_row(context="Another tale."))
    first, second, other = (prompt.document_sha256 for prompt in _prompts("direct", "fair"))
    assert first == second != other
