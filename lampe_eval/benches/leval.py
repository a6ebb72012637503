"""L-Eval: twenty tasks on long documents, exams by exact match, questions by token F1, summaries by ROUGE.

A sample is one question on a document. Rows that a language model or people judge (``evaluation`` "LLM", "human") are
left out, since nothing here judges: of the thirteen open-ended tasks the rows marked "f1" and "rouge" are run.

Sources: arXiv 2307.11088 with ``Baselines/llama2-chat-test.py`` and ``LEval_config.py`` of OpenLMLab/LEval at cd34b05,
from which all sentences are read; protocol ``lampe`` is ``LEval/Baselines/llama3-8b-chat_hmt_tpo.py`` of scar-on/LaMPE
at 4e3c91f, which says the same in turns of Llama-3.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from statistics import fmean
from typing import Any, ClassVar, Literal

import numpy as np
from transformers import PreTrainedTokenizerBase

from lampe_eval import assets
from lampe_eval.benches.bench import (
    Bench,
    CellScore,
    FollowUp,
    Prompt,
    SampleRequest,
    SampleRow,
    Score,
    Task,
)
from lampe_eval.errors import UserError
from lampe_eval.prompts.chat_template import Message, chat_family, template_affixes
from lampe_eval.prompts.prompt_fitting import FittedPrompt, fit_prompt
from lampe_eval.prompts.protocol import Protocol
from lampe_eval.prompts.tokenization import encode, encode_with_special_tokens, with_bos
from lampe_eval.scoring import leval_metrics
from lampe_eval.scoring.estimates import Array, Estimate
from lampe_eval.texts.jsonl_rows import read_rows

SCHEMA = {"instructions": list, "outputs": list, "input": str, "evaluation": str}

STEP = 250
"""Words by which a document is shortened further, as often as it is too long in tokens."""

EXAMS = ("coursera", "gsm100", "quality", "topic_retrieval_longchat", "tpo", "sci_fi", "codeU")
SYSTEMS = ("gsm100", "topic_retrieval_longchat", "coursera", "codeU", "sci_fi")
"""Tasks with a system prompt of their own in the order of upstream's branches; one for other exams and one for the rest
come after them."""

TOPICS, FICTION, CODE = "topic_retrieval_longchat", "sci_fi", "codeU"
UNCLOSED = frozenset({"gsm100", CODE})
"""Tasks whose user's turn upstream leaves open, for the model to go on with."""

LAMPE = ("coursera", "gsm100", "quality", "tpo", "sci_fi")
"""The tasks that LaMPE's authors ran."""

CUE = "\nAnswer:"

Style = Literal["plain", "exam", "open"]


class LEval(Bench):
    """Each task's own metric, in percent."""

    name: ClassVar[str] = "leval"

    def has_task(self, task: Task, protocol: Protocol) -> bool:
        return protocol.prompts != "lampe" or task.name in LAMPE

    def required_files(
        self, task: Task, protocol: Protocol, source: Path | None = None
    ) -> list[str]:
        return ["leval/LEval_config.py", "leval/llama2-chat-test.py", f"leval/{task.name}.jsonl"]

    def samples(self, task: Task, draw: SampleRequest) -> Iterator[Prompt]:
        if not self.has_task(task, draw.protocol):
            raise UserError(
                f"{task.full_name}: LaMPE's authors ran only {', '.join(LAMPE)}; use another --protocol"
            )
        return islice(_prompts(task.name, draw), draw.limit)

    def score(self, task: str, row: SampleRow, protocol: Protocol) -> float:
        return leval_metrics.score(task, _answer(row), row["references"], row["extras"])

    def cell_score(self, task: Task, rows: Sequence[SampleRow], protocol: Protocol) -> CellScore:
        """Return the task's headline as upstream rounds it, with its other numbers as details.

        LaMPE's authors report three bands of length beside them.
        """
        samples = _samples(task, rows)
        (_, value), *others = leval_metrics.total(samples).items()
        details = dict(others)
        if protocol.prompts == "lampe":
            details |= leval_metrics.by_length(
                [row["score"] for row in rows], [row["prompt_tokens"] for row in rows]
            )
        return CellScore.from_estimate(_estimate(samples), details, value)

    def estimate(self, task: Task, rows: Sequence[SampleRow], protocol: Protocol) -> Estimate:
        """A mean, but of summaries the geometric mean of three ROUGE averages."""
        return _estimate(_samples(task, rows))

    def task_averages(self, scores: Mapping[str, Score], protocol: Protocol) -> dict[str, float]:
        """The paper's mean of exams, to which the retrieval of topics does not belong."""
        exams = [score.value for task, score in scores.items() if task in EXAMS and task != TOPICS]
        return (
            {f"mean of exams, {len(exams)} of {len(EXAMS) - 1}": fmean(exams)}
            if len(exams) > 1
            else {}
        )


