"""Scores of the pocket model inside its window: recall of needles, and perplexity by position."""

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
"""Depths of needles in percent of the haystack."""
CONTEXT_RANGES = ((8, 32), (32, 64), (64, 128), (128, 192), (192, 256))
"""Ranges of tokens of context over which perplexity is averaged."""
NEEDLE_SPECS = {
    "1 key": NeedleSpec(ONE_CODE),
    "2 keys": NeedleSpec(ONE_CODE, keys=2),
    "4 keys": NeedleSpec(ONE_CODE, keys=4),
    "8 keys": NeedleSpec(ONE_CODE, keys=8),
    "1 key with 3 codes": NeedleSpec(SEVERAL_CODES, values=3),
    "2 of 4 keys": NeedleSpec(SEVERAL_KEYS, keys=4, queries=2),
}
SPARE_TOKENS = 2
"""Tokens that an answer may have beyond the expected one."""


def encode(tokenizer: PreTrainedTokenizerFast, text: str) -> list[int]:
    """Return the ids of a text without special tokens."""
    ids: list[int] = tokenizer.encode(text, add_special_tokens=False)
    return ids


def build_prompt(
    tokenizer: PreTrainedTokenizerFast, question: NeedleQuestion, seed: int, length: int
) -> list[int]:
    """Return a needle prompt of exactly `length` tokens in a haystack of the pocket language."""
    haystack = encode(tokenizer, pocket_language.text(seed, length))
    sentence_ends = encode(tokenizer, ".")
    return assemble_prompt(
        question, haystack, lambda text: encode(tokenizer, text), length, sentence_ends
    )


@torch.no_grad()
def generate_answers(
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    prompts: list[list[int]],
    max_new_tokens: int,
) -> list[str]:
    """Return greedy answers to prompts that all have the same length."""
    ids = torch.tensor(prompts)
    output = model.generate(  # type: ignore[misc]
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=max_new_tokens, do_sample=False
    )
    assert isinstance(output, Tensor)
    answers: list[str]
    answers = tokenizer.batch_decode(output[:, ids.shape[1] :], skip_special_tokens=True)
    return answers


def recall(
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    spec: NeedleSpec,
    depth: float,
    samples: int,
    length: int,
) -> float:
    """Return the percentage of the queried codes that the answers contain.

    Args:
        model: the model.
        tokenizer: its tokenizer.
        spec: number of keys and codes, and their wording.
        depth: depth of the first queried needle, in percent.
        samples: number of prompts.
        length: tokens of a prompt.
    """
    questions = [draw_question(spec, seed=0, index=index, depth=depth) for index in range(samples)]
    prompts = [
        build_prompt(tokenizer, question, index, length) for index, question in enumerate(questions)
    ]
    max_new_tokens = len(encode(tokenizer, questions[0].answer)) + SPARE_TOKENS
    answers = generate_answers(model, tokenizer, prompts, max_new_tokens)
    hits: list[bool] = []
    for question, answer in zip(questions, answers, strict=True):
        hits += [value in answer for value in question.values]
    return 100 * sum(hits) / len(hits)


@torch.no_grad()
def perplexity_by_position(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, texts: int, length: int
) -> dict[str, float]:
    """Return the perplexity of stories by the tokens of context that a token has.

    Args:
        model: the model.
        tokenizer: its tokenizer.
        texts: number of stories.
        length: tokens of a story.
    """
    stories = [encode(tokenizer, pocket_language.text(seed, length)) for seed in range(texts)]
    ids = torch.tensor([story[:length] for story in stories])
    logits = model(input_ids=ids, use_cache=False).logits[:, :-1]
    losses = F.cross_entropy(logits.float().transpose(1, 2), ids[:, 1:], reduction="none")
    mean_losses = losses.mean(dim=0)
    perplexities: dict[str, float] = {}
    for low, high in CONTEXT_RANGES:
        # the loss at index i is that of a token with i + 1 tokens of context
        perplexity = math.exp(mean_losses[low - 1 : high - 1].mean().item())
        perplexities[f"{low}-{high}"] = round(perplexity, 3)
    return perplexities


def scores(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, samples: int = 40
) -> dict[str, Any]:
    """Return all scores inside the window, each recall over `samples` prompts that fill it."""
    window = model.config.max_position_embeddings
    recalls: dict[str, dict[str, float]] = {}
    for name, spec in NEEDLE_SPECS.items():
        recalls[name] = {}
        for depth in DEPTHS:
            percent = recall(model, tokenizer, spec, depth, samples, window)
            recalls[name][f"{depth:g}"] = round(percent, 1)
    return {
        "length": window,
        "samples_per_recall": samples,
        "recall": recalls,
        "perplexity": perplexity_by_position(model, tokenizer, texts=4 * samples, length=window),
    }
