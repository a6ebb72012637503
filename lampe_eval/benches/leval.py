"""L-Eval: twenty tasks on long documents: exams, questions and summaries.

Exams are scored by exact match, questions by token F1, summaries by ROUGE. A sample is one question
on a document. Rows that a language model or people must judge (`evaluation` "LLM" or "human") are
left out: of the thirteen open-ended tasks only the rows marked "f1" and "rouge" are run.

Sources: arXiv 2307.11088 with `Baselines/llama2-chat-test.py` and `LEval_config.py` of
OpenLMLab/LEval at cd34b05, from which all sentences are read. Protocol `lampe` follows
`LEval/Baselines/llama3-8b-chat_hmt_tpo.py` of scar-on/LaMPE at 4e3c91f, which has the same
sentences in Llama-3's chat markers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, model_validator

from lampe_eval import assets
from lampe_eval.benches.bench import (
    Bench,
    CellScore,
    FollowUp,
    Prompt,
    SampleRequest,
    Score,
    Task,
    mean_scores,
)
from lampe_eval.errors import UserError
from lampe_eval.file_io import sha256_of_text
from lampe_eval.prompts.chat_template import (
    ChatFamily,
    Message,
    chat_family,
    template_affixes,
)
from lampe_eval.prompts.prompt_fitting import FittedPrompt, encode_prompt, fit_prompt
from lampe_eval.prompts.protocol import Decoding, Protocol
from lampe_eval.prompts.tokenization import encode, encode_with_special_tokens
from lampe_eval.records import SampleRecord
from lampe_eval.scoring import leval_metrics
from lampe_eval.scoring.estimates import Estimate
from lampe_eval.texts.jsonl_rows import FaultyRow, read_rows

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# Upstream shortens a document by 250 more words as long as it has too many tokens.
WORDS_PER_STEP = 250

TOPICS, FICTION, CODE = "topic_retrieval_longchat", "sci_fi", "codeU"
EXAMS = ("coursera", "gsm100", "quality", TOPICS, "tpo", FICTION, CODE)

# Tasks with a system prompt of their own, in the order of the branches in LEval_config.py. The
# branch for other exams and the branch for all other tasks follow them.
SYSTEM_PROMPT_TASKS = ("gsm100", TOPICS, "coursera", CODE, FICTION)

# llama2-chat-test.py does not close the user's turn of these tasks: the model continues the text.
OPEN_TURN_TASKS = frozenset({"gsm100", CODE})

EXAM_ANSWER_PREFIX = "\nAnswer:"


class LEvalRow(BaseModel):
    """Row of the data: questions on a document, and their answers."""

    model_config = ConfigDict(frozen=True, strict=True)

    instructions: list[str]
    outputs: list[str]
    input: str
    evaluation: str

    @model_validator(mode="after")
    def _check_pairs(self) -> Self:
        if len(self.instructions) != len(self.outputs):
            raise ValueError("'instructions' and 'outputs' are not of the same number")
        return self


Style = Literal["plain", "exam", "open"]
"""Form of a question: document and question alone, an exam's template, or the open-ended one."""


@dataclass(frozen=True)
class Script:
    """Differences between the two scripts that prompts can follow.

    Attributes:
        plain_tasks: exams that are asked without the exam's template.
        typed_families: chat families whose markers the script types; other models get their chat
            template.
        raw_families: chat families whose answers keep their special tokens, as in upstream's
            files; None for all. L-Eval's script knows Llama-2 alone, and the scorer would count
            another model's end-of-turn token as a word.
    """

    plain_tasks: frozenset[str]
    typed_families: frozenset[ChatFamily]
    raw_families: frozenset[ChatFamily] | None


SCRIPTS = {
    "official": Script(
        plain_tasks=OPEN_TURN_TASKS | {TOPICS},
        typed_families=frozenset({"llama2"}),
        raw_families=frozenset({"llama2"}),
    ),
    # LaMPE's script asks for gsm100 like for any other exam, and runs neither codeU nor topics.
    "lampe": Script(
        plain_tasks=frozenset(),
        typed_families=frozenset({"llama2", "llama3"}),
        raw_families=None,
    ),
}
"""Scripts by the protocol's `prompts`."""


