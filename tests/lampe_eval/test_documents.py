"""Documents read once: one plan for the questions about a document, and one cache of it."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from transformers import MistralConfig, MistralForCausalLM, PreTrainedModel

import lampe
from lampe_eval.benches import BENCHES
from lampe_eval.benches.bench import FollowUp, Passage, Prompt, Sample
from lampe_eval.commands.dry_run import dry_run_suite
from lampe_eval.commands.run import run_suite
from lampe_eval.commands.validate import validate_suite
from lampe_eval.engine.local_engine import LocalEngine
from lampe_eval.engine.run_samples import run_samples
from lampe_eval.errors import UserError
from lampe_eval.models import ModelCost
from lampe_eval.prompts.protocol import bench_protocols
from lampe_eval.running import preview
from lampe_eval.running.batching import longest_first, make_batches
from lampe_eval.running.sample_records import ReadPrompt
from lampe_eval.running.shared_documents import with_document_plans
from lampe_eval.running.suite_configuration import _fields
from lampe_eval.store import Store
from lampe_eval.texts import pocket_language
from tests.e2e import content
from tests.fixtures import package, pin
from tests.lampe.tiny import WINDOW, llama
from tests.lampe_eval.running.engine_faults import fault_at_answer

pytestmark = pytest.mark.filterwarnings("ignore::lampe.PositionWarning")

DOCUMENT = list(range(2, 122)) + list(range(60, 100))
"""Tokens of a document, more than the window."""
ANSWER = 5
FORGETFUL = ("streaming-llm", "lm-infinite")
METHODS = (
    "original", "lampe", "lampe:variant=reference", "dca", "selfextend", "string", "yarn",
    "dynamic-ntk:factor=2", "gali", "dpe:group_sizes=2/8", "lampe+yarn", *FORGETFUL,
)  # fmt: skip


def _question(name: str, *tokens: int, document: str = "d", **options: Any) -> Prompt:
    ids = [*DOCUMENT, *tokens]
    return Prompt(name, ids, ANSWER, (), document_sha256=document, **options)


QUESTIONS = with_document_plans(
    [
        _question("a", 5, 6, 7, plan_length="prompt+answer"),
        _question("b", 9, plan_length="prompt+answer"),
        _question("c", 5, 6, 8, 90, 91, 92, 3, plan_length="prompt+answer"),
    ]
)


@pytest.mark.parametrize(
    ("samples", "plans", "shared"),
    [
        ([_question("a", 1), _question("b", 2, 3)], [162, 162], [160, 160]),
        # One of them is a beginning of the other: a token is left to read.
        ([_question("a", 1), _question("b", 1, 2)], [162, 162], [160, 160]),
        ([_question("a", 1), _question("b", 1)], [161, 161], [160, 160]),
        ([_question("a", 1), _question("b", 2, document="e")], [0, 0], [0, 0]),
        ([_question("a", 1, document=""), _question("b", 2, document="")], [0, 0], [0, 0]),
        ([_question("a", 1), _question("b", 2, skip=True)], [0, 0], [0, 0]),
        (
            [_question("a", 1, plan_length="prompt+answer"), _question("b", 2, 3, 4)],
            [166, 166],
            [160, 160],
        ),
        # The question comes first, so that nothing is shared but the plan.
        ([replace(_question("a", 1), ids=[9, *DOCUMENT]), _question("b")], [161, 161], [0, 0]),
        ([Passage("a", DOCUMENT, 3), _question("b", 2)], [0, 0], [0, 0]),
    ],
)  # fmt: skip
def test_questions_about_one_document_have_the_plan_of_the_longest(
    samples: list[Sample], plans: list[int], shared: list[int]
) -> None:
    planned = with_document_plans(samples)
    assert [sample.id for sample in planned] == [sample.id for sample in samples]
    assert [getattr(sample, "plan_tokens", 0) for sample in planned] == plans
    assert [getattr(sample, "shared_tokens", 0) for sample in planned] == shared
    for sample, plan in zip(planned, plans, strict=True):
        if plan:
            assert isinstance(sample, Prompt)
            assert len(sample.ids) + sample.reserved_tokens == plan


def test_questions_about_one_document_come_together_and_alone() -> None:
    long, short = (Prompt(f"p{tokens}", [0] * tokens, ANSWER, ()) for tokens in (165, 162))
    again = [replace(one, id=f"{one.id}2", document_sha256="e") for one in QUESTIONS]
    samples = longest_first([short, *QUESTIONS, long, *again])
    names = [sample.id for sample in samples]
    assert names == ["c", "a", "b", "c2", "a2", "b2", "p165", "p162"]
    sizes = [len(batch) for batch in make_batches(samples, 10_000)]
    assert sizes == [1, 1, 1, 1, 1, 1, 2]
    whole = [len(batch) for batch in make_batches(samples, 1, whole_documents=True)]
    assert whole == [3, 3, 1, 1]


class _TokenNames:
    """Tokenizer that decodes tokens to their numbers."""

    eos_token_id = pad_token_id = None

    def decode(self, ids: Sequence[int], **_: Any) -> str:
        return " ".join(map(str, ids))


class _Counted:
    """Engine of a model, with the tokens that the model has read."""

    def __init__(self, model: PreTrainedModel) -> None:
        self.tokens = 0
        self.engine = LocalEngine(model, _TokenNames())  # type: ignore[arg-type]
        model.register_forward_pre_hook(self._count, with_kwargs=True)

    def _count(self, model: object, inputs: tuple[Any, ...], options: dict[str, Any]) -> None:
        ids = inputs[0] if inputs else options["input_ids"]
        self.tokens += ids.numel()

    def answers(self, prompts: Sequence[Prompt]) -> tuple[list[str], int]:
        """Return the answers to prompts one after another, and the tokens that were read."""
        before = self.tokens
        texts = [self.engine.answer([prompt])[0].text for prompt in prompts]
        return texts, self.tokens - before


@pytest.fixture(scope="module")
def counted() -> _Counted:
    torch.manual_seed(3)
    return _Counted(llama())


def _patched(engine: LocalEngine, text: str, attention: str = "auto") -> Any:
    name, _, settings = text.partition(":")
    pairs = [pair.split("=") for pair in settings.split(",") if pair]
    options = {key: float(value) if value.isdigit() else value for key, value in pairs}
    return engine.patched(lampe.method_of(name, **options), WINDOW, attention)


@pytest.mark.parametrize("method", METHODS)
def test_answers_are_those_without_sharing(counted: _Counted, method: str) -> None:
    alone = [replace(question, shared_tokens=0) for question in QUESTIONS]
    with _patched(counted.engine, method):
        together, read_once = counted.answers(QUESTIONS)
        again, _ = counted.answers(QUESTIONS[::-1])
        assert together == again[::-1], "whatever question came before"
        expected, read_each = counted.answers(alone)
    assert together == expected
    saved = 0 if method in FORGETFUL else 2 * QUESTIONS[0].shared_tokens
    assert read_each - read_once == saved


@pytest.mark.slow
@pytest.mark.parametrize("attention", ["dense", "blockwise"])
@pytest.mark.parametrize("method", sorted(lampe.METHODS))
def test_answers_of_every_method_are_those_without_sharing(
    counted: _Counted, method: str, attention: str
) -> None:
    alone = [replace(question, shared_tokens=0) for question in QUESTIONS]
    with _patched(counted.engine, method, attention):
        assert counted.answers(QUESTIONS)[0] == counted.answers(alone)[0]


def test_a_document_goes_on_after_second_questions_only(counted: _Counted) -> None:
    """Read another document, or a passage, between two questions: the cache is freed."""
    question, document = QUESTIONS[0], QUESTIONS[0].shared_tokens
    second = Prompt("fact", [5, 6, 7], ANSWER, (), document_sha256="d")
    other = replace(QUESTIONS[1], document_sha256="e")
    with _patched(counted.engine, "lampe"):
        _, first = counted.answers([question])
        _, later = counted.answers([second, question])
        assert later - counted.answers([second])[1] == first - document
        for between in ([other], [replace(second, document_sha256="")]):
            counted.answers(between)
            assert counted.answers([question])[1] == first
        counted.engine.loss(Passage("p", DOCUMENT[:20], 3))
        assert counted.answers([question])[1] == first
        # Another plan gives the document other keys.
        longer = replace(question, plan_tokens=question.plan_tokens + 1)
        assert counted.answers([longer])[1] == first
    with _patched(counted.engine, "dca"):
        assert counted.answers([longer])[1] == first


def test_what_is_left_of_a_long_question_is_read_in_chunks(
    counted: _Counted, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = replace(QUESTIONS[2], shared_tokens=40)
    with _patched(counted.engine, "lampe"):
        expected, _ = counted.answers([long])
        counted.engine.answer([replace(long, document_sha256="e")])
        monkeypatch.setattr("lampe_eval.engine.local_engine.PROMPT_CHUNK", 32)
        assert counted.answers([long])[0] == expected
        counted.engine.answer([long], low_memory=True)


def test_a_cache_that_cannot_be_cropped_is_said_once(capsys: pytest.CaptureFixture[str]) -> None:
    torch.manual_seed(1)
    config = MistralConfig(
        vocab_size=128, hidden_size=32, intermediate_size=32, num_hidden_layers=1,
        num_attention_heads=2, num_key_value_heads=2, sliding_window=100,
        max_position_embeddings=WINDOW, eos_token_id=None,
    )  # fmt: skip
    counted = _Counted(MistralForCausalLM(config).eval())
    alone = [replace(question, shared_tokens=0) for question in QUESTIONS]
    with _patched(counted.engine, "lampe"):
        assert counted.answers(QUESTIONS) == counted.answers(alone)
    with _patched(counted.engine, "streaming-llm"):
        counted.answers(QUESTIONS)
    said = [line for line in capsys.readouterr().err.splitlines() if "lampe-eval: " in line]
    assert len(said) == 1 and "cropped" in said[0]


def test_a_method_that_drops_keys_is_said_once_by_name(
    counted: _Counted, capsys: pytest.CaptureFixture[str]
) -> None:
    counted.engine._refusals.clear()
    with _patched(counted.engine, "streaming-llm"):
        counted.answers(QUESTIONS)
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1 and "streaming-llm" in said[0]


def test_a_question_without_memory_is_answered_without_sharing(
    counted: _Counted, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Let the second question run out of memory; the document it went on from is freed."""
    with _patched(counted.engine, "lampe"):
        expected = run_samples(counted.engine, longest_first(QUESTIONS))
        generate, calls = counted.engine.model.generate, iter(range(9))
        held: list[object] = []

        def short(*inputs: Any, **options: Any) -> Any:
            call = next(calls)
            if call == 2:
                held.append(counted.engine._document)
            if call == 1:
                raise torch.OutOfMemoryError("tried to allocate 3 PiB")
            return generate(*inputs, **options)

        with monkeypatch.context() as patch:
            patch.setattr(counted.engine.model, "generate", short)
            outcomes = run_samples(counted.engine, longest_first(QUESTIONS))
    counted.engine.low_memory_from = float("inf")
    assert held == [None]
    assert [one["prediction"] for one in outcomes] == [one["prediction"] for one in expected]
    assert [one.get("low_memory", False) for one in outcomes] == [False, True, False]
    assert [one["batch_size"] for one in outcomes] == [1, 1, 1]


