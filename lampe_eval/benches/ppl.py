"""Perplexity of text, by one of three ways of cutting it into windows.

Papers use all three and rarely say which:

| windows | where they lie | which tokens count | perplexity |
|---|---|---|---|
| exact | one after another through each text | all | exp(sum of losses / number of tokens) |
| stride | every `stride` tokens of each text | new ones | exp(mean of window means) |
| dense | every `stride` tokens of one stream | all | 2.71828 ** (mean of window means) |

Sources: LongLoRA (arXiv 2309.12307) and ChunkLlama (arXiv 2402.17463) report "dense" with stride
256 on PG-19, LongLoRA also on a sample of 128 texts of Proof-pile. YaRN (arXiv 2309.00071) reports
"stride" with 256 on the first texts of Proof-pile that have a minimum number of tokens; here every
text counts that fills a window. "exact" is no published script but the definition of perplexity.
LaMPE's repository has no perplexity script. `--text` takes the corpora by name: pg19-validation,
pg19-test, proof-pile.

"stride" follows YaRN's script: each window begins with a BOS token, and only tokens count that the
previous window did not reach. "dense" follows LongLoRA's script: all texts form one stream, and
the last window is dropped. A limit on samples counts windows from the beginning of the text.

Standard errors are computed over documents if there are several. The windows of a single document
count as independent, unless they overlap: "dense" windows are resampled in blocks twice as long as
the overlap. Neighbouring blocks still share a window, so the error is 10 % too small for losses
that are independent; and with fewer than two blocks there is no error. Intervals are Student's t
on the logarithm of the perplexity, over the same units.
"""

from bisect import bisect_right
from collections import deque
from collections.abc import Iterator, Sequence
from itertools import count, islice
from typing import ClassVar, Literal

import numpy as np

from lampe_eval.benches.bench import Bench, Passage, SampleRequest, Task
from lampe_eval.cards import TaskCard
from lampe_eval.errors import UserError
from lampe_eval.prompts.protocol import Protocol
from lampe_eval.prompts.tokenization import encode_start, first_tokens
from lampe_eval.records import SampleRecord
from lampe_eval.scoring.estimates import Array, Estimate, perplexity
from lampe_eval.texts.documents import documents

# LongLoRA's script has five digits of e, which changes the sixth digit of a perplexity.
SCRIPT_E = 2.71828


class PplCard(TaskCard):
    """Card of a perplexity task.

    Attributes:
        windows: how the text is cut into windows; see the table above.
        stride: tokens from the start of a window to the start of the next; "exact" has none.
    """

    windows: Literal["exact", "stride", "dense"]
    stride: int = 256


class Ppl(Bench):
    """Perplexity; lower is better."""

    name: ClassVar[str] = "ppl"
    card: ClassVar[type[TaskCard]] = PplCard
    source_option: ClassVar[str | None] = "text"
    higher_is_better: ClassVar[bool] = False

    def samples(self, task: Task, request: SampleRequest) -> Iterator[Passage]:
        length = request.length
        if length < 2:
            raise UserError(f"ppl at length {length}: a window needs at least 2 tokens")
        texts = documents(
            request.source, seed=request.seed, words=2 * length, data_dir=request.data_dir
        )
        # The last window that is asked for ends before as many tokens of any one text.
        step = length if task.card.windows == "exact" else task.card.stride
        tokens = request.limit * step + length + 1
        encoded = (encode_start(request.tokenizer, text, tokens) for text in texts)
        windows = _windows(task.card, length, encoded, first_tokens(request.tokenizer))
        passages = [
            Passage(f"{length}/{number}", ids, scored_tokens, {"document": document})
            for number, (ids, scored_tokens, document) in enumerate(islice(windows, request.limit))
        ]
        if not passages:
            raise UserError(
                f"ppl at length {length}: {request.source} has no text that long; "
                "use shorter --lengths"
            )
        yield from passages

    def estimate(self, task: Task, rows: Sequence[SampleRecord], protocol: Protocol) -> Estimate:
        """Return the perplexity as a function of the mean losses of windows."""
        parts = np.array([(row["loss"], row["scored_tokens"]) for row in rows], dtype=float)
        groups, unit = _resampling_groups(task.card, rows)
        if task.card.windows == "exact":
            return Estimate(parts, perplexity, groups, unit, "log")
        mean_losses = parts[:, :1] / parts[:, 1:]
        if task.card.windows == "stride":
            return Estimate(mean_losses, _exp_of_window_mean, groups, unit, "log")
        return Estimate(mean_losses, _script_exp_of_window_mean, groups, unit, "log")