def _answer(row: SampleRow) -> str:
    """A prediction as upstream stores it: of all special tokens only Llama-2's last one is taken away."""
    return str(row["prediction"]).replace("</s>", "")


def _samples(task: Task, rows: Sequence[SampleRow]) -> list[leval_metrics.Parts]:
    return [
        leval_metrics.parts(task.name, _answer(row), row["references"], row["extras"])
        for row in rows
    ]


def _estimate(samples: Sequence[leval_metrics.Parts]) -> Estimate:
    if "rougeL" in samples[0]:
        return Estimate(np.array([list(sample.values()) for sample in samples]), _geometric_mean)
    return Estimate.mean([fmean(sample.values()) for sample in samples])


def _geometric_mean(means: Array) -> Array:
    return np.asarray(np.prod(means, axis=-1) ** (1 / means.shape[-1]))


@dataclass(frozen=True)
class Wording:
    """Upstream's sentences for a task.

    Attributes:
        system: what comes first.
        exam: template of an exam's question, with ``{document}`` and ``{inst}``.
        open: the same of an open-ended one.
        words: before and after the number of words wanted.
        fact: the clause that refers to the document, what takes its place in the question of fact, and its end.
    """

    system: str
    exam: str
    open: str
    words: tuple[str, str]
    fact: tuple[str, str, str]


def wording(task: str, data_dir: Path | None) -> Wording:
    """The sentences for a task, from the official files.

    Raises:
        UserError: for files that are missing or not built like upstream's.
    """
    config = assets.load(assets.find("leval/LEval_config.py"), data_dir)
    script = assets.load(assets.find("leval/llama2-chat-test.py"), data_dir)
    systems = assets.literals(config, "prompt", "get_sys_prompt")
    said = assets.strings(script, "main")
    try:
        _, place = (index for index, text in enumerate(said) if "{document}" in text)
        open_ended, before, after = said[place : place + 3]
        old, new, end = said[said.index(FICTION) + 1 :][:3]
        *own, exam, rest = systems
        system = dict(zip(SYSTEMS, own, strict=True)).get(task, exam if task in EXAMS else rest)
    except ValueError:
        raise UserError(
            f"{script}, {config}: the prompts are not where they should be; are these the pinned files?"
        ) from None
    template = assets.literal(script, "context", "main")
    return Wording(system, template, open_ended, (before, after), (old, new, end))


def _prompts(task: str, draw: SampleRequest) -> Iterator[Prompt]:
    """A prompt for each question of the rows that are scored; all rows are counted, as in upstream's files."""
    words, decoding = wording(task, draw.data_dir), _decoding(draw)
    path = assets.load(assets.find(f"leval/{task}.jsonl"), draw.data_dir)
    number = 0
    for row in read_rows(path, SCHEMA):
        scored = row["evaluation"] in leval_metrics.SCORED
        document, cut = _document(task, row["input"], draw) if scored else ("", 0)
        for question, answer in _questions(row, path):
            if scored:
                prompt = _fitted(task, words, document, question, answer, draw)
                yield Prompt(
                    f"{number:04d}", prompt.ids, _room(draw), [answer], {"row": number}, cut=cut + prompt.cut,
                    skip=prompt.skip, decoding=decoding,
                    follow_up=_fact(words, question, draw, decoding) if task == FICTION else None,
                )  # fmt: skip
            number += 1


def _questions(row: Mapping[str, Any], path: Path) -> Iterator[tuple[str, str]]:
    questions, answers = row["instructions"], row["outputs"]
    if len(questions) != len(answers) or not all(
        isinstance(text, str) for text in questions + answers
    ):
        raise UserError(
            f"{path}: 'instructions' and 'outputs' of a row are not texts in pairs; is the file whole?"
        )
    return zip(questions, answers, strict=True)


def _room(draw: SampleRequest) -> int:
    """Tokens of an answer, whatever the task."""
    assert draw.protocol.max_new_tokens, "the protocols of L-Eval say so"
    return draw.protocol.max_new_tokens


def _decoding(draw: SampleRequest) -> Literal["text", "specials", "squeezed"]:
    """The protocol's; but other models than Llama-2 end with marks that upstream would score as words."""
    upstream = draw.protocol.prompts == "lampe" or chat_family(draw.tokenizer) == "llama2"
    return draw.protocol.decoding if upstream else "text"


