"""KV cache of a document, from which the answers to several questions go on."""

from collections.abc import Sequence
from typing import Any

import lampe
from lampe.caches.growing_cache import GrowingLayer
from lampe_eval.benches.bench import Prompt


class DocumentCache:
    """KV cache of the first tokens that questions about one document have in common.

    Args:
        prompt: one of the questions.
        cache: cache with the tokens that it shares with the others, whose keys no answer rotates.
    """

    def __init__(self, prompt: Prompt, cache: Any) -> None:
        self._document = prompt.document_sha256
        self._plan_tokens = prompt.plan_tokens
        self._ids = _shared_ids(prompt)
        self._cache = cache

    def goes_on_with(self, prompt: Prompt) -> bool:
        """Return whether a prompt continues the document, or is the second question of one."""
        if prompt.document_sha256 != self._document:
            return False
        is_second_question = not prompt.plan_tokens
        return is_second_question or (
            prompt.plan_tokens == self._plan_tokens and _shared_ids(prompt) == self._ids
        )

    def cropped(self) -> Any:
        """Return the cache with the document alone, without the question that was read last."""
        self._cache.crop(len(self._ids) - self._cache.get_seq_length())
        return self._cache


def refusal_of_sharing(cache: Any, handle: lampe.Handle | None, plan_tokens: int) -> str:
    """Return why questions cannot go on from one cache; empty where they can.

    Args:
        cache: an empty growing cache of the model; None for a model that needs another class.
        handle: the patch, if there is one.
        plan_tokens: tokens that the method plans for.
    """
    if cache is None or not all(isinstance(layer, GrowingLayer) for layer in cache.layers):
        # A layer with a sliding window, or a recurrent state, no longer has what it would go on
        # from.
        return "the model's cache cannot be cropped"
    if handle is not None and handle.encoding(plan_tokens).plan.visible is not None:
        return f"{handle.method.label} drops keys that a later question would need"
    return ""


def _shared_ids(prompt: Prompt) -> Sequence[int]:
    return prompt.ids[: prompt.shared_tokens]