def _resampling_groups(card: PplCard, rows: Sequence[SampleRecord]) -> tuple[list[int], str]:
    """Return the group of each window that is resampled as one unit, and the unit's name.

    An empty list means that every window is a unit of its own.
    """
    # Rows of older runs do not say which document they are from.
    documents = [int(row.get("meta", {}).get("document", 0)) for row in rows]
    document_count = len(set(documents))
    if card.windows != "dense":
        # Windows of a single document count as independent, and the table says so.
        return (documents, "document") if document_count > 1 else ([], "window")
    # ceil(length / stride) windows begin within one window; a block has twice as many.
    blocks = [_window_number(row) // (2 * -(-row["length"] // card.stride)) for row in rows]
    if 1 < document_count <= len(set(blocks)):
        return documents, "document"
    return blocks, "block"


def _window_number(row: SampleRecord) -> int:
    return int(row["id"].rpartition("/")[2])


def _exp_of_window_mean(means: Array) -> Array:
    return np.asarray(np.exp(means[..., 0]))


def _script_exp_of_window_mean(means: Array) -> Array:
    return np.asarray(SCRIPT_E ** means[..., 0])


Window = tuple[list[int], int, int]
"""Token ids, how many of the last ones count, and the number of the document of the first one."""


def _windows(
    card: PplCard, length: int, texts: Iterator[list[int]], start: list[int]
) -> Iterator[Window]:
    if card.windows == "dense":
        yield from _dense(texts, length, card.stride)
        return
    for document, text in enumerate(texts):
        if card.windows == "exact":
            windows = _exact(text, length, start)
        else:
            windows = _stride(text, length, card.stride, start)
        for ids, scored_tokens in windows:
            yield ids, scored_tokens, document


def _exact(text: list[int], length: int, start: list[int]) -> Iterator[tuple[list[int], int]]:
    """Yield windows that follow each other; an incomplete last one is left out."""
    step = length - len(start)
    for begin in range(0, len(text) - step + 1, step):
        yield start + text[begin : begin + step], length - max(1, len(start))


def _stride(
    text: list[int], length: int, stride: int, start: list[int]
) -> Iterator[tuple[list[int], int]]:
    """Yield overlapping windows of which only the new tokens count."""
    # Texts that do not fill a window are left out; YaRN's script has a minimum length instead.
    unscored = max(1, len(start))
    if len(text) < length - unscored:
        return
    reached = 0
    for begin in range(0, len(text), stride):
        end = min(begin + length - unscored, len(text))
        ids = start + text[begin:end]
        # Without a BOS token nothing predicts the first token of the text, so it does not count.
        yield ids, min(end - reached, len(ids) - unscored)
        reached = end
        if end == len(text):
            return


def _dense(texts: Iterator[list[int]], length: int, stride: int) -> Iterator[Window]:
    """Yield overlapping windows of one stream of all texts."""
    text_ends: list[int] = []
    stream = _concatenate(texts, text_ends)
    buffer = list(islice(stream, length + 1))
    for begin in count(step=stride):
        # A window is yielded only if at least one more token follows: that is what LongLoRA's
        # script does by dropping the last start.
        if len(buffer) <= length:
            return
        yield buffer[:length], length - 1, bisect_right(text_ends, begin)
        # A stride longer than the buffer skips tokens of the stream.
        deque(islice(stream, max(0, stride - len(buffer))), maxlen=0)
        buffer = buffer[stride:]
        buffer += islice(stream, length + 1 - len(buffer))


def _concatenate(texts: Iterator[list[int]], text_ends: list[int]) -> Iterator[int]:
    """Yield the tokens of all texts; append the end of each text to `text_ends` as it begins."""
    end = 0
    for text in texts:
        end += len(text)
        text_ends.append(end)
        yield from text
