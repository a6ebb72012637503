"""Documents that several samples of a cell ask about: their plan, and what is read once.

The keys of a document depend on the plan under which it is read, and plans depend on the length. So
all questions about a document get the plan of the longest one, with its answer. The first tokens
that their prompts have in common then have the same keys and values in all of them.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

from lampe_eval.benches.bench import Prompt, Sample


def with_document_plans(samples: Sequence[Sample]) -> list[Sample]:
    """Return the samples of a cell, those about one document with its plan.

    A document with a single question is left alone.

    Args:
        samples: all samples of the cell: the plan of a question depends on the others.
    """
    documents: dict[str, list[Prompt]] = defaultdict(list)
    for sample in samples:
        if isinstance(sample, Prompt) and sample.document_sha256 and sample.ids and not sample.skip:
            documents[sample.document_sha256].append(sample)
    planned: dict[str, Prompt] = {}
    for prompts in documents.values():
        if len(prompts) > 1:
            planned |= {prompt.id: prompt for prompt in _with_plan(prompts)}
    return [planned.get(sample.id, sample) for sample in samples]


def _with_plan(prompts: Sequence[Prompt]) -> list[Prompt]:
    """Return the questions about one document with their plan and what they have in common."""
    plan_tokens = max(len(prompt.ids) + prompt.reserved_tokens for prompt in prompts)
    shared_tokens = _common_tokens([tuple(prompt.ids) for prompt in prompts])
    return [
        replace(prompt, plan_tokens=plan_tokens, shared_tokens=shared_tokens) for prompt in prompts
    ]


def _common_tokens(rows: Sequence[tuple[int, ...]]) -> int:
    """Return how many first tokens all prompts have in common; each has one more at least."""
    # What the first and the last row in lexical order have in common, those between have as well.
    first, last = min(rows), max(rows)
    most = min(map(len, rows)) - 1
    return next((place for place in range(most) if first[place] != last[place]), most)