def test_second_questions_have_plans_of_their_own(counted: _Counted) -> None:
    follow_up = FollowUp(lambda text: Prompt("fact", [5, 6], ANSWER, ()), lambda *both: both[1])
    with _patched(counted.engine, "lampe"):
        (outcome,) = run_samples(counted.engine, [replace(QUESTIONS[0], follow_up=follow_up)])
        alone = counted.answers([Prompt("fact", [5, 6], ANSWER, (), plan_length="prompt+answer")])
    assert outcome["answers"][1:] == alone[0]


def test_a_stored_question_is_known_by_its_plan() -> None:
    plans = [ReadPrompt.of_sample(question).plan_tokens for question in QUESTIONS]
    longest = max(len(question.ids) for question in QUESTIONS) + ANSWER
    assert plans == [longest, longest, 0], "the longest one would have that plan alone"


def test_the_least_time_of_a_document_counts_it_once(monkeypatch: pytest.MonkeyPatch) -> None:
    for rate in ("operations_per_second", "bytes_per_second"):
        monkeypatch.setattr(preview, rate, lambda device: 1.0)
    cost = ModelCost(parameters=1, parameter_bytes=0, cache_bytes=0, attention_operations=0)
    tokens = [2.0 * (len(question.ids) + ANSWER) for question in QUESTIONS]
    shared = 2 * QUESTIONS[0].shared_tokens
    assert preview.least_batch_seconds(QUESTIONS, "cpu", cost) == sum(tokens) - 2 * shared
    assert preview.least_batch_seconds(QUESTIONS[:1], "cpu", cost) == tokens[0]
    assert preview._least_seconds(QUESTIONS, "cpu", cost, visible=8) == sum(tokens)


