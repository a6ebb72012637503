"""Engine that answers prompts and reads passages on one loaded model, in this process."""

import math
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import (
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    StoppingCriteria,
    StoppingCriteriaList,
)

import lampe
from lampe_eval.benches.bench import Passage, Prompt, ScoredText
from lampe_eval.engine.document_cache import DocumentCache, refusal_of_sharing
from lampe_eval.errors import report_warning

PASSAGE_CHUNK = 1024
"""Tokens of a passage that are read at a time, which bounds the logits in memory."""
LOW_MEMORY_PASSAGE_CHUNK = 256
"""Tokens of a passage that are read at a time in low-memory mode."""

PROMPT_CHUNK = 32_768
"""Tokens of a prompt that are read at a time.

What a longer prompt takes in memory beside its cache does not grow with its length: at most 8 GB
for Llama 3's 8B (docs/performance.md).
"""
LOW_MEMORY_PROMPT_CHUNK = 2048
"""Tokens of a prompt that are read at a time in low-memory mode."""


@dataclass(frozen=True)
class GeneratedAnswer:
    """Answer of a model to a prompt.

    Attributes:
        text: the answer's text.
        tokens: generated tokens, the stop token included.
        stop_reason: "eos" if a stop token ended the answer, "length" if `max_new_tokens` did.
        has_nan: whether a logit on the way was not a number.
        prefill_seconds: time of the whole batch until its first token.
        decode_seconds: time of the whole batch for all further tokens.
    """

    text: str
    tokens: int
    stop_reason: str
    has_nan: bool = False
    prefill_seconds: float = 0.0
    decode_seconds: float = 0.0


