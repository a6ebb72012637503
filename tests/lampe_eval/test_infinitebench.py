"""InfiniteBench's prompts, on files with upstream's structure and our content, and its labels."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedTokenizerBase

from lampe_eval.benches import bench_tasks as all_tasks
from lampe_eval.benches import find_tasks
from lampe_eval.benches.bench import Prompt, SampleRequest, Score
from lampe_eval.benches.infinitebench import InfiniteBench, split_template, truncate_as_text
from lampe_eval.errors import UserError
from tests.fixtures import package, pin
from tests.parity.data import DATA
from tests.upstream import INFINITEBENCH_CODE, INFINITEBENCH_TEMPLATES

BENCH = InfiniteBench()

CHAT = (
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}</>{% endfor %}"
    "{% if add_generation_prompt %}<me>{% endif %}"
)


@pytest.fixture
def tokenizer(pocket: tuple[object, PreTrainedTokenizerBase]) -> PreTrainedTokenizerBase:
    return copy.deepcopy(pocket[1])


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = package(tmp_path, monkeypatch)
    pin(
        folder,
        "infinitebench",
        "prompt.py",
        f"gpt4_templates = {{}}\nyarn_mistral_templates = {INFINITEBENCH_TEMPLATES!r}\n".encode(),
    )
    pin(folder, "infinitebench", "eval_utils.py", INFINITEBENCH_CODE.encode())
    return folder


def _put(files: Path, task: str, *rows: dict[str, Any]) -> None:
    whole = [
        {"id": at, "context": "c", "input": "i", "answer": ["a"], "options": []} | row
        for at, row in enumerate(rows)
    ]
    pin(
        files,
        "infinitebench",
        f"{task}.jsonl",
        "".join(json.dumps(row) + "\n" for row in whole).encode(),
    )


def _samples(
    task: str,
    tokenizer: PreTrainedTokenizerBase,
    protocol: str = "fair",
    length: int = 512,
    limit: int = 9,
) -> list[Prompt]:
    (bench_task,) = find_tasks((f"infinitebench/{task}",))
    return list(
        BENCH.samples(bench_task, SampleRequest(tokenizer, length, limit, BENCH.protocol(protocol)))
    )


def _text(tokenizer: PreTrainedTokenizerBase, sample: Prompt) -> str:
    return str(tokenizer.decode(list(sample.ids), skip_special_tokens=True)).strip()


ROWS = {
    "passkey": (
        {"context": "So it goes.", "input": "Which key?"},
        "A key is hidden here.\n\nSo it goes.\n\nWhich key?\n\nThe key is",
    ),
    "longbook_qa_eng": (
        {"context": "Once.", "input": "Who?"},
        "A novel.\n\nOnce.\n\nAsked: Who?\nReply:",
    ),
    "code_run": (
        {"context": "def f", "input": "Now func_7(-3), please, not func_8(2)."},
        "See func_7 below.\n\ndef f\n\nWork out func_7(-3). What func_7(-3) gives is",
    ),
    "math_find": (
        {"context": "[3, 1]", "input": "The Largest of all of them"},
        "Which is the largest of all here?\n\n[3, 1]\n\nThe Largest of all of them",
    ),
    "code_debug": (
        {"context": "code", "answer": ["f"], "options": ["e", "f", "g", "h"]},
        "One is broken.\n\ncode\n\nA. e\nB. f\nC. g\nD. h\n\nThe broken one:",
    ),
}


@pytest.mark.parametrize("protocol", ["fair", "official"])
@pytest.mark.parametrize("task", ROWS)
def test_every_kind_of_row_fills_its_template(
    files: Path, tokenizer: PreTrainedTokenizerBase, task: str, protocol: str
) -> None:
    row, expected = ROWS[task]
    _put(files, task, row)
    (sample,) = _samples(task, tokenizer, protocol)
    assert _text(tokenizer, sample) == expected
    assert sample.cut_tokens == 0 and sample.extras == {"id": 0}


def test_the_first_words_of_the_answer_are_the_answers_in_a_chat(
    files: Path, tokenizer: PreTrainedTokenizerBase
) -> None:
    tokenizer.chat_template = CHAT
    _put(files, "code_run", ROWS["code_run"][0])
    (chat,), (plain,) = (
        _samples("code_run", tokenizer, protocol) for protocol in ("fair", "fair:chat=none")
    )
    before, _, after = _text(tokenizer, chat).partition("</>")
    assert before.startswith("<user>") and before.endswith("Work out func_7(-3).")
    assert after == "<assistant>What func_7(-3) gives is"
    assert _text(tokenizer, plain) == ROWS["code_run"][1]


@pytest.mark.parametrize(
    ("template", "answer_prefix"),
    [
        ("{context}\n\n{input}\n\nThe key is", "\n\nThe key is"),
        ("{context}\n问题：{question}\n答案：", "\n答案："),
        ("Sum: 1 + 2\nValues: [3]\n\nSum: {context}\nValues:", "\nValues:"),
        ("{context}\n\nWork out {func_call}. That gives", " That gives"),
        ("{context}\n\n{input}", ""),
        ("{context}\n\nSay of {input}. Then {more}", ""),
    ],
)
def test_a_template_is_split_before_the_first_words_of_the_answer(
    template: str, answer_prefix: str
) -> None:
    question, first_words = split_template(template)
    assert first_words == answer_prefix
    assert question + first_words == template


@pytest.mark.parametrize(
    ("protocol", "limit"), [("fair", 128 - 6), ("official", 128), ("lampe", 128)]
)
def test_long_texts_lose_their_middle(
    files: Path, tokenizer: PreTrainedTokenizerBase, protocol: str, limit: int
) -> None:
    _put(
        files, "passkey", {"context": " ".join(f"w{n}" for n in range(300)), "input": "Which key?"}
    )
    (sample,) = _samples("passkey", tokenizer, protocol, 128)
    assert sample.cut_tokens > 0
    assert abs(len(sample.ids) - limit) <= (
        0 if protocol == "fair" else 2
    )  # decoded and encoded again
    assert _text(tokenizer, sample).endswith("Which key?\n\nThe key is")
    assert [word in _text(tokenizer, sample) for word in ("w0 ", "w150", "w299")] == [
        True,
        False,
        True,
    ]


class LettersWithMarker:
    """Tokenizer of one token per letter, with `<` as its BOS token."""

    def __call__(self, text: str, **_: Any) -> dict[str, list[int]]:
        return {"input_ids": [ord(letter) for letter in f"<{text}"]}

    def decode(self, ids: list[int], skip_special_tokens: bool) -> str:
        assert skip_special_tokens
        return "".join(map(chr, ids)).replace("<", "")


@pytest.mark.parametrize(
    ("limit", "text", "cut"),
    [(8, "abcdefg", 0), (7, "abefg", 2), (6, "abefg", 2), (4, "afg", 4), (1, "", 8)],
)
def test_the_middle_of_the_whole_prompt_is_cut(limit: int, text: str, cut: int) -> None:
    """Keep the first `limit // 2` tokens, BOS included, and as many last ones."""
    tokenizer: Any = LettersWithMarker()
    assert truncate_as_text(tokenizer, "abcdefg", limit) == (text, cut)


@pytest.mark.parametrize(
    ("task", "row", "label"),
    [
        ("passkey", {"answer": ["71432"]}, ["71432"]),
        ("kv_retrieval", {"answer": "ab-12"}, "ab-12"),
        (
            "longbook_choice_eng",
            {"answer": ["two"], "options": ["one", "two", "two", "four"]},
            ["two", "B"],
        ),
        ("code_debug", {"answer": "d", "options": ["a", "b", "c", "d"]}, ["d", "D"]),
        ("code_debug", {"answer": ["d", "C"], "options": ["a", "b", "c", "d"]}, ["d", "C"]),
        ("code_run", {"answer": -4, "input": "func_1(2)"}, -4),
        ("code_run", {"answer": [4], "input": "func_1(2)"}, [4]),
    ],
)
def test_labels_are_as_the_scorers_take_them(
    files: Path, tokenizer: PreTrainedTokenizerBase, task: str, row: dict[str, Any], label: Any
) -> None:
    _put(files, task, row)
    (sample,) = _samples(task, tokenizer)
    assert sample.references == label and type(sample.references) is type(label)


def test_the_protocol_says_which_scorer() -> None:
    def score(protocol: str, task: str, prediction: str, label: Any) -> float:
        row = {"prediction": prediction, "references": label, "extras": {}}
        return BENCH.score(task, row, BENCH.protocol(protocol))

    for task, prediction, label in [
        ("kv_retrieval", "ab-12", ["ab-12"]),
        ("code_debug", "B", ["f", "B"]),
    ]:
        assert [
            score(protocol, task, prediction, label) for protocol in ("official", "lampe", "fair")
        ] == [0, 1, 1]
    assert score("fair:scorer=official", "code_debug", "B", ["f", "B"]) == 0


def test_tasks_and_protocols() -> None:
    known = {task.name: task for task in all_tasks("infinitebench")}
    assert len(known) == 12
    assert {
        name for name, task in known.items() if BENCH.has_task(task, BENCH.protocol("lampe"))
    } == {
        "longbook_choice_eng", "kv_retrieval", "longbook_qa_eng", "longbook_sum_eng", "code_debug",
        "passkey", "number_string",
    }  # fmt: skip
    for protocol in ("fair", "official"):
        assert all(BENCH.has_task(task, BENCH.protocol(protocol)) for task in known.values())
    assert BENCH.protocol("lampe").decoding == "single_line"
    scores = {"passkey": Score(50.0, 0.0, 1), "code_run": Score(100.0, 0.0, 1)}
    assert BENCH.task_averages(scores, BENCH.protocol("fair")) == {"mean of 2 tasks": 75.0}
    assert BENCH.required_files(known["math_find"], BENCH.protocol("fair")) == [
        "infinitebench/prompt.py", "infinitebench/eval_utils.py", "infinitebench/math_find.jsonl",
    ]  # fmt: skip


def test_a_limit_stops_the_reading(files: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    _put(files, "passkey", {}, {}, {"context": 5})
    assert [sample.id for sample in _samples("passkey", tokenizer, limit=2)] == ["0000", "0001"]
    (*_, faulty) = _samples("passkey", tokenizer)
    assert "passkey.jsonl:3: 'context': " in faulty.error


@pytest.mark.parametrize(
    ("task", "row", "message"),
    [
        (
            "code_run",
            {"input": "nothing is called"},
            r"code_run.jsonl:1: ",
        ),
        ("math_find", {"input": "the smallest"}, r"jsonl:1: the input does not say what to find"),
        (
            "code_debug",
            {"answer": "x", "options": list("abcd")},
            r"the answer 'x' is none of the options",
        ),
        ("code_debug", {"answer": "a", "options": list("abc")}, r"jsonl:1: 'options': .* 4 .* got"),
        ("longbook_sum_eng", {}, r"prompt.py: has no prompt for 'longbook_sum_eng'"),
    ],
)
def test_rows_that_do_not_fit_are_reported(
    files: Path, tokenizer: PreTrainedTokenizerBase, task: str, row: dict[str, Any], message: str
) -> None:
    _put(files, task, row)
    with pytest.raises(UserError, match=message) as caught:
        _samples(task, tokenizer, length=4096)
    assert "\n" not in str(caught.value)


def test_code_without_its_question_is_reported(
    files: Path, tokenizer: PreTrainedTokenizerBase
) -> None:
    _put(files, "math_find", ROWS["math_find"][0])
    pin(
        files, "infinitebench", "eval_utils.py", b"def create_prompt():\n    return 'no question'\n"
    )
    with pytest.raises(UserError, match=r"eval_utils\.py: .* 0 .*'create_prompt'.* 1"):
        _samples("math_find", tokenizer)


RESULTS = DATA / "infinitebench" / "results"
SHARED = sorted(RESULTS.glob("*/preds_*.jsonl"))


@pytest.mark.parametrize("file", SHARED, ids=lambda file: f"{file.parent.name}-{file.stem}")
def test_real_labels_have_a_score_under_every_protocol(file: Path) -> None:
    """Labels are scalars in results before 2024 and lists after; the scorer gets them unchanged."""
    with file.open(encoding="utf-8") as lines:
        row = json.loads(lines.readline())
    task, label = file.stem.removeprefix("preds_"), row["ground_truth"]
    stored = {
        "prediction": row["prediction"],
        "references": json.loads(json.dumps(label)),
        "extras": {"id": row["id"]},
    }
    for protocol in ("official", "lampe", "fair"):
        assert 0 <= BENCH.score(task, stored, BENCH.protocol(protocol)) <= 1


@pytest.mark.skipif(not RESULTS.is_dir(), reason=f"no prediction files under {DATA}")
@pytest.mark.parametrize("task", ["code_debug", "longbook_choice_eng"])
def test_labels_of_choices_have_the_form_of_upstreams_results(
    files: Path, tokenizer: PreTrainedTokenizerBase, task: str
) -> None:
    with (RESULTS / "yi-6b-200k" / f"preds_{task}.jsonl").open(encoding="utf-8") as lines:
        label = json.loads(lines.readline())["ground_truth"]
    options = ["w", "x", "y"]
    options.insert("ABCD".index(label[1]), label[0])
    _put(files, task, {"answer": label[:1], "options": options})
    assert _samples(task, tokenizer)[0].references == label


def test_questions_on_a_book_share_its_hash(
    files: Path, tokenizer: PreTrainedTokenizerBase
) -> None:
    _put(files, "longbook_qa_eng", {"input": "Who?"}, {"input": "Why?"}, {"context": "Another."})
    first, second, other = (
        sample.document_sha256 for sample in _samples("longbook_qa_eng", tokenizer)
    )
    assert first == second != other
