"""What each attention layer of a live model does with positions, found out by running it.

Two forward calls of a few tokens, in which attention itself answers with zeros: one with the model's own rotations, one
with its rotary modules silenced. So every layer is handed the same in both, and what differs between the queries and
keys that reach its attention is what rotation does to them: which of the rotary modules' answers a layer takes, which
dimensions it turns and how it pairs them, or that it turns none. No name of a class or a model is looked at.
"""

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any
from weakref import WeakKeyDictionary, WeakSet

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from lampe.attention.logit_options import LogitOptions
from lampe.attention.rotation import rotate
from lampe.errors import LampeError, UnsupportedModel
from lampe.geometry import Geometry, ropes_of
from lampe.patching.attention_interface import attached_to
from lampe.patching.forward_layout import ForwardLayout
from lampe.patching.prompt_boundary import PromptTracker
from lampe.patching.rotary_modules import disable_rotary, find_rotary_modules, record_rotary
from lampe.positions import LocalWindow
from lampe.rope import Layout

TOKENS = 24


@dataclass(frozen=True)
class LayerPositions:
    """What an attention layer does with positions.

    Args:
        rope: which of the model's geometries its queries and keys turn by; None where they do not turn.
        local: how far it sees; None for as far as there is.
    """

    rope: int | None
    local: LocalWindow | None


@dataclass(frozen=True)
class ProbedLayers:
    """What the probe found out of a model, which it does not keep alive.

    Args:
        geometries: one for each of the model's ropes.
        of: what each attention module does.
        rotaries: the rotary modules that the model asks.
    """

    geometries: tuple[Geometry, ...]
    of: WeakKeyDictionary[nn.Module, LayerPositions]
    rotaries: WeakSet[nn.Module]

    def extendable(self, window: int) -> list[LayerPositions]:
        """Layers in which a method can change anything: they turn, and see further than the window."""
        return [
            layer
            for layer in self.of.values()
            if layer.rope is not None and not fits_window(layer.local, window)
        ]

    def main_geometry(self, window: int) -> int:
        """Which geometry is the model's: that of the layers a method changes, where there are any."""
        turning = [
            *self.extendable(window),
            *(layer for layer in self.of.values() if layer.rope is not None),
        ]
        return turning[0].rope or 0


def fits_window(local: LocalWindow | None, window: int) -> bool:
    """Whether a layer sees no further than the window, so that no distance in it is new to the model."""
    return local is not None and local.size <= window


@dataclass
class RecordedAttention:
    """Queries and keys ``[H, L, D]`` float32 as they reached a layer's attention, and how far the layer sees."""

    module: nn.Module
    query: Tensor
    key: Tensor
    local: LocalWindow | None


@dataclass
class _AttentionRecorder:
    """Attention that notes what it is handed and answers with zeros."""

    prompts: PromptTracker = field(default_factory=PromptTracker)
    calls: list[RecordedAttention] = field(default_factory=list)

    def attend(
        self,
        module: nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        mask: Tensor | None,
        *,
        scale: float,
        logits: LogitOptions,
    ) -> Tensor:
        local = ForwardLayout.from_mask(mask).local
        self.calls.append(
            RecordedAttention(module, query[0].float().cpu(), key[0].float().cpu(), local)
        )
        return value.new_zeros(*query.shape[:3], value.shape[-1])


def probe_layers(model: PreTrainedModel, geometry: Geometry) -> ProbedLayers:
    """What the layers of an unpatched model do with positions.

    Args:
        geometry: what the configuration says; its window is kept.

    Raises:
        UnsupportedModel: where a layer does what no plan can express.
    """
    rotaries, name = find_rotary_modules(model), type(model).__name__
    ids = _ids(model)
    with record_rotary(rotaries) as heard:
        turned, answer = _run(model, ids)
    hooks = disable_rotary(heard.modules)
    try:
        still, still_answer = _run(model, ids)
    finally:
        for hook in hooks:
            hook.remove()
    if not turned:
        raise UnsupportedModel(
            f"{name}: its attention does not go through transformers' AttentionInterface"
        )
    if len(turned) != len(still) or not _near(answer, still_answer, model.dtype):
        raise UnsupportedModel(
            f"{name}: rotary positions reach more of it than the queries and keys of its attention"
        )
    found = _RopeMatcher(geometry, heard.answers, list(ropes_of(model.config)), model.dtype)
    of: WeakKeyDictionary[nn.Module, LayerPositions] = WeakKeyDictionary()
    for before, after in zip(still, turned, strict=True):
        layer = LayerPositions(found.rope(before, after), after.local)
        if of.setdefault(after.module, layer) != layer:
            raise UnsupportedModel(
                f"{type(after.module).__name__} is called twice and does not do the same"
            )
    if not found.geometries:
        raise UnsupportedModel(
            f"{name}: no layer turns its queries and keys by the rotary modules' answers"
        )
    return ProbedLayers(tuple(found.geometries), of, WeakSet(heard.modules))