def _without_documents() -> Iterator[str]:
    for name, bench in BENCHES.items():
        protocols = bench_protocols(bench.protocols_folder).values()
        if not any("plan" in protocol.changes for protocol in protocols):
            yield name


@pytest.mark.parametrize("bench", sorted(_without_documents()))
def test_a_bench_without_documents_refuses_their_plan(bench: str) -> None:
    with pytest.raises(UserError, match=r"'plan'.*document") as caught:
        BENCHES[bench].protocol("fair:plan=document")
    assert "\n" not in str(caught.value)


def test_only_fair_plans_for_documents() -> None:
    with_documents = {
        (bench, name)
        for bench in BENCHES
        for name, protocol in bench_protocols(BENCHES[bench].protocols_folder).items()
        if protocol.plan == "document"
    }
    assert {name for _, name in with_documents} == {"fair"}
    assert {bench for bench, _ in with_documents} >= {"leval", "infinitebench", "longbench"}
    with pytest.raises(UserError, match="'plan' cannot be changed"):
        BENCHES["leval"].protocol("official:plan=document")


RESULTS = sorted(Path(__file__).parents[2].glob("results/*/run.yaml"))


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.parent.name)
def test_committed_runs_have_the_protocols_of_today(path: Path) -> None:
    config = yaml.safe_load(path.read_text(encoding="utf-8"))["config"]
    for bench, stored in config["protocols"].items():
        assert stored == _fields(BENCHES[bench].protocol(config["protocol"]))


