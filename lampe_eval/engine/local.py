"""Runs samples on one loaded model, in this process, one at a time."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

import lampe
from lampe_eval.benches.base import Passage, Prompt

CHUNK = 1024
"""Tokens of a passage at a time, which bounds the logits held."""


@dataclass(frozen=True)
class Answer:
    """What a model says to a prompt: the text, its tokens, and whether it ended by itself ("eos") or by length."""

    text: str
    tokens: int
    stop: str


class LocalEngine:
    """A model that answers prompts and reads passages, under one method at a time."""

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
        self.model, self.tokenizer = model, tokenizer
        self._stops = _stops(model, tokenizer)
        self.model.generation_config = GenerationConfig()  # type: ignore[no-untyped-call]
        self._handle: lampe.Handle | None = None

    @contextmanager
    def under(self, method: lampe.Method, window: int, attention: str) -> Iterator[lampe.Handle]:
        """Patches the model with a method for the calls within."""
        with lampe.patch(self.model, method, window=window, attention=attention) as self._handle:
            yield self._handle

    @torch.no_grad()
    def answer(self, prompt: Prompt) -> Answer:
        """Greedy answer to a prompt, whatever else the checkpoint recommends."""
        ids = self._tensor(prompt.ids)
        out = self.model.generate(  # type: ignore[operator]
            ids, attention_mask=torch.ones_like(ids), generation_config=self._greedy(prompt)
        )
        new: list[int] = out[0, ids.shape[1] :].tolist()
        text = str(self.tokenizer.decode(new, skip_special_tokens=prompt.decoding == "text"))
        if prompt.decoding == "squeezed":
            text = " ".join(text.split())
        return Answer(text, len(new), "length" if len(new) == prompt.max_new_tokens else "eos")

    @torch.no_grad()
    def loss(self, passage: Passage) -> float:
        """Sum of the losses (natural log) of a passage's scored tokens, read in chunks through the cache."""
        assert self._handle is not None
        ids = self._tensor(passage.ids)
        first = ids.shape[1] - passage.scored
        cache, total = None, 0.0
        with self._handle.prompt(ids.shape[1]):
            for begin in range(0, ids.shape[1] - 1, CHUNK):
                end = min(begin + CHUNK, ids.shape[1] - 1)
                out = self.model(ids[:, begin:end], past_key_values=cache, use_cache=True)
                cache = out.past_key_values
                skip = max(0, first - 1 - begin)
                targets = ids[0, begin + 1 + skip : end + 1]
                losses = torch.nn.functional.cross_entropy(out.logits[0, skip:].float(), targets, reduction="none")
                total += float(losses.double().sum())
        return total

    def _tensor(self, ids: Sequence[int]) -> Tensor:
        return torch.tensor([list(ids)], device=self.model.device)

    def _greedy(self, prompt: Prompt) -> GenerationConfig:
        pad, stops = self.tokenizer.pad_token_id, [*self._stops, *prompt.stops]
        return GenerationConfig(  # type: ignore[no-untyped-call]
            do_sample=False,
            max_new_tokens=prompt.max_new_tokens,
            min_new_tokens=1 if prompt.stops else None,
            eos_token_id=stops or None,
            pad_token_id=stops[0] if pad is None and stops else pad,
        )


def _stops(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The checkpoint's stop tokens, the one thing taken from its recommendations for generation."""
    own = getattr(model.generation_config, "eos_token_id", None)
    stops = tokenizer.eos_token_id if own is None else own
    return stops if isinstance(stops, list) else [] if stops is None else [int(stops)]