@dataclass
class _RopeMatcher:
    """The ropes found so far, among those that the configuration describes."""

    geometry: Geometry
    answers: list[tuple[Tensor, Tensor]]
    described: list[dict[str, Any]]
    dtype: torch.dtype
    geometries: list[Geometry] = field(default_factory=list)

    def rope(self, still: RecordedAttention, turned: RecordedAttention) -> int | None:
        """Which geometry takes a layer's still queries and keys to the turned ones; None where they are the same."""
        best, error = None, _difference(still, turned, still.query, still.key)
        for (cos, sin), layout, begin, sense in self._ways(still.query.shape[-1]):
            query, key = (
                rotate(x, cos, sense * sin, layout, begin) for x in (still.query, still.key)
            )
            difference = _difference(still, turned, query, key)
            if difference < error:
                best, error = ((cos, sin), layout, begin, sense), difference
        if not error < _tolerance(self.dtype):
            raise UnsupportedModel(
                f"{type(turned.module).__name__}: rotation does to its queries and keys what no known layout does "
                f"(off by {error:.1e}); a norm with weights after the rotation, for one, makes logits depend on more "
                "than the distance"
            )
        return None if best is None else self._index(turned.query.shape[-1], *best)

    def _ways(self, head_dim: int) -> Iterator[tuple[tuple[Tensor, Tensor], Layout, int, int]]:
        """Ways to turn: an answer, a layout, the first rotated dimension, and the sense of turning."""
        layouts: tuple[Layout, ...] = ("half", "interleaved")
        for answer in self.answers:
            spare = head_dim - 2 * answer[0].shape[-1]
            for begin in {0, spare} if spare >= 0 else ():
                for layout in layouts:
                    for sense in (1, -1):
                        yield answer, layout, begin, sense

    def _index(
        self, head_dim: int, answer: tuple[Tensor, Tensor], layout: Layout, begin: int, sense: int
    ) -> int:
        cos, sin = answer
        for parameters in self.described:
            geometry = dataclasses.replace(
                self.geometry,
                head_dim=head_dim,
                rotary_dim=2 * cos.shape[-1],
                rope_parameters=MappingProxyType(parameters),
                layout=layout,
                begin=begin,
                sense=sense,
            )
            if _describes(geometry, cos, sense * sin, self.dtype):
                if geometry not in self.geometries:
                    self.geometries.append(geometry)
                return self.geometries.index(geometry)
        raise UnsupportedModel(
            "the model's rotary positions are not those that its configuration describes (casting a loaded model, as "
            "with model.half(), rounds its inverse frequencies: load it with dtype=... instead)"
        )


def _describes(geometry: Geometry, cos: Tensor, sin: Tensor, dtype: torch.dtype) -> bool:
    """Whether the rope of a geometry has these cos and sin ``[L, P]`` at the first positions."""
    try:
        rope = geometry.rope(TOKENS)
    except (LampeError, KeyError, TypeError, ValueError):
        return False
    if 2 * len(rope.inv_freq) != geometry.rotary_dim:
        return False
    index = torch.arange(len(cos))
    angle = rope.angles(index.double(), index).float()
    return all(
        _near(rope.scaling * ours, theirs, dtype)
        for ours, theirs in ((angle.cos(), cos), (angle.sin(), sin))
    )


def _difference(
    still: RecordedAttention, turned: RecordedAttention, query: Tensor, key: Tensor
) -> float:
    """How far queries and keys are from the turned ones, relative to how far the still ones could be."""
    return max(_relative(turned.query, query), _relative(turned.key, key))


def _relative(a: Tensor, b: Tensor) -> float:
    return float((a - b).norm() / a.norm().clamp(min=1e-12))


def _near(a: Tensor, b: Tensor, dtype: torch.dtype) -> bool:
    return _relative(a.float(), b.float()) < _tolerance(dtype)


def _tolerance(dtype: torch.dtype) -> float:
    return float(torch.finfo(dtype).eps ** 0.5)


def _ids(model: PreTrainedModel) -> Tensor:
    vocabulary = model.config.get_text_config().vocab_size
    return torch.randint(vocabulary, (1, TOKENS), generator=torch.Generator().manual_seed(1)).to(
        model.device
    )


@torch.no_grad()
def _run(model: PreTrainedModel, ids: Tensor) -> tuple[list[RecordedAttention], Tensor]:
    """What reaches every layer's attention, and the logits, of a model whose attention answers with zeros."""
    seen = _AttentionRecorder()
    with attached_to(model, seen):
        try:
            logits: Tensor = model(ids, use_cache=False).logits
        except LampeError:
            raise
        except Exception as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise UnsupportedModel(
                f"{type(model).__name__} does more with its attention mask than hand it on ({reason})"
            ) from error
    return seen.calls, logits