class LEval(Bench):
    """L-Eval: each task's own metric, in percent."""

    name: ClassVar[str] = "leval"

    def required_files(
        self, task: Task, protocol: Protocol, source: Path | None = None
    ) -> list[str]:
        return ["leval/LEval_config.py", "leval/llama2-chat-test.py", f"leval/{task.name}.jsonl"]

    def rows(self, task: Task, request: SampleRequest) -> Iterator[LEvalRow | FaultyRow]:
        return (row for _, row in _numbered_rows(task.name, request))

    def samples(self, task: Task, request: SampleRequest) -> Iterator[Prompt]:
        if not self.has_task(task, request.protocol):
            raise UserError(
                f"{task.full_name}: LaMPE's authors ran only {', '.join(request.protocol.tasks)}; "
                "use another --protocol"
            )
        return islice(_prompts(task.name, request), request.limit)

    def score(self, task: str, row: SampleRecord, protocol: Protocol) -> float:
        return leval_metrics.score(task, _answer(row), row["references"], row["extras"])

    def cell_score(self, task: Task, rows: Sequence[SampleRecord], protocol: Protocol) -> CellScore:
        """Return the task's headline with its standard error, and its other numbers as details.

        The value is rounded as upstream's; see `leval_metrics.total`. LaMPE's authors report
        three bands of length besides.
        """
        samples = _score_parts(task, rows)
        (_, value), *others = leval_metrics.total(samples).items()
        details = dict(others)
        if protocol.length_bands:
            scores = [row["score"] for row in rows]
            details |= leval_metrics.by_length(scores, [row["prompt_tokens"] for row in rows])
        estimates = self.detail_estimates(task, rows, protocol)
        estimate = leval_metrics.estimate(samples).by_document(rows)
        return CellScore(estimate, details, estimates, value)

    def detail_estimates(
        self, task: Task, rows: Sequence[SampleRecord], protocol: Protocol
    ) -> dict[str, Estimate]:
        """Return the mean of each part of the metric, and those of LaMPE's bands of length."""
        estimates = _part_estimates(_score_parts(task, rows), rows)
        if protocol.length_bands:
            lengths = [row["prompt_tokens"] for row in rows]
            estimates |= mean_scores(leval_metrics.length_bands(rows, lengths))
        return estimates

    def estimate(self, task: Task, rows: Sequence[SampleRecord], protocol: Protocol) -> Estimate:
        """Return the mean score, or for summaries the geometric mean of three ROUGE averages."""
        return leval_metrics.estimate(_score_parts(task, rows)).by_document(rows)

    def task_averages(self, scores: Mapping[str, Score], protocol: Protocol) -> dict[str, float]:
        """Return the paper's mean of exams, which leaves out the retrieval of topics."""
        exams = [score.value for task, score in scores.items() if task in EXAMS and task != TOPICS]
        if len(exams) < 2:
            return {}
        return {f"mean of exams, {len(exams)} of {len(EXAMS) - 1}": fmean(exams)}


def _answer(row: SampleRecord) -> str:
    """Return a prediction as upstream stores it: without Llama-2's EOS token, with all others."""
    return str(row["prediction"]).replace("</s>", "")


def _score_parts(task: Task, rows: Sequence[SampleRecord]) -> list[leval_metrics.Parts]:
    return [
        leval_metrics.parts(task.name, _answer(row), row["references"], row["extras"])
        for row in rows
    ]


def _part_estimates(
    samples: Sequence[leval_metrics.Parts], rows: Sequence[SampleRecord]
) -> dict[str, Estimate]:
    """Return the estimate of each part over the samples that have it."""
    values: dict[str, list[float]] = {}
    rows_with_part: dict[str, list[SampleRecord]] = {}
    for sample, row in zip(samples, rows, strict=True):
        for name, value in sample.items():
            values.setdefault(name, []).append(value)
            rows_with_part.setdefault(name, []).append(row)
    return {
        name: Estimate.mean(of_part).by_document(rows_with_part[name])
        for name, of_part in values.items()
    }


@dataclass(frozen=True)
class LEvalWording:
    """Upstream's sentences for a task.

    Attributes:
        system: system prompt.
        exam: template of an exam's question, with `{document}` and `{inst}`.
        open_ended: template of an open-ended question, with the same placeholders.
        word_count: text before and after the number of words that the answer should have.
        real_world: clause that refers to the document, the clause that replaces it in the question
            about the real world, and the end of that question.
    """

    system: str
    exam: str
    open_ended: str
    word_count: tuple[str, str]
    real_world: tuple[str, str, str]


