"""Layer probe: measures what each attention layer of a live model does with positions.

The probe makes two forward calls of a few tokens, in which attention itself returns zeros: one with
the model's own rotations, one with its rotary modules disabled. Because attention returns zeros,
rotation cannot reach the next layer through it, so every layer gets the same input in both calls.
What differs between the queries and keys that reach its attention is then what rotation does to
them: which rotary module's output a layer uses, which dimensions it rotates and how it pairs them,
or that it rotates none. Names of classes and models are not used.
"""

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary, WeakSet

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from lampe.attention.rotation import rotate
from lampe.errors import LampeError, UnsupportedModel, first_line
from lampe.geometry import Geometry, ropes_of
from lampe.patching.attention_interface import LayerCall, attached_to
from lampe.patching.forward_layout import ForwardLayout
from lampe.patching.rotary_modules import (
    RotaryCall,
    disable_rotary,
    find_rotary_modules,
    record_rotary,
)
from lampe.positions import LocalWindow
from lampe.rope import Layout

TOKENS = 24
"""Tokens of the probe's forward calls."""


@dataclass(frozen=True)
class LayerPositions:
    """Use that an attention layer makes of positions.

    Attributes:
        rope: index of the geometry that rotates its queries and keys; None where nothing does.
        local: tokens that it attends to; None for all.
    """

    rope: int | None
    local: LocalWindow | None


@dataclass(frozen=True)
class ProbedLayers:
    """Result of the probe, which does not keep the model alive.

    Attributes:
        geometries: one geometry for each rope of the model.
        by_module: what each attention module does.
        rotary_modules: rotary modules that the model uses.
    """

    geometries: tuple[Geometry, ...]
    by_module: WeakKeyDictionary[nn.Module, LayerPositions]
    rotary_modules: WeakSet[nn.Module]

    def extendable(self, window: int) -> list[LayerPositions]:
        """Return the layers that a method can change: rotated, and attending beyond the window."""
        return [
            layer
            for layer in self.by_module.values()
            if layer.rope is not None and not fits_window(layer.local, window)
        ]

    def main_geometry(self, window: int) -> int:
        """Return the index of the geometry that stands for the model.

        It is that of the first layer that a method changes, or else of the first rotated layer.
        """
        rotated = [layer for layer in self.by_module.values() if layer.rope is not None]
        candidates = self.extendable(window) + rotated
        return candidates[0].rope or 0


def fits_window(local: LocalWindow | None, window: int) -> bool:
    """Return whether a layer attends to no more than ``window`` tokens.

    No distance in such a layer is new to the model.
    """
    return local is not None and local.size <= window


@dataclass
class RecordedAttention:
    """Inputs of one attention call in the probe.

    Attributes:
        module: the attention module.
        query: queries ``[H, L, D]`` float32.
        key: keys ``[G, L, D]`` float32.
        local: tokens that the layer attends to; None for all.
    """

    module: nn.Module
    query: Tensor
    key: Tensor
    local: LocalWindow | None


@dataclass
class _AttentionRecorder:
    """Attention handler that records its inputs and returns zeros."""

    calls: list[RecordedAttention] = field(default_factory=list)

    def complete_layout(self, layout: ForwardLayout, unmasked_rows: int) -> ForwardLayout:
        return layout

    def attend(self, call: LayerCall) -> Tensor:
        local = ForwardLayout.from_mask(call.mask).local
        # float32 on the CPU: layers of one model may lie on several devices.
        query, key = call.query[0].float().cpu(), call.key[0].float().cpu()
        self.calls.append(RecordedAttention(call.module, query, key, local))
        return call.value.new_zeros(*call.query.shape[:3], call.value.shape[-1])


