"""Proofs on a few tokens that a patch is what it says, made on every patch.

Exactness: patched with the original positions, the model answers as it did unpatched. This is what finds a model whose
attention does something the patch does not know of. Causality: under the method itself, a later token never moves an
earlier logit.
"""

import dataclasses
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from lampe.errors import BadSetting, PositionWarning, UnsupportedModel
from lampe.geometry import Geometry
from lampe.methods import Method

TOKENS = 24

Patched = Callable[[], AbstractContextManager[Any]]
"""Puts a patch on the model for a while."""


def check_exact(model: PreTrainedModel, original: Patched) -> None:
    """Proves that a model patched with original positions answers as it does unpatched.

    Raises:
        UnsupportedModel: where it does not.
    """
    ids = _ids(model)
    before = _logits(model, ids)
    with original():
        moved = _distance(before, _logits(model, ids))
    if not moved < _tolerance(model):
        raise UnsupportedModel(
            f"{type(model).__name__}: with original positions the patched logits differ by {moved:.1e} of their size; "
            "its attention does something this patch does not know of"
        )


def check_causal(model: PreTrainedModel, patched: Patched, tokens: int) -> None:
    """Proves on so many tokens that under a patch a later token never moves an earlier logit.

    Raises:
        UnsupportedModel: where one does.
    """
    ids = _ids(model, tokens)
    changed = ids.clone()
    changed[0, -1] = (ids[0, -1] + 1) % model.config.get_text_config().vocab_size
    with patched(), warnings.catch_warnings():
        warnings.simplefilter("ignore", PositionWarning)
        moved = _distance(_logits(model, ids)[:-1], _logits(model, changed)[:-1])
    if not moved < _tolerance(model):
        raise UnsupportedModel(f"{type(model).__name__}: a later token moves earlier logits by {moved:.1e}: not causal")


def proof_of(method: Method, geometry: Geometry) -> tuple[Geometry, int]:
    """The geometry and the tokens of a proof.

    The window is so small that a few tokens reach every region, or the model's own where settings forbid that. Settings
    that forbid short prompts get more tokens, up to a window.

    Raises:
        BadSetting: where no such prompt can be had.
    """
    small = dataclasses.replace(geometry, window=TOKENS // 2)
    lengths = [TOKENS]
    while 2 * lengths[-1] <= max(geometry.window, 4 * TOKENS):
        lengths.append(2 * lengths[-1])
    tried = [(small, TOKENS), *((geometry, length) for length in lengths)]
    for candidate, tokens in tried[:-1]:
        try:
            method.encode(candidate, tokens)
        except BadSetting:
            continue
        return candidate, tokens
    method.encode(*tried[-1])
    return tried[-1]


def _ids(model: PreTrainedModel, tokens: int = TOKENS) -> Tensor:
    vocabulary = model.config.get_text_config().vocab_size
    return torch.randint(vocabulary, (1, tokens), generator=torch.Generator().manual_seed(0))


def _tolerance(model: PreTrainedModel) -> float:
    """Half the digits of the model's numbers."""
    return float(torch.finfo(model.dtype).eps ** 0.5)


@torch.no_grad()
def _logits(model: PreTrainedModel, ids: Tensor) -> Tensor:
    """Logits ``[tokens, vocabulary]`` in float32, without a cache."""
    logits: Tensor = model(ids.to(model.device), use_cache=False).logits[0]
    return logits.float()


def _distance(a: Tensor, b: Tensor) -> float:
    """Root mean square difference, relative to the size of ``a``."""
    return float((a - b).norm() / a.norm())
