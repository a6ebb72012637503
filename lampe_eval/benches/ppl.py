"""Perplexity of text, by one of three protocols that the literature uses and mixes up.

| protocol | windows | which tokens count | perplexity |
|---|---|---|---|
| exact | one after another through each text | all | exp(losses / tokens) |
| stride | every ``stride`` tokens of each text | new ones | exp(mean of window means) |
| dense | every ``stride`` tokens of one stream | all | 2.71828 ** (mean of window means) |

As published: LongLoRA (arXiv 2309.12307) and ChunkLlama (arXiv 2402.17463) report "dense" with stride 256 on PG-19,
LongLoRA also on a sample of 128 texts of Proof-pile. YaRN (arXiv 2309.00071) reports "stride" with 256 on the first
texts of Proof-pile that have a least number of tokens; here all count that fill a window. ``--text`` has the corpora by
name: pg19-validation, pg19-test, proof-pile. "exact" is nobody's script: it is what the word means. LaMPE's repository
has no perplexity at all.

"stride" is YaRN's script: a BOS before each window, and only what the window before did not reach counts. "dense" is
LongLoRA's: all texts in one stream, the last start dropped. The limit counts windows from the beginning of the text.
The constant of "dense" is the script's own, five digits of e; it moves the sixth digit of the result.

Errors are over documents where there are several. Windows of a single one count as independent, unless they overlap:
those of "dense" are drawn in blocks twice as long as they overlap, which makes its error 10 % too small for losses that
are independent (neighbouring blocks still share a window), and there is none for less than two blocks.
"""

from bisect import bisect_right
from collections import deque
from collections.abc import Iterator, Sequence
from itertools import count, islice
from typing import ClassVar, Literal

import numpy as np

from lampe_eval.benches.bench import Bench, Passage, SampleRequest, SampleRow, Task
from lampe_eval.cards import TaskCard
from lampe_eval.errors import UserError
from lampe_eval.prompts.protocol import Protocol
from lampe_eval.prompts.tokenization import bos_token, encode
from lampe_eval.scoring.estimates import Array, Estimate
from lampe_eval.texts.documents import documents

SCRIPT_E = 2.71828


class PplCard(TaskCard):
    """A perplexity task: the protocol, and the step between windows in tokens where it has one."""

    protocol: Literal["exact", "stride", "dense"]
    stride: int = 256


class Ppl(Bench):
    """Perplexity; lower is better."""

    name: ClassVar[str] = "ppl"
    card: ClassVar[type[TaskCard]] = PplCard
    source_option: ClassVar[str | None] = "text"
    higher_is_better: ClassVar[bool] = False

    def samples(self, task: Task, draw: SampleRequest) -> Iterator[Passage]:
        if draw.length < 2:
            raise UserError(f"ppl at length {draw.length}: a window needs at least 2 tokens")
        texts = documents(
            draw.source, seed=draw.seed, words=2 * draw.length, data_dir=draw.data_dir
        )
        windows = _windows(
            task.card,
            draw.length,
            (encode(draw.tokenizer, text) for text in texts),
            bos_token(draw.tokenizer),
        )
        passages = [
            Passage(f"{draw.length}/{n}", ids, scored, {"document": document})
            for n, (ids, scored, document) in enumerate(islice(windows, draw.limit))
        ]
        if not passages:
            raise UserError(
                f"ppl at length {draw.length}: {draw.source} has no text that long; use shorter --lengths"
            )
        yield from passages

    def estimate(self, task: Task, rows: Sequence[SampleRow], protocol: Protocol) -> Estimate:
        parts = np.array([(row["loss"], row["scored_tokens"]) for row in rows], dtype=float)
        groups, unit = _groups(task.card, rows)
        match task.card.protocol:
            case "exact":
                return Estimate(parts, _of_all_tokens, groups, unit)
            case "stride":
                return Estimate(parts[:, :1] / parts[:, 1:], _of_windows, groups, unit)
            case _:
                return Estimate(parts[:, :1] / parts[:, 1:], _of_windows_by_script, groups, unit)


def _groups(task: PplCard, rows: Sequence[SampleRow]) -> tuple[list[int], str]:
    """Which windows are drawn together, and what they make; rows of older runs do not tell their document."""
    documents = [row.get("meta", {}).get("document", 0) for row in rows]
    several = len(set(documents)) > 1
    if task.protocol != "dense":
        return (documents, "document") if several else ([], "window")
    blocks = [_place(row) // (2 * -(-row["length"] // task.stride)) for row in rows]
    return (
        (documents, "document")
        if several and len(set(documents)) <= len(set(blocks))
        else (blocks, "block")
    )


def _place(row: SampleRow) -> int:
    """Which window of its text a sample is."""
    return int(row["id"].rpartition("/")[2])


def _of_all_tokens(means: Array) -> Array:
    return np.asarray(np.exp(means[..., 0] / means[..., 1]))


def _of_windows(means: Array) -> Array:
    return np.asarray(np.exp(means[..., 0]))


def _of_windows_by_script(means: Array) -> Array:
    return np.asarray(SCRIPT_E ** means[..., 0])


Window = tuple[list[int], int, int]
"""Token ids, how many of the last ones count, and the number of the document that the first is of."""


def _windows(
    task: PplCard, length: int, texts: Iterator[list[int]], first: int | None
) -> Iterator[Window]:
    match task.protocol:
        case "exact":
            return (
                (*window, n)
                for n, text in enumerate(texts)
                for window in _exact(text, length, first)
            )
        case "stride":
            return (
                (*window, n)
                for n, text in enumerate(texts)
                for window in _stride(text, length, task.stride, first)
            )
        case "dense":
            return _dense(texts, length, task.stride)


def _exact(text: list[int], length: int, first: int | None) -> Iterator[tuple[list[int], int]]:
    start = [] if first is None else [first]
    body = length - len(start)
    for begin in range(0, len(text) - body + 1, body):
        yield start + text[begin : begin + body], length - 1


def _stride(
    text: list[int], length: int, stride: int, first: int | None
) -> Iterator[tuple[list[int], int]]:
    """A tokenizer without BOS loses the target of a text's very first token, and nothing else."""
    start = [] if first is None else [first]
    reached = 0
    if len(text) < length - 1:
        return
    for begin in range(0, len(text), stride):
        end = min(begin + length - 1, len(text))
        ids = start + text[begin:end]
        yield ids, min(end - reached, len(ids) - 1)
        reached = end
        if end == len(text):
            return


def _dense(texts: Iterator[list[int]], length: int, stride: int) -> Iterator[Window]:
    """Windows while at least one more token follows, which is what dropping the last start means."""
    ends: list[int] = []
    stream = _joined(texts, ends)
    held = list(islice(stream, length + 1))
    for begin in count(step=stride):
        if len(held) <= length:
            return
        yield held[:length], length - 1, bisect_right(ends, begin)
        deque(islice(stream, max(0, stride - len(held))), maxlen=0)
        held = held[stride:]
        held += islice(stream, length + 1 - len(held))


def _joined(texts: Iterator[list[int]], ends: list[int]) -> Iterator[int]:
    """All texts as one stream; notes where each that was begun ends."""
    for text in texts:
        ends.append((ends[-1] if ends else 0) + len(text))
        yield from text