def probe_layers(model: PreTrainedModel, geometry: Geometry) -> ProbedLayers:
    """Return what the layers of an unpatched model do with positions.

    Args:
        model: the model.
        geometry: geometry that the configuration describes; its window is taken over.

    Raises:
        UnsupportedModel: where a layer does something that no plan can express.
    """
    name = type(model).__name__
    ids = random_ids(model, TOKENS, seed=1)
    with record_rotary(find_rotary_modules(model)) as recorded:
        rotated_calls, rotated_logits = _run(model, ids)
    for call in rotated_calls:
        require_finite(model, call.query, call.key)
    require_finite(model, rotated_logits)
    hooks = disable_rotary(recorded.modules)
    try:
        plain_calls, plain_logits = _run(model, ids)
    finally:
        for hook in hooks:
            hook.remove()
    if not rotated_calls:
        raise UnsupportedModel(
            f"{name}: its attention does not go through transformers' AttentionInterface"
        )
    # With attention at 0, rotation must not change the logits: otherwise it acts elsewhere too.
    same_logits = _is_near(rotated_logits, plain_logits, model.dtype)
    if len(rotated_calls) != len(plain_calls) or not same_logits:
        raise UnsupportedModel(
            f"{name}: rotary positions reach more of it than the queries and keys of its attention"
        )
    matcher = _RopeMatcher(geometry, recorded.calls, list(ropes_of(model.config)), model.dtype)
    by_module: WeakKeyDictionary[nn.Module, LayerPositions] = WeakKeyDictionary()
    for plain, rotated in zip(plain_calls, rotated_calls, strict=True):
        layer = LayerPositions(matcher.rope_of(plain, rotated), rotated.local)
        # Layers may share one attention module, which has a single entry here.
        if by_module.setdefault(rotated.module, layer) != layer:
            raise UnsupportedModel(
                f"{type(rotated.module).__name__} is called twice and does not do the same"
            )
    if not matcher.geometries:
        raise UnsupportedModel(
            f"{name}: no layer rotates its queries and keys by the rotary modules' outputs"
        )
    matcher.check_other_lengths()
    return ProbedLayers(tuple(matcher.geometries), by_module, WeakSet(recorded.modules))


class _Rotation(NamedTuple):
    """Candidate for how a layer rotates: cos and sin ``[L, P]``, and how they are applied."""

    cos: Tensor
    sin: Tensor
    layout: Layout
    begin: int