# Runs.


COSTS = ("seconds", "prefill_seconds", "decode_seconds", "peak_memory_bytes")


@pytest.fixture
def suite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pocket: Any) -> Any:
    """Return a function that validates a suite with a small document and the loaded model."""
    folder = package(tmp_path, monkeypatch)
    content.leval(folder)
    content.shorten_answers(folder)
    row = {
        "input": pocket_language.text(1, 150),
        "instructions": ["Is it so, in the story.", "Is it not so, in the story."],
        "outputs": ["True [fact: False]"] * 2,
        "evaluation": "exam",
    }
    pin(folder, "leval", "sci_fi.jsonl", content.lines([row]))
    monkeypatch.setattr("lampe_eval.models.load_model", lambda *_: pocket)
    options = {"method": "lampe", "bench": "leval/sci_fi", "lengths": "512"}
    return lambda name, **more: validate_suite(None, {**options, "output": tmp_path / name, **more})


def _rows(suite: Any) -> dict[str, list[dict[str, Any]]]:
    store = Store(suite.suite.output)
    return {
        cell.task: [{**row, **dict.fromkeys(COSTS)} for row in store.rows(cell)]
        for cell in store.cells()
    }


def test_an_interrupted_document_is_resumed(suite: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run_suite(suite("whole")) == 0
    (rows,) = _rows(suite("whole")).values()
    # The second question is the longer one by a word.
    assert [row.get("plan_tokens", 0) > row["prompt_tokens"] for row in rows] == [True, False]

    def kill() -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        # Each question has a second one, so that this is before the second question.
        fault_at_answer(patch, 3, kill)
        with pytest.raises(KeyboardInterrupt):
            run_suite(suite("killed"))
    assert [len(stored) for stored in _rows(suite("killed")).values()] == [1]
    assert run_suite(suite("killed")) == 0
    assert _rows(suite("killed")) == _rows(suite("whole"))
    # With a larger limit the first question gets the plan of its document, and runs again.
    assert run_suite(suite("grown", limit=1)) == 0
    (alone,) = _rows(suite("grown")).values()
    assert "plan_tokens" not in alone[0]
    assert run_suite(suite("grown", limit=2)) == 0
    assert _rows(suite("grown")) == _rows(suite("whole"))


def test_a_run_with_plans_of_prompts_goes_on_as_such(
    suite: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    label = "fair:plan=prompt"
    assert run_suite(suite("run", protocol=label, limit=1)) == 0
    description = suite("run", protocol=label).suite.output / "run.yaml"
    assert "plan:" not in description.read_text(encoding="utf-8")
    assert run_suite(suite("run", protocol=label)) == 0
    (rows,) = _rows(suite("run", protocol=label)).values()
    assert [row.get("plan_tokens") for row in rows] == [None, None]
    # As if it had been made by `fair` before that had a plan for documents.
    text = description.read_text(encoding="utf-8").replace(label, "fair")
    description.write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=r"leval plan was prompt, now document.*--output"):
        suite("run")
    capsys.readouterr()
    dry_run_suite(suite("dry"))
    assert "1 with several questions" in capsys.readouterr().out