def read_wording(task: str, data_dir: Path | None) -> LEvalWording:
    """Read the sentences for a task from upstream's source files.

    Raises:
        UserError: for files that are missing or not built like upstream's.
    """
    config = assets.path_of("leval/LEval_config.py", data_dir)
    script = assets.path_of("leval/llama2-chat-test.py", data_dir)
    system_prompts = assets.literals(config, "prompt", "get_sys_prompt")
    strings = assets.strings(script, "main")
    try:
        # The first template with {document} is the exam's, the second the open-ended one; the two
        # halves of the sentence about the number of words follow it.
        _, place = (index for index, text in enumerate(strings) if "{document}" in text)
        open_ended, before, after = strings[place : place + 3]
        # The three strings that follow the name of sci_fi in the script.
        old, new, end = strings[strings.index(FICTION) + 1 :][:3]
        *of_tasks, of_exams, of_others = system_prompts
        by_task = dict(zip(SYSTEM_PROMPT_TASKS, of_tasks, strict=True))
    except ValueError:
        raise UserError(
            f"{script}, {config}: the prompts are not where they should be; "
            "are these the pinned files?"
        ) from None
    return LEvalWording(
        system=by_task.get(task, of_exams if task in EXAMS else of_others),
        exam=assets.literal(script, "context", "main"),
        open_ended=open_ended,
        word_count=(before, after),
        real_world=(old, new, end),
    )


def _prompts(task: str, request: SampleRequest) -> Iterator[Prompt]:
    """Yield a prompt for each question of the rows that are scored."""
    wording = read_wording(task, request.data_dir)
    decoding = _decoding(request)
    for first, row in _numbered_rows(task, request):
        if isinstance(row, FaultyRow):
            yield Prompt.of_faulty_row(f"{first:04d}", row)
            continue
        document, cut_tokens = _shortened_document(task, row.input, request)
        document_sha256 = sha256_of_text(row.input)
        pairs = zip(row.instructions, row.outputs, strict=True)
        for number, (question, answer) in enumerate(pairs, first):
            prompt = _fitted_prompt(task, wording, document, question, answer, request)
            follow_up = None
            if task == FICTION:
                follow_up = _real_world_question(wording, question, request, decoding)
            yield Prompt(
                id=f"{number:04d}",
                ids=prompt.ids,
                max_new_tokens=_answer_tokens(request),
                references=[answer],
                extras={"row": number},
                document_sha256=document_sha256,
                cut_tokens=cut_tokens + prompt.cut_tokens,
                skip=prompt.skip,
                decoding=decoding,
                follow_up=follow_up,
            )


def _numbered_rows(task: str, request: SampleRequest) -> Iterator[tuple[int, LEvalRow | FaultyRow]]:
    """Yield the rows that have samples, as many as needed, each with its first question's number.

    Questions of all rows are counted, as in upstream's prediction files: the number of a question
    decides which topic it asks for. A faulty row is one sample.
    """
    path = assets.path_of(f"leval/{task}.jsonl", request.data_dir)
    number = samples = 0
    for row in read_rows(path, LEvalRow.model_validate):
        if samples >= request.limit:
            return
        if isinstance(row, FaultyRow):
            yield number, row
            samples += 1
            number += _questions_of_faulty_row(task, row.value)
            continue
        if row.evaluation in leval_metrics.SCORED:
            yield number, row
            samples += len(row.instructions)
        number += len(row.instructions)


def _questions_of_faulty_row(task: str, value: Any) -> int:
    """Return how many questions a faulty row was to have, so that later ones keep their numbers."""
    if isinstance(value, dict):
        for key in ("instructions", "outputs"):
            if isinstance(value.get(key), list):
                return len(value[key])
    # Nothing says so in a row that is no JSON, but each row of that task asks for every topic.
    return len(leval_metrics.TOPICS) if task == TOPICS else 1


def _answer_tokens(request: SampleRequest) -> int:
    """Return the tokens that an answer may have, which are the same for all tasks."""
    assert request.protocol.max_new_tokens, "every protocol of L-Eval has max_new_tokens"
    return request.protocol.max_new_tokens


def _decoding(request: SampleRequest) -> Decoding:
    raw_families = SCRIPTS[request.protocol.prompts].raw_families
    if raw_families is None or chat_family(request.tokenizer) in raw_families:
        return request.protocol.decoding
    return "text"


def _shortened_document(task: str, text: str, request: SampleRequest) -> tuple[str, int]:
    """Return a document shortened by upstream's count of words, and how many tokens it lost."""
    tokenizer, protocol = request.tokenizer, request.protocol
    if protocol.truncate_as != "words" or protocol.truncation == "none":
        return text, 0
    limit = protocol.prompt_limit(request.length, _answer_tokens(request))
    # Upstream keeps the end of a code file, and the beginning of all other documents.
    kept = shorten_by_words(tokenizer, text, limit, keep_end=task == CODE)
    if kept == text:
        return text, 0
    return kept, len(encode(tokenizer, text)) - len(encode(tokenizer, kept))


