"""Patch checks: proofs on a few tokens that a patch is exact and causal, made on every patch.

Exactness: patched with the original positions, the model returns the logits that it returned
unpatched. This finds models whose attention does something that the patch does not know of.
Causality: under the method itself, a later token never changes an earlier logit.
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
"""Tokens of a check, where the method's settings allow so short a prompt."""

PatchContext = Callable[[], AbstractContextManager[Any]]
"""Function that patches the model for the duration of a block."""


@dataclass(frozen=True)
class _Run:
    """Forward call of a check.

    Attributes:
        patched: patch to run under.
        ids: token ids ``[1, L]``.
    """

    patched: PatchContext
    ids: Tensor


def check_exact(
    model: PreTrainedModel, attention_modules: Iterable[nn.Module], original: PatchContext
) -> None:
    """Prove that a model patched with original positions returns its own logits.

    Args:
        model: the unpatched model.
        attention_modules: its attention modules.
        original: patch with the method ``original``.

    Raises:
        UnsupportedModel: where it returns others.
    """
    ids = _check_ids(model)
    difference = _difference_between(
        model, attention_modules, _Run(nullcontext, ids), _Run(original, ids), TOKENS
    )
    # Not ``>=``: logits that are NaN have to be refused as well.
    if not difference < _tolerance(model):
        raise UnsupportedModel(
            f"{type(model).__name__}: with original positions the patched logits differ by "
            f"{difference:.1e} of their size; its attention does something this patch does not "
            "know of"
        )


def check_causal(
    model: PreTrainedModel,
    attention_modules: Iterable[nn.Module],
    patched: PatchContext,
    tokens: int,
) -> None:
    """Prove that under a patch the last of ``tokens`` tokens changes no earlier logit.

    Args:
        model: the model.
        attention_modules: its attention modules.
        patched: patch to check.
        tokens: tokens of the prompt.

    Raises:
        UnsupportedModel: where it changes one.
    """
    ids = _check_ids(model, tokens)
    changed = ids.clone()
    # The last token: all logits before it have to stay.
    changed[0, -1] = (ids[0, -1] + 1) % model.config.get_text_config().vocab_size
    difference = _difference_between(
        model, attention_modules, _Run(patched, ids), _Run(patched, changed), tokens - 1
    )
    if not difference < _tolerance(model):
        raise UnsupportedModel(
            f"{type(model).__name__}: a later token moves earlier logits by {difference:.1e}: not "
            "causal"
        )


def check_geometry(method: Method, geometry: Geometry) -> tuple[Geometry, int]:
    """Return the geometry and the number of tokens for a check of causality.

    Raises:
        BadSetting: where the settings allow no such prompt.
    """
    # A window of half the tokens makes them reach every region of the plan. Settings may forbid so
    # small a window, or so short a prompt; then longer prompts in the model's own window follow.
    candidates = [(dataclasses.replace(geometry, window=TOKENS // 2), TOKENS)]
    length = TOKENS
    while length <= max(geometry.window, 4 * TOKENS):
        candidates.append((geometry, length))
        length *= 2
    for candidate, tokens in candidates[:-1]:
        try:
            method.encode(candidate, tokens)
        except BadSetting:
            continue
        return candidate, tokens
    # Outside of the loop, so that the error of the last candidate reaches the user.
    method.encode(*candidates[-1])
    return candidates[-1]


def _difference_between(
    model: PreTrainedModel,
    attention_modules: Iterable[nn.Module],
    first: _Run,
    second: _Run,
    tokens: int,
) -> float:
    """Return how far two runs of a model are apart over the first ``tokens`` tokens."""
    before = _logits(model, first)[:tokens]
    difference = _relative_difference(before, _logits(model, second)[:tokens])
    if difference < _tolerance(model):
        return difference
    # Rounding alone may change a router's choice of experts, which changes logits a lot. So the
    # runs are compared again while every attention module of the second passes on its output of the
    # first. Each module then gets the same inputs in both, and the one furthest off counts.
    attention_modules = list(attention_modules)
    replay = _AttentionReplay(tokens)
    with _hooked(attention_modules, replay.record):
        before = _logits(model, first)[:tokens]
    with _hooked(attention_modules, replay.compare):
        after = _logits(model, second)[:tokens]
    return min(difference, max(replay.difference, _relative_difference(before, after)))


@dataclass
class _AttentionReplay:
    """Outputs of attention modules in one run, replayed in another.

    Attributes:
        tokens: tokens that are compared and replayed.
        difference: largest relative difference between the runs.
        outputs: outputs of each module in the first run, in the order of its calls.
    """

    tokens: int
    difference: float = 0.0
    outputs: dict[nn.Module, list[Tensor]] = field(default_factory=dict)

    def record(self, module: nn.Module, inputs: Any, output: Any) -> None:
        """Record an output of the first run; a forward hook."""
        hidden = output if isinstance(output, Tensor) else output[0]
        self.outputs.setdefault(module, []).append(hidden)

    def compare(self, module: nn.Module, inputs: Any, output: Any) -> Any:
        """Compare an output of the second run and replace it by the first's; a forward hook."""
        hidden, *others = (output,) if isinstance(output, Tensor) else output
        before = self.outputs[module].pop(0)[:, : self.tokens]
        after = hidden[:, : self.tokens]
        difference = _relative_difference(before.float(), after.float())
        self.difference = max(self.difference, difference)
        # The last token of a causality check differs on purpose and keeps its own output.
        replayed = torch.cat((before, hidden[:, self.tokens :]), dim=1)
        return replayed if isinstance(output, Tensor) else (replayed, *others)


@contextmanager
def _hooked(
    modules: Iterable[nn.Module], hook: Callable[[nn.Module, Any, Any], Any]
) -> Iterator[None]:
    """Register a forward hook on modules for the duration of a block."""
    handles = [module.register_forward_hook(hook) for module in modules]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _check_ids(model: PreTrainedModel, tokens: int = TOKENS) -> Tensor:
    """Return random token ids ``[1, tokens]``, the same for every model of a vocabulary size."""
    vocabulary = model.config.get_text_config().vocab_size
    # A generator of its own, so that patching leaves the caller's random numbers alone.
    return torch.randint(vocabulary, (1, tokens), generator=torch.Generator().manual_seed(0))


def _tolerance(model: PreTrainedModel) -> float:
    """Return half the digits of the model's data type."""
    # float32: 3.5e-4, float16: 0.03, bfloat16: 0.09.
    return float(torch.finfo(model.dtype).eps ** 0.5)


@torch.no_grad()
def _logits(model: PreTrainedModel, run: _Run) -> Tensor:
    """Return the logits ``[tokens, vocabulary]`` float32 of a run without a KV cache."""
    with run.patched(), warnings.catch_warnings():
        # Checks shrink the window, so leaving it says nothing about the user's prompts.
        warnings.simplefilter("ignore", PositionWarning)
        logits: Tensor = model(run.ids.to(model.device), use_cache=False).logits[0]
    return logits.float()


def _relative_difference(expected: Tensor, actual: Tensor) -> float:
    """Return the root mean square difference, relative to the size of ``expected``."""
    return float((expected - actual).norm() / expected.norm().clamp(min=1e-12))
