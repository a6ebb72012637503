"""Answers that vLLM must give: those of a patched model of transformers, one at a time."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

import lampe

Answer = tuple[list[int], list[float]]
"""Tokens of an answer and their log-probabilities."""


def expected_answers(
    model: PreTrainedModel, method: str, settings: dict[str, Any], prompts: Sequence[list[int]],
    tokens: int,
) -> list[Answer]:  # fmt: skip
    """Return the greedy answers of a patched model to prompts, one at a time."""
    answers = []
    with torch.no_grad(), lampe.patch(model, method, **settings):
        for prompt in prompts:
            ids = torch.tensor([prompt])
            output = model.generate(  # type: ignore[operator]
                ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=tokens,
                min_new_tokens=tokens,
                do_sample=False,
                output_logits=True,
                return_dict_in_generate=True,
            )
            answer = output.sequences[0, len(prompt) :]
            scores = torch.cat(output.logits).float().log_softmax(-1)
            answers.append((answer.tolist(), scores.gather(1, answer[:, None])[:, 0].tolist()))
    return answers


def random_prompts(lengths: Sequence[int], vocabulary: int) -> list[list[int]]:
    """Return random prompts without special tokens, the same in every run."""
    generator = torch.Generator().manual_seed(0)
    return [
        torch.randint(5, vocabulary, (length,), generator=generator).tolist() for length in lengths
    ]


def load(folder: Path | str) -> PreTrainedModel:
    """Load a checkpoint in float32."""
    # Eager attention: others leave out the soft caps of Gemma 2.
    model = AutoModelForCausalLM.from_pretrained(
        str(folder), dtype=torch.float32, attn_implementation="eager"
    )
    # No recommendation of the checkpoint may end an answer early.
    model.generation_config.eos_token_id = None
    return model.eval()  # type: ignore[no-any-return]
