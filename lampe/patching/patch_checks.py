"""Patch checks: proofs on a few tokens that a patch is exact and causal, made on every patch.

Exactness: patched with the original positions, the model returns the logits that it returned
unpatched. This finds models whose attention does something that the patch does not know of.
Causality: under the method itself, a later token never changes an earlier logit. It is proven on
the plan of a long prompt with its regions made narrow, so a few tokens reach every region whatever
the method's settings are.
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

from lampe.encoding import Encoding
from lampe.errors import BadSetting, PositionWarning, UnsupportedModel
from lampe.geometry import Geometry
from lampe.methods import Method
from lampe.patching.layer_encodings import require_coverage
from lampe.patching.layer_probe import random_ids, relative_error, require_finite, tolerance_of
from lampe.positions import PositionPlan, Region

TOKENS = 24
"""Tokens of a check, where they reach every region of the plan."""
MAX_TOKENS = 64
"""Tokens of a check at most."""
PROMPT_WINDOWS = (4, 2, 1, 8, 16, 32, 64)
"""Lengths in windows of the prompts to try; the first with several regions is checked."""
LONGEST_PROMPT = 1 << 22
"""Tokens of the longest prompt to try where settings forbid all shorter ones."""
REGION_TOKENS = 3
"""Block distances of a region in a check."""
MAX_BOUNDARIES = 9
"""Distances between regions in a check; those of a plan with more regions are thinned out."""
BLOCK_TOKENS = 4
"""Tokens of a block in a check, for plans by block distance; half as many where blocks are many."""

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
    ids = random_ids(model, TOKENS, seed=0)
    # The probe left attention out, so values that are not finite may still come from there.
    require_finite(model, _logits(model, _Run(nullcontext, ids)))
    difference = _difference_between(
        model, attention_modules, _Run(nullcontext, ids), _Run(original, ids), TOKENS
    )
    # Not ``>=``: logits that are NaN have to be refused as well.
    if not difference < tolerance_of(model.dtype):
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
    ids = random_ids(model, tokens, seed=0)
    changed = ids.clone()
    # The last token: all logits before it have to stay.
    changed[0, -1] = (ids[0, -1] + 1) % model.config.get_text_config().vocab_size
    difference = _difference_between(
        model, attention_modules, _Run(patched, ids), _Run(patched, changed), tokens - 1
    )
    if not difference < tolerance_of(model.dtype):
        raise UnsupportedModel(
            f"{type(model).__name__}: a later token moves earlier logits by {difference:.1e}: not "
            "causal"
        )


@dataclass(frozen=True, kw_only=True)
class NarrowedMethod(Method):
    """Method under check, with the plan of one long prompt and its regions made narrow.

    Rope, position maps and attention factor are those of the long prompt.

    Attributes:
        checked: the method.
        prompt: tokens of the long prompt.
        known: encodings so far; a plan with a region for each position takes seconds to make.
    """

    checked: Method
    prompt: int
    known: list[tuple[Geometry, Encoding]] = field(default_factory=list, compare=False)

    @property
    def label(self) -> str:
        return self.checked.label

    def encode(self, geometry: Geometry, length: int) -> Encoding:
        """Return the encoding of the long prompt, narrowed, whatever the length."""
        for known_geometry, known_encoding in self.known:
            if known_geometry == geometry:
                return known_encoding
        encoding = self.checked.encode(geometry, self.prompt)
        require_coverage(self.checked, encoding.plan)
        narrowed = dataclasses.replace(encoding, plan=narrowed_plan(encoding.plan))
        self.known.append((geometry, narrowed))
        return narrowed


def check_method(method: Method, geometry: Geometry) -> tuple[Method, int]:
    """Return the method for a check of causality, and the number of tokens that it takes.

    Raises:
        BadSetting: where the settings allow no prompt that could be tried, or the plan does not
            cover every causal pair exactly once.
    """
    fault: BadSetting | None = None
    narrowed: list[NarrowedMethod] = []
    for prompt in _prompts_to_try(geometry.window):
        if narrowed and prompt > PROMPT_WINDOWS[-1] * geometry.window:
            break
        candidate = NarrowedMethod(checked=method, prompt=prompt)
        try:
            plan = candidate.encode(geometry, prompt).plan
        except BadSetting as error:
            fault = fault or error
            continue
        narrowed.append(candidate)
        if len(plan.regions) > 1:
            return candidate, _tokens_reaching_all(plan)
    if not narrowed:
        assert fault is not None
        raise fault
    return narrowed[0], TOKENS


def _prompts_to_try(window: int) -> Iterator[int]:
    """Yield lengths of prompts in tokens, those that methods are made for first."""
    for windows in PROMPT_WINDOWS:
        # Derived settings have a least size, for which a very small window has too few tokens.
        yield max(TOKENS, windows * window)
    prompt = 2 * PROMPT_WINDOWS[-1] * window
    while prompt <= LONGEST_PROMPT:
        yield prompt
        prompt *= 2


def narrowed_plan(plan: PositionPlan) -> PositionPlan:
    """Return a plan with the same regions in the same order, each of a few tokens.

    Position maps stay as they are: which pairs a region owns depends on distances alone. Regions
    that share pairs, or leave a gap, still do. Of a plan with very many regions some are left out,
    and their neighbours take their pairs. Plans of earlier queries are left out.
    """
    boundaries = sorted({region.near for region in plan} | {region.far or 0 for region in plan})
    step = -(-len(boundaries) // MAX_BOUNDARIES)
    narrow: dict[int, int] = {}
    distance = 0
    for index, boundary in enumerate(boundaries):
        if index and (index % step == 0 or index == len(boundaries) - 1):
            distance += min(boundary - boundaries[index - 1], REGION_TOKENS) if step == 1 else 1
        narrow[boundary] = distance
    block = BLOCK_TOKENS if (distance + 2) * BLOCK_TOKENS <= MAX_TOKENS else BLOCK_TOKENS // 2
    regions = [_narrowed_region(region, narrow, block) for region in plan]
    kept = [region for region in regions if region.far is None or region.near < region.far]
    return dataclasses.replace(plan, regions=tuple(kept), earlier=())


def _narrowed_region(region: Region, narrow: dict[int, int], block: int) -> Region:
    far = None if region.far is None else narrow[region.far]
    block = min(region.block, block)
    until = None if region.until is None else min(region.until, REGION_TOKENS)
    return dataclasses.replace(region, near=narrow[region.near], far=far, block=block, until=until)


def _tokens_reaching_all(plan: PositionPlan) -> int:
    """Return a number of tokens whose last one has keys in every region of a plan."""
    last = max(max(region.near, region.far or 0) for region in plan)
    return max(TOKENS, max((last + 2) * region.block for region in plan))


def _difference_between(
    model: PreTrainedModel,
    attention_modules: Iterable[nn.Module],
    first: _Run,
    second: _Run,
    tokens: int,
) -> float:
    """Return how far two runs of a model are apart over the first ``tokens`` tokens."""
    before = _logits(model, first)[:tokens]
    difference = relative_error(before, _logits(model, second)[:tokens])
    if difference < tolerance_of(model.dtype):
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
    return min(difference, max(replay.difference, relative_error(before, after)))


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
        difference = relative_error(before.float(), after.float())
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


@torch.no_grad()
def _logits(model: PreTrainedModel, run: _Run) -> Tensor:
    """Return the logits ``[tokens, vocabulary]`` float32 of a run without a KV cache."""
    with run.patched(), warnings.catch_warnings():
        # Checks shrink the window, so leaving it says nothing about the user's prompts.
        warnings.simplefilter("ignore", PositionWarning)
        logits: Tensor = model(run.ids, use_cache=False).logits[0]
    return logits.float()