@dataclass
class _RopeMatcher:
    """Ropes found so far, among those that the configuration describes.

    Attributes:
        geometry: geometry that the configuration describes.
        calls: one call of a rotary module for each distinct output.
        described: rope parameters of each rope in the configuration.
        dtype: data type of the weights, which sets the tolerance.
        geometries: one geometry for each rope found.
    """

    geometry: Geometry
    calls: list[RotaryCall]
    described: list[dict[str, Any]]
    dtype: torch.dtype
    geometries: list[Geometry] = field(default_factory=list)

    def rope_of(self, plain: RecordedAttention, rotated: RecordedAttention) -> int | None:
        """Return which geometry rotates a layer's queries and keys; None where they are the same.

        Raises:
            UnsupportedModel: where no known rotation explains the rotated ones.
        """
        # The nearest candidate wins, not the first within the tolerance. No rotation at all is the
        # first candidate: some layers have no positions.
        best = None
        best_sense = 1
        least_error = _error(rotated, plain.query, plain.key)
        for candidate, sense in self._candidates(plain.query.shape[-1]):
            query = _rotate(plain.query, candidate)
            key = _rotate(plain.key, candidate)
            error = _error(rotated, query, key)
            if error < least_error:
                best, best_sense, least_error = candidate, sense, error
        # Not ``>=``: a NaN has to be refused as well.
        if not least_error < tolerance_of(self.dtype):
            raise UnsupportedModel(
                f"{type(rotated.module).__name__}: rotation does to its queries and keys what no "
                f"known layout does (off by {least_error:.1e}); a norm with weights after the "
                "rotation, for one, makes logits depend on more than the distance"
            )
        if best is None:
            return None
        return self._geometry_index(rotated.query.shape[-1], best, best_sense)

    def _candidates(self, head_dim: int) -> Iterator[tuple[_Rotation, int]]:
        """Yield every rotation to try, with its sense: 1, or -1 for the inverse rotation."""
        layouts: tuple[Layout, ...] = ("half", "interleaved")
        for call in self.calls:
            cos, sin = call.cos, call.sin
            unrotated = head_dim - 2 * cos.shape[-1]
            if unrotated < 0:
                continue
            # A partly rotated head has its rotated dimensions first, or last.
            for begin in {0, unrotated}:
                for layout in layouts:
                    # Some models rotate in the opposite direction, which no name in a configuration
                    # tells.
                    for sense in (1, -1):
                        yield _Rotation(cos, sense * sin, layout, begin), sense

    def _geometry_index(self, head_dim: int, rotation: _Rotation, sense: int) -> int:
        # A model with several ropes describes each; the tables tell which one this layer uses.
        for parameters in self.described:
            geometry = dataclasses.replace(
                self.geometry,
                head_dim=head_dim,
                rotary_dim=2 * rotation.cos.shape[-1],
                rope_parameters=MappingProxyType(parameters),
                layout=rotation.layout,
                begin=rotation.begin,
                sense=sense,
            )
            if _describes(geometry, rotation.cos, rotation.sin, self.dtype):
                if geometry not in self.geometries:
                    self.geometries.append(geometry)
                return self.geometries.index(geometry)
        raise UnsupportedModel(
            "the model's rotary positions are not those that its configuration describes "
            f"({_why_other_rope(self.calls)})"
        )

    def check_other_lengths(self) -> None:
        """Check ropes that depend on the number of tokens at lengths that no probe could run.

        A rotary module alone takes positions of any size, so a few of them are enough.

        Raises:
            UnsupportedModel: where a module has other frequencies there than its geometry.
        """
        for geometry in self.geometries:
            if not geometry.rope_depends_on_length:
                continue
            index = torch.arange(TOKENS)
            calls = [
                call
                for call in self.calls
                if _describes(geometry, call.cos, call.sin, self.dtype, index)
            ]
            for length in _lengths_around_limits(geometry):
                positions = torch.cat((index[:-1], torch.tensor([length - 1])))
                for call in calls:
                    tables = call.tables_at(positions)
                    if tables and not _describes(geometry, *tables, self.dtype, positions):
                        raise UnsupportedModel(
                            f"cannot patch the model at {length} tokens: there its rotary "
                            "positions are not those that its configuration describes "
                            f"({_why_other_rope(calls)})"
                        )


def _lengths_around_limits(geometry: Geometry) -> list[int]:
    """Return lengths below and above those at which frequencies change."""
    original = geometry.rope_parameters.get("original_max_position_embeddings")
    limits = {geometry.max_position_embeddings or geometry.window, int(original or TOKENS)}
    lengths = {*limits, *(limit + 1 for limit in limits), 2 * max(limits) + 1}
    return sorted(length for length in lengths if length > TOKENS)


def _is_rounded_to_half(buffer: torch.Tensor) -> bool:
    """Say whether every value of a buffer is one that a 16-bit type can hold."""
    return any(
        torch.equal(buffer.float(), buffer.to(half).float())
        for half in (torch.bfloat16, torch.float16)
    )


def _why_other_rope(calls: list[RotaryCall]) -> str:
    """Say why the rotary modules of a model may disagree with its configuration."""
    buffers: list[torch.Tensor] = []
    for call in calls:
        buffers += call.module.buffers(recurse=False)
    if any(_is_rounded_to_half(buffer) for buffer in buffers if buffer.is_floating_point()):
        return (
            "casting a loaded model, as with model.half(), rounds its inverse frequencies: load it "
            "with dtype=... instead"
        )
    return (
        "rope_parameters or max_position_embeddings may have been changed after loading, or the "
        "model computes its frequencies in another way"
    )