def _document(task: str, text: str, draw: SampleRequest) -> tuple[str, int]:
    """A document that fits by upstream's count of words, and how many tokens were taken out of it."""
    if draw.protocol.cut != "words" or draw.protocol.truncation == "none":
        return text, 0
    limit = draw.protocol.limit(draw.length, _room(draw))
    kept = shortened(draw.tokenizer, text, limit, last=task == CODE)
    return kept, 0 if kept == text else len(encode(draw.tokenizer, text)) - len(
        encode(draw.tokenizer, kept)
    )


def shortened(tokenizer: PreTrainedTokenizerBase, text: str, limit: int, *, last: bool) -> str:
    """As many first or last words of a text as it may have tokens, then fewer until its tokens are few enough."""
    room = limit
    while len(encode_with_special_tokens(tokenizer, text)) > limit:
        words = text.split(" ")
        text = " ".join(words[-room:] if last else words[:room])
        room -= STEP
    return text


def _fitted(
    task: str, words: Wording, document: str, question: str, answer: str, draw: SampleRequest
) -> FittedPrompt:
    style = _style(task, draw.protocol)
    said = message(style, words, document, question, answer)
    if draw.protocol.cut == "ids" and draw.protocol.prompts != "lampe":
        return fit_prompt(
            draw.tokenizer, draw.protocol, said, length=draw.length, answer=_room(draw)
        )
    text = wrapped(
        draw.tokenizer, draw.protocol, said, closed=style != "plain" or task not in UNCLOSED
    )
    if style == "plain":
        text = _formatted(text, document, question)
    added = draw.protocol.bos == "added"
    return FittedPrompt(
        encode_with_special_tokens(draw.tokenizer, text)
        if added
        else with_bos(draw.tokenizer, encode(draw.tokenizer, text))
    )


def _style(task: str, protocol: Protocol) -> Style:
    """How a task asks. LaMPE asks for the answer to a sum as in any other exam."""
    if task not in EXAMS:
        return "open"
    return "plain" if task in (*UNCLOSED, TOPICS) and protocol.prompts != "lampe" else "exam"


def message(style: Style, words: Wording, document: str, question: str, answer: str) -> Message:
    """What is said: document and question alone, an exam's question, or one that says how long its answer is."""
    match style:
        case "plain":
            return Message(f"{document}\n\n{question}", words.system)
        case "exam":
            return Message(words.exam.format(document=document, inst=question), words.system, CUE)
    before, after = words.words
    length = f"{before}{len(answer.split())}{after}"
    return Message(words.open.format(document=document, inst=question) + length, words.system)


def wrapped(
    tokenizer: PreTrainedTokenizerBase, protocol: Protocol, said: Message, *, closed: bool
) -> str:
    """A message in turns: Llama-2's and, under protocol lampe, Llama-3's as upstream types them, else the template's.

    Args:
        closed: whether Llama-2's turn of the user ends.
    """
    kind = chat_family(tokenizer) if protocol.chat == "upstream" else "other"
    if kind == "llama2":
        text = f"[INST]<<SYS>>\n{said.system}\n<</SYS>>\n\n{said.user}"
        return f"{text}[/INST]{said.lead}" if closed else text
    if kind == "llama3" and protocol.prompts == "lampe":
        system, user, assistant = (
            f"<|start_header_id|>{name}<|end_header_id|>"
            for name in ("system", "user", "assistant")
        )
        turns = (
            f"<|begin_of_text|>{system}\n\n{said.system}<|eot_id|>{user}\n\n{said.user}<|eot_id|>"
        )
        return f"{turns}{assistant}{said.lead}"
    before, after = (
        (f"{said.system}\n\n", "")
        if protocol.chat == "none"
        else template_affixes(tokenizer, said.system)
    )
    return f"{before}{said.user}{after}{said.lead.lstrip() if after else said.lead}"


def _formatted(text: str, document: str, question: str) -> str:
    """A text that holds its document already, formatted all the same as upstream does; left alone where that fails."""
    try:
        return text.format(document=document, inst=question)
    except (LookupError, ValueError, AttributeError, TypeError):
        return text


def _fact(
    words: Wording,
    question: str,
    draw: SampleRequest,
    decoding: Literal["text", "specials", "squeezed"],
) -> FollowUp:
    """The same statement asked of the real world, without document and turns."""
    old, new, end = words.fact
    ids = encode_with_special_tokens(draw.tokenizer, question.replace(old, new) + end)
    prompt = Prompt("fact", ids, _room(draw), [], decoding=decoding)
    return FollowUp(lambda _: prompt, lambda first, second: f"{first} [fact: {second}]")
