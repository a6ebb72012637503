"""Proofs on a few tokens that a patch is what it says, made on every patch.

Exactness: patched with the original positions, the model answers as it did unpatched. This is what finds a model whose
attention does something the patch does not know of. Causality: under the method itself, a later token never moves an
earlier logit.
"""

import dataclasses
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from lampe.errors import BadSetting, PositionWarning, UnsupportedModel
from lampe.geometry import Geometry
from lampe.methods import Method

TOKENS = 24

Patched = Callable[[], AbstractContextManager[Any]]
"""Puts a patch on the model for a while."""


def check_exact(model: PreTrainedModel, attentions: Iterable[nn.Module], original: Patched) -> None:
    """Proves that a model patched with original positions answers as it does unpatched.

    Args:
        attentions: the model's attention modules.
        original: the patch.

    Raises:
        UnsupportedModel: where it does not.
    """
    ids = _ids(model)
    moved = _difference_between(model, attentions, (nullcontext, ids), (original, ids), TOKENS)
    if not moved < _tolerance(model):
        raise UnsupportedModel(
            f"{type(model).__name__}: with original positions the patched logits differ by {moved:.1e} of their size; "
            "its attention does something this patch does not know of"
        )


def check_causal(
    model: PreTrainedModel, attentions: Iterable[nn.Module], patched: Patched, tokens: int
) -> None:
    """Proves on so many tokens that under a patch a later token never moves an earlier logit.

    Raises:
        UnsupportedModel: where one does.
    """
    ids = _ids(model, tokens)
    changed = ids.clone()
    changed[0, -1] = (ids[0, -1] + 1) % model.config.get_text_config().vocab_size
    moved = _difference_between(model, attentions, (patched, ids), (patched, changed), tokens - 1)
    if not moved < _tolerance(model):
        raise UnsupportedModel(
            f"{type(model).__name__}: a later token moves earlier logits by {moved:.1e}: not causal"
        )


def check_geometry(method: Method, geometry: Geometry) -> tuple[Geometry, int]:
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


def _difference_between(
    model: PreTrainedModel,
    attentions: Iterable[nn.Module],
    first: tuple[Patched, Tensor],
    second: tuple[Patched, Tensor],
    tokens: int,
) -> float:
    """How far two runs of a model, each a patch and its ids, are apart over the first ``tokens`` tokens.

    Rounding alone may flip a router's choice of experts, which moves logits far. So where logits differ, the runs are
    compared again with every attention module of the second handing on what it answered in the first: each module is
    then asked the same, and what counts is the module that is furthest off.
    """
    moved = _distance(*(_logits(model, run)[:tokens] for run in (first, second)))
    if moved < _tolerance(model):
        return moved
    attentions, replay = list(attentions), _AttentionReplay(tokens)
    with _hooked(attentions, replay.note):
        before = _logits(model, first)[:tokens]
    with _hooked(attentions, replay.compare):
        after = _logits(model, second)[:tokens]
    return min(moved, max(replay.moved, _distance(before, after)))


@dataclass
class _AttentionReplay:
    """What attention modules answer in one run, held against another over the first ``tokens`` tokens."""

    tokens: int
    moved: float = 0.0
    answers: dict[nn.Module, list[Tensor]] = field(default_factory=dict)

    def note(self, module: nn.Module, inputs: Any, output: Any) -> None:
        """Forward hook of the first run."""
        self.answers.setdefault(module, []).append(
            output if isinstance(output, Tensor) else output[0]
        )

    def compare(self, module: nn.Module, inputs: Any, output: Any) -> Any:
        """Forward hook of the second: answers with what the first did."""
        answer, *rest = (output,) if isinstance(output, Tensor) else output
        before, after = self.answers[module].pop(0)[:, : self.tokens], answer[:, : self.tokens]
        self.moved = max(self.moved, _distance(before.float(), after.float()))
        passed = torch.cat((before, answer[:, self.tokens :]), dim=1)
        return passed if isinstance(output, Tensor) else (passed, *rest)


@contextmanager
def _hooked(
    modules: Iterable[nn.Module], hook: Callable[[nn.Module, Any, Any], Any]
) -> Iterator[None]:
    hooks = [module.register_forward_hook(hook) for module in modules]
    try:
        yield
    finally:
        for each in hooks:
            each.remove()


def _ids(model: PreTrainedModel, tokens: int = TOKENS) -> Tensor:
    vocabulary = model.config.get_text_config().vocab_size
    return torch.randint(vocabulary, (1, tokens), generator=torch.Generator().manual_seed(0))


def _tolerance(model: PreTrainedModel) -> float:
    """Half the digits of the model's numbers."""
    return float(torch.finfo(model.dtype).eps ** 0.5)


@torch.no_grad()
def _logits(model: PreTrainedModel, run: tuple[Patched, Tensor]) -> Tensor:
    """Logits ``[tokens, vocabulary]`` in float32 of a run, without a cache."""
    patched, ids = run
    with patched(), warnings.catch_warnings():
        warnings.simplefilter("ignore", PositionWarning)
        logits: Tensor = model(ids.to(model.device), use_cache=False).logits[0]
    return logits.float()


def _distance(a: Tensor, b: Tensor) -> float:
    """Root mean square difference, relative to the size of ``a``."""
    return float((a - b).norm() / a.norm().clamp(min=1e-12))