def _rotate(x: Tensor, rotation: _Rotation) -> Tensor:
    return rotate(x, rotation.cos, rotation.sin, rotation.layout, rotation.begin)


def _describes(
    geometry: Geometry,
    cos: Tensor,
    sin: Tensor,
    dtype: torch.dtype,
    positions: Tensor | None = None,
) -> bool:
    """Return whether a geometry's rope has these cos and sin ``[L, P]`` at positions ``[L]``.

    They are the first ones by default, and the last of them ends the prompt.
    """
    index = torch.arange(len(cos)) if positions is None else positions
    try:
        rope = geometry.rope(int(index[-1]) + 1)
    except (LampeError, KeyError, TypeError, ValueError):
        return False  # These parameters belong to a rope of another kind or width.
    if 2 * len(rope.inv_freq) != geometry.rotary_dim:
        return False
    # Float64 angles, rounded once: see ``lampe.attention.rotation``.
    angle = rope.angles(index.double(), index).float()
    # Rotary modules multiply YaRN's factor into their tables.
    same_cos = _is_near(rope.scaling * angle.cos(), cos, dtype)
    return same_cos and _is_near(rope.scaling * angle.sin(), sin, dtype)


def _error(rotated: RecordedAttention, query: Tensor, key: Tensor) -> float:
    """Return how far queries and keys are from the rotated ones, relative to the size of those."""
    return max(relative_error(rotated.query, query), relative_error(rotated.key, key))


def relative_error(expected: Tensor, actual: Tensor) -> float:
    """Return the root mean square difference, relative to the size of ``expected``."""
    return float((expected - actual).norm() / expected.norm().clamp(min=1e-12))


def _is_near(expected: Tensor, actual: Tensor, dtype: torch.dtype) -> bool:
    return relative_error(expected.float(), actual.float()) < tolerance_of(dtype)


def tolerance_of(dtype: torch.dtype) -> float:
    """Return half the digits of a data type, at most those of float32.

    Models compute cos, sin and norms in float32, and so does a patch, whatever their own type.
    """
    # float32: 3.5e-4, float16: 0.03, bfloat16: 0.09.
    return float(max(torch.finfo(dtype).eps, torch.finfo(torch.float32).eps) ** 0.5)


def require_finite(model: PreTrainedModel, *tensors: Tensor) -> None:
    """Raise UnsupportedModel where a tensor that an unpatched model computed is not finite."""
    if all(bool(tensor.isfinite().all()) for tensor in tensors):
        return
    weights = [name for name, weight in model.named_parameters() if not weight.isfinite().all()]
    where = f"its weight {weights[0]} is not" if weights else f"in {model.dtype} a value overflows"
    raise UnsupportedModel(
        f"cannot patch {type(model).__name__}: unpatched, its logits or attention inputs are not "
        f"finite numbers ({where}); give it other weights or another dtype"
    )


def random_ids(model: PreTrainedModel, tokens: int, seed: int) -> Tensor:
    """Return random token ids ``[1, tokens]``, the same for every model of a vocabulary size."""
    vocabulary = model.config.get_text_config().vocab_size
    # A generator of its own, so that patching leaves the caller's random numbers alone.
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(vocabulary, (1, tokens), generator=generator).to(model.device)


@torch.no_grad()
def _run(model: PreTrainedModel, ids: Tensor) -> tuple[list[RecordedAttention], Tensor]:
    """Return the inputs of every attention call, and the logits, where attention returns zeros."""
    recorder = _AttentionRecorder()
    with attached_to(model, recorder):
        try:
            logits: Tensor = model(ids, use_cache=False).logits
        except LampeError:
            raise
        except Exception as error:
            # Model code that computes with the mask fails on a layout in many ways.
            raise UnsupportedModel(
                f"{type(model).__name__} does more with its attention mask than hand it on "
                f"({first_line(error)})"
            ) from error
    return recorder.calls, logits
