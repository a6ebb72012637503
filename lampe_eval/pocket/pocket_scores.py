"""What the pocket model can do inside its window: recall of needles, and perplexity by position."""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from lampe_eval.benches.needles import (
    ONE_CODE,
    SEVERAL_CODES,
    SEVERAL_KEYS,
    NeedleQuestion,
    NeedleSpec,
    assemble_prompt,
    draw_question,
)
from lampe_eval.texts import pocket_language

DEPTHS = (0.0, 25.0, 50.0, 75.0, 100.0)
BUCKETS = ((8, 32), (32, 64), (64, 128), (128, 192), (192, 256))
RECIPES = {
    "1 key": NeedleSpec(ONE_CODE),
    "2 keys": NeedleSpec(ONE_CODE, keys=2),
    "4 keys": NeedleSpec(ONE_CODE, keys=4),
    "8 keys": NeedleSpec(ONE_CODE, keys=8),
    "1 key with 3 codes": NeedleSpec(SEVERAL_CODES, values=3),
    "2 of 4 keys": NeedleSpec(SEVERAL_KEYS, keys=4, queries=2),
}


def encode(words: PreTrainedTokenizerFast, text: str) -> list[int]:
    ids: list[int] = words.encode(text, add_special_tokens=False)
    return ids


def prompt(
    words: PreTrainedTokenizerFast, case: NeedleQuestion, seed: int, length: int
) -> list[int]:
    """A needle prompt of exactly `length` tokens in a haystack of the project's own language."""
    haystack = encode(words, pocket_language.text(seed, length))
    return assemble_prompt(
        case, haystack, lambda text: encode(words, text), length, encode(words, ".")
    )


@torch.no_grad()
def answers(
    model: LlamaForCausalLM, words: PreTrainedTokenizerFast, prompts: list[list[int]], new: int
) -> list[str]:
    """Greedy answers to prompts of one length."""
    ids = torch.tensor(prompts)
    out = model.generate(  # type: ignore[misc]
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=new, do_sample=False
    )
    assert isinstance(out, Tensor)
    texts: list[str] = words.batch_decode(out[:, ids.shape[1] :], skip_special_tokens=True)
    return texts


def recall(
    model: LlamaForCausalLM,
    words: PreTrainedTokenizerFast,
    recipe: NeedleSpec,
    depth: float,
    samples: int,
    length: int,
) -> float:
    """The share (%) of the codes asked that the answers name."""
    cases = [draw_question(recipe, seed=0, index=index, depth=depth) for index in range(samples)]
    prompts = [prompt(words, case, index, length) for index, case in enumerate(cases)]
    new = len(encode(words, cases[0].answer)) + 2
    said = answers(model, words, prompts, new)
    found = [
        value in answer for case, answer in zip(cases, said, strict=True) for value in case.values
    ]
    return 100 * sum(found) / len(found)


@torch.no_grad()
def perplexity_by_position(
    model: LlamaForCausalLM, words: PreTrainedTokenizerFast, texts: int, length: int
) -> dict[str, float]:
    """Perplexity of stories by how many tokens of context a token has."""
    ids = torch.tensor(
        [encode(words, pocket_language.text(seed, length))[:length] for seed in range(texts)]
    )
    logits = model(input_ids=ids, use_cache=False).logits[:, :-1]
    losses = F.cross_entropy(logits.float().transpose(1, 2), ids[:, 1:], reduction="none").mean(
        dim=0
    )
    return {
        f"{low}-{high}": round(math.exp(losses[low - 1 : high - 1].mean().item()), 3)
        for low, high in BUCKETS
    }


def scores(
    model: LlamaForCausalLM, words: PreTrainedTokenizerFast, samples: int = 40
) -> dict[str, Any]:
    """All in-window scores, each recall over `samples` prompts that fill the window."""
    window = model.config.max_position_embeddings
    return {
        "length": window,
        "samples_per_recall": samples,
        "recall": {
            name: {
                f"{depth:g}": round(recall(model, words, recipe, depth, samples, window), 1)
                for depth in DEPTHS
            }
            for name, recipe in RECIPES.items()
        },
        "perplexity": perplexity_by_position(model, words, texts=4 * samples, length=window),
    }
