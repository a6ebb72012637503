"""L-Eval's prompts on files of our own in upstream's structure; its numbers from answers."""

import json
import math
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from lampe_eval.benches import bench_tasks, find_tasks
from lampe_eval.benches.bench import Prompt, SampleRequest, Score
from lampe_eval.benches.leval import EXAMS, LEval, shorten_by_words
from lampe_eval.errors import UserError
from lampe_eval.records import SampleRecord
from tests.fixtures import package, pin
from tests.letters import LLAMA2, LLAMA3, Letters
from tests.parity.data import DATA
from tests.upstream import LEVAL_CONFIG, LEVAL_SCRIPT

BENCH = LEval()
LONG = 1 << 16

SYSTEMS = dict(
    zip(("gsm", "topic", "coursera", "codeU", "sci_fi", "exam", "open"), "TUVWXYZ", strict=True)
)


def _row(evaluation: str = "exam", document: str = "A tale.", questions: int = 1) -> dict[str, Any]:
    instructions = [f"Is it {number}, in the story." for number in range(questions)]
    return {
        "input": document,
        "instructions": instructions,
        "outputs": ["One two three"] * questions,
        "evaluation": evaluation,
    }


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Pin prompt files of L-Eval with sentences of our own."""
    folder = package(tmp_path, monkeypatch)
    pin(folder, "leval", "LEval_config.py", LEVAL_CONFIG.encode())
    pin(folder, "leval", "llama2-chat-test.py", LEVAL_SCRIPT.encode())
    return folder


def _data(folder: Path, task: str, *rows: dict[str, Any]) -> None:
    pin(folder, "leval", f"{task}.jsonl", "".join(f"{json.dumps(row)}\n" for row in rows).encode())


def _prompts(
    task: str, protocol: str, template: str | None = None, *, length: int = LONG, limit: int = 1000
) -> list[Prompt]:
    (bench_task,) = find_tasks((f"leval/{task}",))
    tokenizer: Any = Letters(template)
    request = SampleRequest(tokenizer, length, limit, BENCH.protocol(protocol))
    return list(BENCH.samples(bench_task, request))  # type: ignore[arg-type]


def _text(prompt: Prompt) -> str:
    """Return the text after the one BOS token that every prompt has."""
    text = Letters().decode(list(prompt.ids))
    assert text.startswith("<s>")
    return text.removeprefix("<s>")


QUESTION = "Is it 0, in the story."
PARTS = {
    "gsm100": f"A tale.\n\n{QUESTION}",
    "codeU": f"A tale.\n\n{QUESTION}",
    "topic_retrieval_longchat": f"A tale.\n\n{QUESTION}",
    "quality": f"Look: A tale. \nSay: {QUESTION}. Only that ",
    "sci_fi": f"Look: A tale. \nSay: {QUESTION}. Only that ",
    "news_summ": f"Look: A tale. Do: {QUESTION} \nTake 3 words.",
}
SYSTEM = {
    "gsm100": "T",
    "codeU": "W",
    "topic_retrieval_longchat": "U",
    "quality": "Y",
    "sci_fi": "X",
    "news_summ": "Z",
}
LEAD = {"quality": "\nAnswer:", "sci_fi": "\nAnswer:"}


def _evaluation(task: str) -> str:
    return "exam" if task in EXAMS else "f1"


@pytest.mark.parametrize("task", PARTS)
def test_official_prompts_are_upstreams_for_llama2(files: Path, task: str) -> None:
    _data(files, task, _row(_evaluation(task)))
    (prompt,) = _prompts(task, "official", LLAMA2)
    closed = "" if task in ("gsm100", "codeU") else "[/INST]"
    expected = (
        f"[INST]<<SYS>>\n{SYSTEM[task]}\n<</SYS>>\n\n{PARTS[task]}{closed}{LEAD.get(task, '')}"
    )
    assert _text(prompt) == expected
    assert (prompt.decoding, prompt.max_new_tokens, prompt.references) == (
        "special_tokens",
        512,
        ["One two three"],
    )


@pytest.mark.parametrize("protocol", ["official", "fair"])
@pytest.mark.parametrize("task", PARTS)
def test_other_models_read_the_same_parts_in_their_own_turns(
    files: Path, task: str, protocol: str
) -> None:
    _data(files, task, _row(_evaluation(task)))
    (prompt,) = _prompts(task, protocol, LLAMA3)
    turn = "<|start_header_id|>{}<|end_header_id|>\n\n{}<|eot_id|>"
    begin = "<|start_header_id|>assistant<|end_header_id|>\n\n"
    turns = turn.format("system", SYSTEM[task]) + turn.format("user", PARTS[task])
    assert _text(prompt) == f"{turns}{begin}{LEAD.get(task, '').lstrip()}"
    assert prompt.decoding == "text"  # their last mark would be scored as a word


@pytest.mark.parametrize("protocol", ["official", "fair", "fair:chat=none"])
def test_models_without_turns_read_the_bare_parts(files: Path, protocol: str) -> None:
    _data(files, "quality", _row())
    (prompt,) = _prompts("quality", protocol, LLAMA3 if "none" in protocol else None)
    assert _text(prompt) == f"Y\n\n{PARTS['quality']}\nAnswer:"


@pytest.mark.parametrize("task", [task.name for task in bench_tasks("leval")])
def test_every_task_has_its_system_prompt(files: Path, task: str) -> None:
    _data(files, task, _row(_evaluation(task)))
    (prompt,) = _prompts(task, "official")
    key = next((key for key in SYSTEMS if key in task), "exam" if task in EXAMS else "open")
    assert _text(prompt).startswith(f"{SYSTEMS[key]}\n\n")


LAMPE_TASKS = ("coursera", "gsm100", "quality", "tpo", "sci_fi")


@pytest.mark.parametrize("task", LAMPE_TASKS)
def test_lampe_types_the_turns_of_llama3_after_a_second_begin(files: Path, task: str) -> None:
    _data(files, task, _row(document="A tale. " * 5000))
    (prompt,) = _prompts(task, "lampe", LLAMA3, length=1024)
    system = SYSTEMS[next((key for key in SYSTEMS if key in task), "exam")]
    question = PARTS["quality"].replace("A tale.", "A tale. " * 5000)
    assert _text(prompt) == (
        f"<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\n{system}<|eot_id|>"
        f"<|start_header_id|>user<|end_header_id|>\n\n{question}<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\nAnswer:"
    )
    assert (prompt.cut_tokens, prompt.decoding) == (0, "special_tokens")


class LettersWithTypedBos(Letters):
    """Tokenizer that encodes a typed begin-of-text marker as the BOS token."""

    def __call__(
        self, text: str, add_special_tokens: bool = True, **_: Any
    ) -> dict[str, list[int]]:
        return super().__call__(
            text.replace("<|begin_of_text|>", chr(self.bos_token_id)), add_special_tokens
        )


@pytest.mark.parametrize(("protocol", "begins"), [("lampe", 2), ("official", 1), ("fair", 1)])
def test_lampe_alone_begins_a_text_twice(files: Path, protocol: str, begins: int) -> None:
    _data(files, "quality", _row())
    tokenizer: Any = LettersWithTypedBos("<|begin_of_text|>" + LLAMA3)
    (bench_task,) = find_tasks(("leval/quality",))
    (prompt,) = BENCH.samples(
        bench_task, SampleRequest(tokenizer, LONG, 1, BENCH.protocol(protocol))
    )
    assert (
        prompt.ids[:3].count(tokenizer.bos_token_id)
        == list(prompt.ids).count(tokenizer.bos_token_id)
        == begins
    )


def test_lampe_has_five_tasks() -> None:
    protocol = BENCH.protocol("lampe")
    assert {task.name for task in bench_tasks("leval") if BENCH.has_task(task, protocol)} == set(
        LAMPE_TASKS
    )
    assert all(BENCH.has_task(task, BENCH.protocol("fair")) for task in bench_tasks("leval"))
    with pytest.raises(
        UserError, match=r"^leval/codeU: .* coursera, gsm100, .*sci_fi; .*--protocol"
    ):
        _prompts("codeU", "lampe")


WORDS = [f"w{number:03}" for number in range(1000)] + [f"v{number:03}" for number in range(1000)]


@pytest.mark.parametrize(("task", "expected"), [("quality", WORDS[:238]), ("codeU", WORDS[-238:])])
def test_official_keeps_as_many_words_as_tokens_fit_less_250s(
    files: Path, task: str, expected: list[str]
) -> None:
    """Fit words into the 2000 - 512 = 1488 tokens that a length of 2048 leaves.

    1488 words have 7440 tokens; removing 250 words at a time, 238 are the first to fit.
    """
    _data(files, task, _row(document=" ".join(WORDS)))
    (prompt,) = _prompts(task, "official", LLAMA2, length=2048)
    assert re.findall(r"[wv]\d{3}", _text(prompt)) == expected
    assert prompt.cut_tokens == 5 * (len(WORDS) - len(expected))


def test_a_document_that_fits_in_tokens_keeps_its_words() -> None:
    tokenizer: Any = Letters()
    assert (
        shorten_by_words(tokenizer, "a  b c", 7, keep_end=False) == "a  b c"
    )  # six letters and the begin
    assert (
        shorten_by_words(tokenizer, "a  b c", 6, keep_end=False) == ""
    )  # six words are kept first, then all but 244
    assert shorten_by_words(tokenizer, "oneword", 3, keep_end=True) == ""


def test_fair_cuts_ids_so_that_prompt_and_answer_make_the_length(files: Path) -> None:
    _data(files, "quality", _row(document=" ".join(WORDS)))
    (prompt,) = _prompts("quality", "fair", LLAMA3, length=2048)
    assert len(prompt.ids) + 512 == 2048
    assert _text(prompt).endswith(
        f"Say: {QUESTION}. Only that <|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\nAnswer:"
    )
    assert _text(prompt).startswith("<|start_header_id|>system<|end_header_id|>\n\nY<|eot_id|>")


@pytest.mark.parametrize("protocol", ["official", "fair"])
def test_a_length_without_room_is_refused(files: Path, protocol: str) -> None:
    _data(files, "quality", _row())
    with pytest.raises(UserError, match=r"length 512 .*--lengths"):
        _prompts("quality", protocol, length=512)


def test_rows_for_a_judge_are_left_out_but_counted(files: Path) -> None:
    rows = [
        _row("exam", questions=3),
        _row("LLM", questions=1),
        _row("human", questions=1),
        _row("exam", questions=2),
    ]
    _data(files, "topic_retrieval_longchat", *rows)
    prompts = _prompts("topic_retrieval_longchat", "fair")
    assert [prompt.extras["row"] for prompt in prompts] == [0, 1, 2, 5, 6]
    assert [prompt.id for prompt in prompts] == ["0000", "0001", "0002", "0005", "0006"]
    assert _prompts("topic_retrieval_longchat", "fair", limit=4) == prompts[:4]


def test_fiction_has_a_second_question_about_the_real_world(files: Path) -> None:
    _data(files, "sci_fi", _row())
    for protocol, template in (("official", LLAMA2), ("lampe", LLAMA3), ("fair", LLAMA3)):
        (prompt,) = _prompts("sci_fi", protocol, template)
        assert prompt.follow_up
        second = prompt.follow_up.make_prompt("True</s>")
        assert _text(second) == "Is it 0, in our days Be short. \nAnswer:"
        assert (second.max_new_tokens, second.decoding) == (512, prompt.decoding)
        assert (
            prompt.follow_up.join_answers("True</s>", "False</s>") == "True</s> [fact: False</s>]"
        )


def test_only_fiction_has_a_second_question(files: Path) -> None:
    _data(files, "quality", _row())
    assert all(prompt.follow_up is None for prompt in _prompts("quality", "official"))


@pytest.mark.parametrize(
    ("document", "read"),
    [
        ("f{{x}}", "f{x}"),
        ("f{x}{{y}}", "f{x}{{y}}"),
        ("f{", "f{"),
        ("{}", "{}"),
        ("{inst!r:.1}", "'"),
        ("{inst[a]}", "{inst[a]}"),
    ],
)
def test_upstream_formats_a_document_in_plain_prompts_once_more(
    files: Path, document: str, read: str
) -> None:
    _data(files, "codeU", _row(document=document))
    (official,), (fair,) = _prompts("codeU", "official", LLAMA2), _prompts("codeU", "fair")
    assert _text(official) == f"[INST]<<SYS>>\nW\n<</SYS>>\n\n{read}\n\n{QUESTION}"
    assert _text(fair) == f"W\n\n{document}\n\n{QUESTION}"
    _data(files, "quality", _row(document=document))
    assert f"Look: {document} \n" in _text(_prompts("quality", "official", LLAMA2)[0])


def test_broken_files_are_named(files: Path) -> None:
    _data(files, "quality", _row() | {"outputs": []})
    with pytest.raises(
        UserError,
        match=r"quality\.jsonl:1: .*'instructions' and 'outputs'",
    ):
        _prompts("quality", "fair")
    _data(files, "quality", _row() | {"outputs": [7]})
    with pytest.raises(UserError, match=r"quality\.jsonl:1: 'outputs\.0': .*7"):
        _prompts("quality", "fair")
    for name, content in (
        ("LEval_config.py", LEVAL_CONFIG.replace('"V"', "None or 1")),
        ("llama2-chat-test.py", "def main():\n  1"),
    ):
        pin(files, "leval", name, content.encode())
        with pytest.raises(UserError, match=r"llama2-chat-test\.py, .*LEval_config\.py: "):
            _prompts("quality", "fair")


def test_a_task_needs_its_data_and_the_sentences(files: Path) -> None:
    (task,) = find_tasks(("leval/tpo",))
    names = {"leval/LEval_config.py", "leval/llama2-chat-test.py", "leval/tpo.jsonl"}
    assert set(BENCH.required_files(task, BENCH.protocol("fair"))) == names


def _rows(task: str, *pairs: tuple[str, str]) -> list[SampleRecord]:
    protocol = BENCH.protocol("official")
    rows = [
        {"prediction": prediction, "references": [gold], "extras": {"row": i}}
        for i, (prediction, gold) in enumerate(pairs)
    ]
    return [row | {"score": BENCH.score(task, row, protocol)} for row in rows]


def _reduced(task: str, *pairs: tuple[str, str]) -> Any:
    (bench_task,) = find_tasks((f"leval/{task}",))
    return BENCH.cell_score(bench_task, _rows(task, *pairs), BENCH.protocol("official"))


def test_only_the_end_of_llama2_is_taken_from_answers() -> None:
    scores = _rows(
        "multidoc_qa", ("Rome</s>", "Rome"), ("Rome<|eot_id|>", "Rome"), ("in Rome</s>", "Rome")
    )
    assert [row["score"] for row in scores] == [1, 0, pytest.approx(2 / 3)]


def test_exams_and_questions_have_a_mean_with_its_error() -> None:
    score = _reduced("quality", ("A", "A"), ("B", "A"), ("C</s>", "C"), ("D", "C"))
    assert (score.value, score.n, score.details) == (50, 4, {})
    assert (score.estimate.independent_units, score.estimate.unit) == (4, "sample")
    assert score.stderr == pytest.approx(100 * math.sqrt(1 / 3) / 2)


def test_fiction_and_topics_have_the_mean_of_their_parts() -> None:
    score = _reduced(
        "sci_fi",
        ("True [fact: True]</s>", "True [fact: False]"),
        ("True [fact: True]", "True [fact: True]"),
    )
    assert (score.value, score.details) == (75, {"loyalty": 100, "fact": 50})
    assert score.stderr == pytest.approx(25)
    topics = _reduced(
        "topic_retrieval_longchat", ("art", "Art"), ("no", "Art"), ("no", "Art"), ("no", "Art")
    )
    assert topics.details == {"first": 50, "second": 0, "third": 0}
    assert topics.value == pytest.approx(50 / 3, abs=1e-4)


def test_summaries_have_a_geometric_mean_whose_error_is_the_bootstraps() -> None:
    pairs = [
        ("the cat sat on the mat", "the cat lay on the mat"),
        ("rain fell", "rain fell all night long"),
    ]
    score = _reduced("news_summ", *pairs)
    means = [score.details[kind] for kind in ("rouge1", "rouge2", "rougeL")]
    assert score.value == pytest.approx(math.prod(means) ** (1 / 3), abs=1e-3)
    singles = [_reduced("news_summ", pair).details for pair in pairs]
    slopes = []
    for single in singles:
        kinds = zip(single, means, strict=True)
        slopes.append(sum(score.value / 3 / mean * single[kind] for kind, mean in kinds))
    linearised = abs(slopes[0] - slopes[1]) / 2
    assert score.stderr == pytest.approx(linearised, rel=0.03)
    assert _reduced("news_summ", ("a b", "c d"), ("e f", "g h")).stderr == 0
    assert math.isnan(_reduced("news_summ", pairs[0]).stderr)


def test_the_mean_of_exams_leaves_topics_and_open_ended_tasks_out() -> None:
    protocol = BENCH.protocol("fair")
    values = {"quality": 40.0, "tpo": 60.0, "topic_retrieval_longchat": 0.0, "news_summ": 5.0}
    scores = {task: Score(value, 0.0, 1) for task, value in values.items()}
    assert BENCH.task_averages(scores, protocol) == {"mean of exams, 2 of 6": 50}
    assert BENCH.task_averages({"news_summ": scores["news_summ"]}, protocol) == {}


REAL = {path.stem: path for path in sorted((DATA / "leval" / "LEval-data").glob("*/*.jsonl"))}


@pytest.mark.parametrize("task", REAL)
def test_real_rows_to_the_byte(files: Path, task: str) -> None:
    """Compare prompts with the pinned data, which has as many samples as the card says."""
    target = files / "data" / "leval" / "LEval-data" / REAL[task].parent.name
    target.mkdir(parents=True, exist_ok=True)
    shutil.copy(REAL[task], target)
    prompts = _prompts(task, "official", LLAMA2, length=1 << 26)
    (bench_task,) = find_tasks((f"leval/{task}",))
    assert len(prompts) == bench_task.card.samples
    with REAL[task].open(encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    pairs = []
    for row in rows:
        for question, answer in zip(row["instructions"], row["outputs"], strict=True):
            pairs.append((row["input"], question, answer, row["evaluation"]))
    for prompt in (prompts[0], prompts[-1]):
        document, question, answer, evaluation = pairs[prompt.extras["row"]]
        assert evaluation in ("exam", "f1", "rouge")
        assert prompt.references == [answer]
        middle = {
            "gsm100": f"{document}\n\n{question}",
            "topic_retrieval_longchat": f"{document}\n\n{question}[/INST]",
        }.get(task, f"Look: {document} \nSay: {question}. Only that [/INST]\nAnswer:")
        if task not in EXAMS:
            middle = f"Look: {document} Do: {question} \nTake {len(answer.split())} words.[/INST]"
        assert _text(prompt).partition("\n<</SYS>>\n\n")[2] == middle


def test_questions_on_a_document_share_its_hash(files: Path) -> None:
    _data(files, "quality", _row(questions=2), _row(document="Another tale."))
    first, second, other = (prompt.document_sha256 for prompt in _prompts("quality", "fair"))
    assert first == second != other


def test_errors_are_computed_over_documents(files: Path) -> None:
    (task,) = find_tasks(("leval/quality",))
    rows: list[Any] = [
        {
            "prediction": "B" if number < 9 else "C",
            "references": ["B"],
            "extras": {"row": number},
            "prompt_tokens": 9,
            "score": float(number < 9),
            "document_sha256": f"{number // 6:x}".ljust(64, "0"),
        }
        for number in range(18)
    ]
    score = BENCH.cell_score(task, rows, BENCH.protocol("fair"))
    assert (score.estimate.independent_units, score.estimate.unit) == (3, "document")
    alone = BENCH.cell_score(
        task,
        [{**row, "document_sha256": f"{row['extras']['row']:02x}".ljust(64, "0")} for row in rows],
        BENCH.protocol("fair"),
    )
    assert (alone.estimate.independent_units, alone.estimate.unit) == (18, "sample")
    assert alone.estimate.interval().low > score.estimate.interval().low