class LocalEngine:
    """Loaded model that answers prompts and reads passages, patched with one method at a time.

    Attributes:
        model: the model; its recommendations for generation are removed.
        tokenizer: the model's tokenizer.
        low_memory_from: tokens of the shortest sample that ran out of memory alone; else infinite.
    """

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.low_memory_from = math.inf
        self._stop_tokens = stop_tokens(model.generation_config, tokenizer)
        # A checkpoint may recommend sampling or penalties; scores must not depend on them.
        self.model.generation_config = GenerationConfig()  # type: ignore[no-untyped-call]
        self._handle: lampe.Handle | None = None
        self._document: DocumentCache | None = None
        self._refusals: set[str] = set()

    @property
    def device(self) -> torch.device:
        """Return the device that prompts are put on."""
        return self.model.device

    @property
    def backend(self) -> str:
        """Return the attention backends that ran under the current method, and the device type."""
        assert self._handle is not None
        return f"{'+'.join(self._handle.backends)} on {self.device.type}"

    @contextmanager
    def patched(self, method: lampe.Method, window: int, attention: str) -> Iterator[lampe.Handle]:
        """Patch the model with a method for the calls within the context.

        Args:
            method: the method to patch in.
            window: tokens of the model's pretraining.
            attention: name of an attention backend, or "auto".
        """
        self._document = None
        with lampe.patch(self.model, method, window=window, attention=attention) as self._handle:
            yield self._handle

    @torch.no_grad()
    def answer(
        self, prompts: Sequence[Prompt], *, low_memory: bool = False
    ) -> list[GeneratedAnswer]:
        """Generate greedy answers to prompts as one batch.

        What a prompt shares with other questions about its document is read once, as long as no
        other document comes between.

        Args:
            prompts: prompts with the same `max_new_tokens`, `stop_token_ids`, `stop_strings`,
                `decoding` and `reserved_tokens`.
            low_memory: whether to read a prompt in small chunks; a batch is always read whole.
        """
        ids, mask = self._padded([prompt.ids for prompt in prompts])
        chunk = LOW_MEMORY_PROMPT_CHUNK if low_memory else PROMPT_CHUNK
        watch = _LogitsWatch()
        stopping = []
        if prompts[0].stop_strings:
            stop_strings = StopStrings(self.tokenizer, prompts[0].stop_strings)
            stopping.append(_StopStringCriterion(stop_strings, ids.shape[1]))
        started = time.perf_counter()
        # Taken away meanwhile, so that an error frees it: memory may be short.
        document, self._document = self._continued_document(prompts[0]), None
        with self._stated_prompt(ids.shape[1], prompts[0].reserved_tokens):
            cache = None
            if prompts[0].shared_tokens and not low_memory:
                document = document or self._read_document(prompts[0], ids, chunk)
                cache = document and document.cropped()
            if cache is None:
                # transformers' own cache is copied for each token, and rotated keys would be a
                # second copy.
                cache = lampe.growing_cache(self.model)
            if len(ids) == 1:
                cache = self._prefilled(ids, chunk, cache)
            output = self.model.generate(  # type: ignore[operator]
                ids,
                attention_mask=mask,
                past_key_values=cache,
                generation_config=self._greedy(prompts[0]),
                logits_processor=LogitsProcessorList([watch]),
                stopping_criteria=StoppingCriteriaList(stopping),
            )
        self._document = document
        # Copying to Python lists waits for the device, so the clock is read after it.
        generated: list[list[int]] = output[:, ids.shape[1] :].tolist()
        decode_seconds = time.perf_counter() - watch.first_token_at
        prefill_seconds = watch.first_token_at - started
        answers = []
        for prompt, tokens, has_nan in zip(prompts, generated, watch.has_nan.tolist(), strict=True):
            stops = {*self._stop_tokens, *prompt.stop_token_ids}
            text, count, stop_reason = decode_answer(self.tokenizer, prompt, stops, tokens)
            answers.append(
                GeneratedAnswer(text, count, stop_reason, has_nan, prefill_seconds, decode_seconds)
            )
        return answers

    @torch.no_grad()
    def loss(self, passage: Passage, *, low_memory: bool = False) -> float:
        """Return the sum of the losses (natural logarithm) of a passage's scored tokens.

        Args:
            passage: tokens that are read in chunks through the cache.
            low_memory: whether to read smaller chunks.
        """
        chunk = LOW_MEMORY_PASSAGE_CHUNK if low_memory else PASSAGE_CHUNK
        text = ScoredText(passage.ids, passage.scored_tokens)
        total = 0.0
        for logits, targets in self._scored(text, len(passage.ids), chunk):
            losses = torch.nn.functional.cross_entropy(logits, targets, reduction="none")
            # Summed in float64: thousands of float32 terms would lose digits.
            total += float(losses.double().sum())
        return total

    @torch.no_grad()
    def loglikelihoods(
        self, texts: Sequence[ScoredText], *, low_memory: bool = False
    ) -> list[tuple[float, bool]]:
        """Return the log-likelihood of each text's scored tokens, and whether they are greedy.

        Tokens are greedy where each of them is the most likely one.

        Args:
            texts: texts that are read one after another, each as a prompt.
            low_memory: whether to read smaller chunks.
        """
        chunk = LOW_MEMORY_PASSAGE_CHUNK if low_memory else PASSAGE_CHUNK
        # Choices of one token have all that the model reads in common.
        last_logits: dict[tuple[int, ...], Tensor] = {}
        found: list[tuple[float, bool]] = []
        for text in texts:
            read = tuple(text.ids[:-1])
            if text.scored_tokens == 1 and read in last_logits:
                target = torch.tensor([text.ids[-1]], device=self.device)
                parts: Iterable[tuple[Tensor, Tensor]] = [(last_logits[read], target)]
            else:
                # The last token is not read, and the plan does not count it.
                parts = self._scored(text, len(read), chunk)
            total, is_greedy = 0.0, True
            for logits, targets in parts:
                losses = torch.nn.functional.cross_entropy(logits, targets, reduction="none")
                total -= float(losses.double().sum())
                is_greedy = is_greedy and bool((logits.argmax(-1) == targets).all())
                last_logits[read] = logits[-1:]
            found.append((total, is_greedy))
        return found

    def _scored(
        self, text: ScoredText, planned: int, chunk: int
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Read a text in chunks; yield logits ``[n, V]`` and the scored tokens ``[n]`` after them.

        Args:
            text: the text.
            planned: tokens that the method plans for.
            chunk: tokens that are read at a time.
        """
        assert self._handle is not None
        self._document = None
        ids, _ = self._padded([text.ids])
        first_scored = ids.shape[1] - text.scored_tokens
        with self._handle.prompt(planned):
            cache = lampe.growing_cache(self.model)
            for begin, end, output in self._read(ids[:, :-1], chunk, cache):
                # Logits at position i predict token i + 1.
                skip = max(0, first_scored - 1 - begin)
                if skip < end - begin:
                    yield output.logits[0, skip:].float(), ids[0, begin + 1 + skip : end + 1]

    def _stated_prompt(self, length: int, reserved_tokens: int) -> AbstractContextManager[None]:
        """State to the patch, if there is one, where the prompt ends and what its plan counts."""
        if self._handle is None:
            return nullcontext()
        return self._handle.prompt(length, reserved_tokens)

    def _continued_document(self, prompt: Prompt) -> DocumentCache | None:
        """Return the document that was read last, if a prompt goes on with it."""
        document = self._document
        return document if document is not None and document.goes_on_with(prompt) else None

    def _read_document(self, prompt: Prompt, ids: Tensor, chunk: int) -> DocumentCache | None:
        """Read what a prompt ``ids[1, L]`` shares with other questions about its document.

        Returns:
            None, with a warning the first time, where it cannot be shared.
        """
        cache = lampe.growing_cache(self.model, rotate_in_place=False)
        if refusal := refusal_of_sharing(cache, self._handle, prompt.plan_tokens):
            if refusal not in self._refusals:
                report_warning(f"documents are read again for each question: {refusal}")
            self._refusals.add(refusal)
            return None
        return DocumentCache(prompt, self._filled(ids[:, : prompt.shared_tokens], chunk, cache))

    def _prefilled(self, ids: Tensor, chunk: int, cache: Any) -> Any:
        """Read a long prompt ``ids[1, L]`` in chunks, but for its last token; return its cache.

        What is left to read of a short one is left to generation.
        """
        read = 0 if cache is None else cache.get_seq_length()
        return self._filled(ids[:, :-1], chunk, cache) if ids.shape[1] - read > chunk else cache

    def _filled(self, ids: Tensor, chunk: int, cache: Any) -> Any:
        """Read tokens ``ids[1, L]`` in chunks and return their cache."""
        # Logits of a whole chunk can take more memory than the model; one token's are enough.
        supported = self.model._supports_logits_to_keep()  # type: ignore[operator]
        options = {"logits_to_keep": 1} if supported else {}
        for _, _, output in self._read(ids, chunk, cache, **options):
            cache = output.past_key_values
        return cache

    def _read(
        self, ids: Tensor, chunk: int, cache: Any, **options: Any
    ) -> Iterator[tuple[int, int, Any]]:
        """Read the tokens of ``ids[1, L]`` that a cache lacks; yield each chunk.

        Yields:
            Begin, end and output of a chunk.
        """
        start = 0 if cache is None else cache.get_seq_length()
        for begin in range(start, ids.shape[1], chunk):
            end = min(begin + chunk, ids.shape[1])
            output = self.model(ids[:, begin:end], past_key_values=cache, use_cache=True, **options)
            cache = output.past_key_values
            yield begin, end, output

    def _padded(self, rows: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
        """Return token ids ``[B, L]``, padded on the left, and their mask."""
        # On the left, so that all answers begin in the same column.
        longest = max(len(row) for row in rows)
        padding = [longest - len(row) for row in rows]
        # Any id will do, because the mask hides it.
        padded = [[0] * pad + list(row) for pad, row in zip(padding, rows, strict=True)]
        ids = torch.tensor(padded, device=self.device)
        starts = torch.tensor(padding, device=self.device)[:, None]
        mask = torch.arange(longest, device=self.device) >= starts
        return ids, mask.long()

    def _greedy(self, prompt: Prompt) -> GenerationConfig:
        """Return the settings of generation for a prompt and those that share its batch."""
        stops = [*self._stop_tokens, *prompt.stop_token_ids]
        pad = self.tokenizer.pad_token_id
        # transformers would take the same token, with a warning for every prompt.
        if pad is None and stops:
            pad = stops[0]
        return GenerationConfig(  # type: ignore[no-untyped-call]
            do_sample=False,
            max_new_tokens=prompt.max_new_tokens,
            # LongBench's rule for samsum: the first newline ends the answer, but not before its
            # first token.
            min_new_tokens=1 if prompt.stop_token_ids else None,
            eos_token_id=stops or None,
            pad_token_id=pad,
        )


def decode_answer(
    tokenizer: PreTrainedTokenizerBase, prompt: Prompt, stops: Collection[int], tokens: list[int]
) -> tuple[str, int, str]:
    """Return the text of an answer, its number of tokens and its stop reason.

    Args:
        tokenizer: the model's tokenizer.
        prompt: the prompt.
        stops: tokens of which the first ends the answer.
        tokens: generated tokens, those behind a stop token included.
    """
    stop_reason = "length"
    # In a batch, a row that stops early is padded behind its stop token.
    for index, token in enumerate(tokens):
        if token in stops:
            tokens = tokens[: index + 1]
            stop_reason = "eos"
            break
    skip_special_tokens = prompt.decoding == "text"
    text = str(tokenizer.decode(tokens, skip_special_tokens=skip_special_tokens))
    for stop in prompt.stop_strings:
        text = text.partition(stop)[0]
    if prompt.decoding == "single_line":
        text = " ".join(text.split())
    return text, len(tokens), stop_reason


class _LogitsWatch(LogitsProcessor):
    """Logits processor that watches the logits of every token and changes none.

    Attributes:
        first_token_at: clock when the logits of the first token were computed, in seconds.
        has_nan: ``[B]``, whether any logit of a row was not a number.
    """

    first_token_at: float
    has_nan: Tensor

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        has_nan = scores.isnan().any(-1)
        if hasattr(self, "has_nan"):
            self.has_nan |= has_nan
        else:
            has_nan.any().item()  # waits for the device, so that the clock tells the prefill's end
            self.first_token_at = time.perf_counter()
            self.has_nan = has_nan
        return scores


class StopStrings:
    """Texts that end an answer, wherever its tokens begin.

    Args:
        tokenizer: decodes answers.
        texts: the stop strings.

    Attributes:
        tokens: latest tokens of an answer, at most, in which a text that ends it begins.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> None:
        self._tokenizer = tokenizer
        self._texts = texts
        # A token has a byte at least; one more, since decoding may drop a space before the first.
        self.tokens = 1 + max((len(text.encode()) for text in texts), default=0)

    def end(self, answer: Sequence[int]) -> bool:
        """Return whether the last token of an answer completes one of the texts."""
        if not self._texts:
            return False
        end = str(self._tokenizer.decode(list(answer[-self.tokens :])))
        return any(text in end for text in self._texts)


class _StopStringCriterion(StoppingCriteria):
    """Criterion that ends a row's answer once one of the stop strings is complete.

    Args:
        stop_strings: the stop strings.
        prompt_columns: columns of the batch before the answers.
    """

    def __init__(self, stop_strings: StopStrings, prompt_columns: int) -> None:
        self._stop_strings = stop_strings
        self._prompt_columns = prompt_columns

    def __call__(self, input_ids: Tensor, scores: Any, **_: Any) -> Tensor:
        # No more than that, for it is copied from the device after each token.
        answers = input_ids[:, self._prompt_columns :][:, -self._stop_strings.tokens :].tolist()
        return torch.tensor(list(map(self._stop_strings.end, answers)), device=input_ids.device)


def stop_tokens(
    generation_config: GenerationConfig | None, tokenizer: PreTrainedTokenizerBase
) -> list[int]:
    """Return the checkpoint's stop tokens."""
    # The only recommendation for generation that is followed: a model never ends without them.
    stops = getattr(generation_config, "eos_token_id", None)
    if stops is None:
        stops = tokenizer.eos_token_id
    if stops is None:
        return []
    return stops if isinstance(stops, list) else [int(stops)]
