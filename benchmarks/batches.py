"""Rows of unequal length in one padded batch, relative to the same rows one by one.

    python -m benchmarks.batches [METHODS] [LENGTHS]

A gain of 2 means that the batch takes half of the seconds. It is given for plain transformers (its
sdpa attention and dynamic cache) and for each method in a growing cache, in seconds of the
processor, which other work on the machine disturbs least. Gains differ with ``OMP_NUM_THREADS``.
"""

import statistics
import sys
import time
from collections.abc import Sequence
from typing import Any

import torch
from rich.console import Console
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

import lampe
from lampe_eval.checkpoint_files import find_model
from lampe_eval.models import describe_model, load_model

PLAIN = "plain"
PAIRS = 5
STEPS = 8
TOTALS = (32, 128)
"""Tokens of an answer in a gain of prompt and answer together."""


@torch.no_grad()
def cost(model: PreTrainedModel, rows: Sequence[Tensor], method: str) -> tuple[float, float]:
    """Return the seconds of reading rows as one batch, and of a later token of all rows."""
    longest = max(map(len, rows))
    if method == PLAIN:
        return _cost(model, rows, DynamicCache(config=model.config))
    with lampe.patch(model, method, check=False) as handle, handle.prompt(longest):
        return _cost(model, rows, lampe.growing_cache(model))


def _cost(model: PreTrainedModel, rows: Sequence[Tensor], cache: Any) -> tuple[float, float]:
    ids = torch.nn.utils.rnn.pad_sequence(list(rows), batch_first=True, padding_side="left")
    lengths = torch.tensor([len(row) for row in rows])[:, None]
    mask = (torch.arange(ids.shape[1]) >= ids.shape[1] - lengths).long()
    seconds = []
    for _ in range(2 + STEPS):
        positions = (mask.cumsum(1) - 1).clamp(min=0)[:, -ids.shape[1] :]
        began = time.process_time()
        output = model(
            ids, attention_mask=mask, position_ids=positions, past_key_values=cache,
            use_cache=True, logits_to_keep=1,
        )  # fmt: skip
        seconds.append(time.process_time() - began)
        ids = output.logits[:, -1].argmax(-1, keepdim=True)
        mask = torch.cat((mask, torch.ones_like(ids)), dim=1)
    # The first step rotates the prompt's keys; it is no usual one.
    prompt, _, *steps = seconds
    return prompt, statistics.median(steps)


def main(
    methods: str = "lampe,dca", lengths: str = "1024,1462,1901,2340,2779,3218,3657,4096"
) -> None:
    """Measure and print the gains of a batch of rows of some lengths."""
    model, _ = load_model(describe_model(*find_model("pocket")), "cpu")
    torch.manual_seed(0)
    rows = [torch.randint(2, model.config.vocab_size, (int(n),)) for n in lengths.split(",")]
    console = Console(highlight=False, soft_wrap=True)
    gains: dict[str, list[list[float]]] = {}
    for _ in range(PAIRS):
        for method in (PLAIN, *methods.split(",")):
            batch = cost(model, rows, method)
            single = [
                sum(parts)
                for parts in zip(*(cost(model, [row], method) for row in rows), strict=True)
            ]
            pair = [one / whole for one, whole in zip(single, batch, strict=True)]
            for tokens in TOTALS:
                one, whole = (prompt + tokens * step for prompt, step in (single, batch))
                pair.append(one / whole)
            gains.setdefault(method, []).append(pair)
    names = "prompt", "step", *(f"prompt + {tokens} tokens" for tokens in TOTALS)
    for method, pairs in gains.items():
        for name, values in zip(names, zip(*pairs, strict=True), strict=True):
            spread = f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"
            console.print(f"{method:12} {name:20} gain {spread}")


if __name__ == "__main__":
    main(*sys.argv[1:])
