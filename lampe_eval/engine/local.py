"""Runs samples on one loaded model, in this process."""

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
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
)

import lampe
from lampe_eval.benches.bench import Passage, Prompt

CHUNK, LEAN_CHUNK = 1024, 256
"""Tokens of a passage at a time, which bounds the logits held; and where memory is short."""

WHOLE, READ = 32_768, 2048
"""Tokens of a prompt that are read in one piece; and at a time where memory is short, enough for its attention.

A longer prompt is read in pieces of as many, so that what is held beside its cache does not grow with it: at most 8 GB
for Llama 3's 8B (docs/performance.md).
"""


@dataclass(frozen=True)
class Answer:
    """What a model says to a prompt.

    Attributes:
        tokens: of the answer, the one that ended it among them.
        stop: whether it ended by itself ("eos") or for want of room ("length").
        nan: whether a logit on the way was not a number.
        prefill: seconds until the first token; of the whole batch.
        decode: seconds of all others; of the whole batch.
    """

    text: str
    tokens: int
    stop: str
    nan: bool = False
    prefill: float = 0.0
    decode: float = 0.0


class LocalEngine:
    """A model that answers prompts and reads passages, under one method at a time.

    Attributes:
        short_from: tokens of the shortest sample that memory was short for, alone and in one piece.
    """

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
        self.model, self.tokenizer, self.short_from = model, tokenizer, math.inf
        self._stops = _stops(model, tokenizer)
        self.model.generation_config = GenerationConfig()  # type: ignore[no-untyped-call]
        self._handle: lampe.Handle | None = None

    @property
    def device(self) -> torch.device:
        """Where prompts go."""
        return self.model.device

    @property
    def backend(self) -> str:
        """What attends, and where, under the method at hand."""
        assert self._handle is not None
        return f"{'+'.join(self._handle.backends)} on {self.device.type}"

    @contextmanager
    def under(self, method: lampe.Method, window: int, attention: str) -> Iterator[lampe.Handle]:
        """Patches the model with a method for the calls within."""
        with lampe.patch(self.model, method, window=window, attention=attention) as self._handle:
            yield self._handle

    @torch.no_grad()
    def answer(self, prompts: Sequence[Prompt], *, lean: bool = False) -> list[Answer]:
        """Greedy answers, whatever else the checkpoint recommends, to prompts with one room, stops and decoding.

        Args:
            lean: whether to read the prompt, which is then alone, in small chunks.
        """
        ids, mask = self._padded([prompt.ids for prompt in prompts])
        piece = READ if lean else WHOLE
        steps, began = _Steps(), time.perf_counter()
        whole = ids.shape[1] <= piece or len(ids) > 1
        with (
            nullcontext(lampe.growing_cache(self.model))
            if whole
            else self._read(ids, piece) as cache
        ):
            out = self.model.generate(  # type: ignore[operator]
                ids,
                attention_mask=mask,
                past_key_values=cache,
                generation_config=self._greedy(prompts[0]),
                logits_processor=LogitsProcessorList([steps]),
            )
        answered: list[list[int]] = out[:, ids.shape[1] :].tolist()
        prefill, decode, nan = (
            steps.first - began,
            time.perf_counter() - steps.first,
            steps.nan.tolist(),
        )
        return [
            Answer(*self._said(prompt, new), row_nan, prefill, decode)
            for prompt, new, row_nan in zip(prompts, answered, nan, strict=True)
        ]

    @torch.no_grad()
    def loss(self, passage: Passage, *, lean: bool = False) -> float:
        """Sum of the losses (natural log) of a passage's scored tokens, read in chunks through the cache."""
        assert self._handle is not None
        ids, _ = self._padded([passage.ids])
        first, total = ids.shape[1] - passage.scored_tokens, 0.0
        with self._handle.prompt(ids.shape[1]):
            for begin, end, out in self._chunks(ids, LEAN_CHUNK if lean else CHUNK):
                skip = max(0, first - 1 - begin)
                targets = ids[0, begin + 1 + skip : end + 1]
                losses = torch.nn.functional.cross_entropy(
                    out.logits[0, skip:].float(), targets, reduction="none"
                )
                total += float(losses.double().sum())
        return total

    @contextmanager
    def _read(self, ids: Tensor, size: int) -> Iterator[Any]:
        """The cache of a prompt ``ids[1, L]`` but for its last token, read in chunks; its length is stated within."""
        assert self._handle is not None
        cache = None
        with self._handle.prompt(ids.shape[1]):
            last = {"logits_to_keep": 1} if self.model._supports_logits_to_keep() else {}  # type: ignore[operator]
            for *_, out in self._chunks(ids, size, **last):
                cache = out.past_key_values
            yield cache

    def _chunks(self, ids: Tensor, size: int, **options: Any) -> Iterator[tuple[int, int, Any]]:
        """Reads ``ids[1, L]`` but for its last token through one cache: begin, end and output of each chunk."""
        cache = lampe.growing_cache(self.model)
        for begin in range(0, ids.shape[1] - 1, size):
            end = min(begin + size, ids.shape[1] - 1)
            out = self.model(ids[:, begin:end], past_key_values=cache, use_cache=True, **options)
            cache = out.past_key_values
            yield begin, end, out

    def _padded(self, rows: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
        """Token ids ``[B, L]`` of rows, padded on the left, and their mask."""
        longest = max(map(len, rows))
        pads = [longest - len(row) for row in rows]
        ids = torch.tensor(
            [[0] * pad + list(row) for pad, row in zip(pads, rows, strict=True)], device=self.device
        )
        mask = (
            torch.arange(longest, device=self.device)
            >= torch.tensor(pads, device=self.device)[:, None]
        )
        return ids, mask.long()

    def _greedy(self, prompt: Prompt) -> GenerationConfig:
        pad, stops = self.tokenizer.pad_token_id, [*self._stops, *prompt.stop_token_ids]
        return GenerationConfig(  # type: ignore[no-untyped-call]
            do_sample=False,
            max_new_tokens=prompt.max_new_tokens,
            min_new_tokens=1 if prompt.stop_token_ids else None,
            eos_token_id=stops or None,
            pad_token_id=stops[0] if pad is None and stops else pad,
        )

    def _said(self, prompt: Prompt, new: list[int]) -> tuple[str, int, str]:
        """The text of an answer's tokens, their number, and why they end; a row of a batch is padded behind them."""
        stops = {*self._stops, *prompt.stop_token_ids}
        end = next((index for index, token in enumerate(new) if token in stops), None)
        if end is not None:
            new = new[: end + 1]
        text = str(self.tokenizer.decode(new, skip_special_tokens=prompt.decoding == "text"))
        if prompt.decoding == "single_line":
            text = " ".join(text.split())
        return text, len(new), "length" if end is None else "eos"


class _Steps(LogitsProcessor):
    """Sees the logits of every token of an answer and changes none.

    Attributes:
        first: when those of the first token were there.
        nan: ``[B]``, whether any of a row was not a number.
    """

    first: float
    nan: Tensor

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        nan = scores.isnan().any(-1)
        if hasattr(self, "nan"):
            self.nan |= nan
        else:
            nan.any().item()  # waits for the device
            self.first, self.nan = time.perf_counter(), nan
        return scores


def _stops(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The checkpoint's stop tokens, the one thing taken from its recommendations for generation."""
    own = getattr(model.generation_config, "eos_token_id", None)
    stops = tokenizer.eos_token_id if own is None else own
    return stops if isinstance(stops, list) else [] if stops is None else [int(stops)]