def shorten_by_words(
    tokenizer: PreTrainedTokenizerBase, text: str, limit: int, *, keep_end: bool
) -> str:
    """Return the first or last words of a text, few enough for its tokens to fit.

    Args:
        tokenizer: the tokenizer of the model under test.
        text: the text.
        limit: tokens that the text may have, special ones included.
        keep_end: whether the last words are kept instead of the first.
    """
    # A text that is too long keeps as many words as it may have tokens, then 250 fewer each time
    # until its tokens fit (llama2-chat-test.py).
    word_limit = limit
    while len(encode_with_special_tokens(tokenizer, text, is_data=True)) > limit:
        words = text.split(" ")
        # A negative limit drops that many words from the other end, as upstream's slices do.
        text = " ".join(words[-word_limit:] if keep_end else words[:word_limit])
        word_limit -= WORDS_PER_STEP
    return text


def _fitted_prompt(
    task: str,
    wording: LEvalWording,
    document: str,
    question: str,
    answer: str,
    request: SampleRequest,
) -> FittedPrompt:
    tokenizer, protocol = request.tokenizer, request.protocol
    style = _style(task, protocol)
    message = make_message(style, wording, document, question, answer)
    if protocol.truncate_as == "ids":
        return fit_prompt(
            tokenizer,
            protocol,
            message,
            length=request.length,
            answer_tokens=_answer_tokens(request),
        )
    close_turn = style != "plain" or task not in OPEN_TURN_TASKS
    before, after = script_affixes(tokenizer, protocol, message, close_turn=close_turn)
    parts = [before, message.user, after]
    if style == "plain":
        parts = _format_again(parts, document, question)
    # LaMPE's text begins with a BOS token already, and its tokenizer adds another.
    return FittedPrompt(encode_prompt(tokenizer, protocol, *parts))


def _style(task: str, protocol: Protocol) -> Style:
    if task not in EXAMS:
        return "open"
    return "plain" if task in SCRIPTS[protocol.prompts].plain_tasks else "exam"


def make_message(
    style: Style, wording: LEvalWording, document: str, question: str, answer: str
) -> Message:
    """Return the message that asks a question.

    An open-ended question says how many words the reference answer has.
    """
    if style == "plain":
        return Message(f"{document}\n\n{question}", wording.system)
    if style == "exam":
        user = wording.exam.format(document=document, inst=question)
        return Message(user, wording.system, EXAM_ANSWER_PREFIX)
    before, after = wording.word_count
    user = wording.open_ended.format(document=document, inst=question)
    return Message(f"{user}{before}{len(answer.split())}{after}", wording.system)


def script_affixes(
    tokenizer: PreTrainedTokenizerBase, protocol: Protocol, message: Message, *, close_turn: bool
) -> tuple[str, str]:
    """Return the text around the user's part: markers that the script types, or the template's.

    Args:
        tokenizer: the tokenizer of the model under test.
        protocol: says which script is followed.
        message: the message.
        close_turn: whether Llama-2's user turn is closed.
    """
    prefix = message.answer_prefix
    family = chat_family(tokenizer)
    typed = protocol.chat == "upstream" and family in SCRIPTS[protocol.prompts].typed_families
    if typed and family == "llama2":
        before = f"[INST]<<SYS>>\n{message.system}\n<</SYS>>\n\n"
        return before, f"[/INST]{prefix}" if close_turn else ""
    if typed and family == "llama3":
        system, user, assistant = (
            f"<|start_header_id|>{role}<|end_header_id|>"
            for role in ("system", "user", "assistant")
        )
        # The answer prefix itself begins with the newline; LaMPE's script types no other one.
        return (
            f"<|begin_of_text|>{system}\n\n{message.system}<|eot_id|>{user}\n\n",
            f"<|eot_id|>{assistant}{prefix}",
        )
    if protocol.chat == "none":
        return f"{message.system}\n\n", prefix
    return template_affixes(tokenizer, message.system, prefix)


def _format_again(parts: list[str], document: str, question: str) -> list[str]:
    """Return the parts of a prompt with the placeholders in its document filled in.

    They are unchanged if that fails.

    Upstream formats the prompts of these tasks although they hold their document already, so that
    braces in a document count as placeholders.
    """
    try:
        return [part.format(document=document, inst=question) for part in parts]
    except (LookupError, ValueError, AttributeError, TypeError):
        return parts


def _real_world_question(
    wording: LEvalWording, question: str, request: SampleRequest, decoding: Decoding
) -> FollowUp:
    """Return the follow-up that asks for the same statement in the real world.

    It has neither document nor chat markers. The answers are joined as `<first> [fact: <second>]`.
    """
    old, new, end = wording.real_world
    text = question.replace(old, new) + end
    ids = encode_with_special_tokens(request.tokenizer, text, is_data=True)
    prompt = Prompt("fact", ids, _answer_tokens(request), [], decoding=decoding)
    return FollowUp(
        make_prompt=lambda first_answer: prompt,
        join_answers=lambda first, second: f"{first} [fact: {second}]",
    )
