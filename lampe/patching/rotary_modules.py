"""Rotary modules of a model: finding them, recording their outputs, and disabling them.

A rotary module holds inverse frequencies and returns cos and sin, or both as one complex tensor.
"""

import copy
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from lampe.errors import UnsupportedModel


def find_rotary_modules(model: nn.Module) -> list[nn.Module]:
    """Return the modules that hold inverse frequencies.

    Raises:
        UnsupportedModel: where there are none.
    """
    rotary_modules = [module for module in model.modules() if _holds_frequencies(module)]
    if not rotary_modules:
        raise UnsupportedModel(
            f"{type(model).__name__} has no module with inverse frequencies whose rotation could "
            "be replaced"
        )
    return rotary_modules


def _holds_frequencies(module: nn.Module) -> bool:
    # Models with several ropes name a buffer for each: full_attention_inv_freq, for instance.
    names = [name for name, _ in module.named_buffers(recurse=False)]
    return any(name.endswith("inv_freq") for name in names)


def disable_rotary(rotary_modules: Iterable[nn.Module]) -> list[RemovableHandle]:
    """Make rotary modules return cos = 1 and sin = 0, in the shapes of their own outputs."""
    # A hook instead of new buffers, so that taking it off restores the model exactly.
    return [module.register_forward_hook(_identity_rotation) for module in rotary_modules]


@dataclass(frozen=True)
class RotaryCall:
    """Call of a rotary module, and what it returned.

    Attributes:
        module: the module.
        inputs: its positional arguments.
        options: its other arguments.
        cos: ``[L, P]`` float32.
        sin: ``[L, P]`` float32.
    """

    module: nn.Module
    inputs: tuple[Any, ...]
    options: Mapping[str, Any]
    cos: Tensor
    sin: Tensor

    def tables_at(self, positions: Tensor) -> tuple[Tensor, Tensor] | None:
        """Return the cos and sin ``[L, P]`` that the module returns at other positions ``[L]``.

        None where it takes no positions. A copy is run, because a module may keep the largest
        length that it has met.
        """
        inputs = [_with_positions(value, positions) for value in self.inputs]
        options = {name: _with_positions(value, positions) for name, value in self.options.items()}
        given = [*self.inputs, *self.options.values()]
        replaced = [*inputs, *options.values()]
        if all(new is old for new, old in zip(replaced, given, strict=True)):
            return None
        return _tables(self.module, copy.deepcopy(self.module)(*inputs, **options))


@dataclass
class RecordedRotary:
    """Calls of rotary modules in a forward call.

    Attributes:
        modules: the modules that were called.
        calls: one call for each distinct output.
    """

    modules: set[nn.Module] = field(default_factory=set)
    calls: list[RotaryCall] = field(default_factory=list)

    def record(
        self, module: nn.Module, inputs: tuple[Any, ...], options: dict[str, Any], output: Any
    ) -> None:
        """Record a call; a forward hook."""
        self.modules.add(module)
        cos, sin = _tables(module, output)
        # Modules that share frequencies give the same tables; each is matched once.
        if not any(
            torch.equal(cos, call.cos) and torch.equal(sin, call.sin) for call in self.calls
        ):
            self.calls.append(RotaryCall(module, inputs, options, cos, sin))


@contextmanager
def record_rotary(rotary_modules: Iterable[nn.Module]) -> Iterator[RecordedRotary]:
    """Record the outputs of rotary modules for the duration of a block."""
    recorded = RecordedRotary()
    hooks = [
        module.register_forward_hook(recorded.record, with_kwargs=True) for module in rotary_modules
    ]
    try:
        yield recorded
    finally:
        for hook in hooks:
            hook.remove()


def _with_positions(value: Any, positions: Tensor) -> Any:
    """Return an argument of a rotary module with other positions, if it holds positions."""
    if not isinstance(value, Tensor) or value.is_floating_point() or not value.ndim:
        return value
    return positions.to(value).expand(*value.shape[:-1], len(positions))


def _tables(module: nn.Module, output: Any) -> tuple[Tensor, Tensor]:
    """Return the cos and sin ``[L, P]`` float32 of a rotary module's output, each pair once."""
    cos, sin = _cos_sin(module, output)
    columns = _pair_columns(cos)
    return cos[0, :, columns].float().cpu(), sin[0, :, columns].float().cpu()


def _cos_sin(module: nn.Module, output: Any) -> tuple[Tensor, Tensor]:
    """Return the cos and sin ``[B, L, D]`` that a rotary module's output holds."""
    name = type(module).__name__
    if isinstance(output, Tensor) and output.is_complex():
        output = output.real, output.imag
    is_pair = isinstance(output, tuple) and len(output) == 2
    if not is_pair or not all(isinstance(part, Tensor) for part in output):
        raise UnsupportedModel(f"{name} returns neither cos and sin nor a complex tensor")
    cos, sin = output
    if cos.shape != sin.shape or cos.ndim != 3:
        raise UnsupportedModel(f"{name} returns cos and sin of shape {tuple(cos.shape)}")
    return cos, sin


def _identity_rotation(module: nn.Module, inputs: Any, output: Any) -> Any:
    """Replace an output by that of a rotation by 0; a forward hook."""
    if isinstance(output, Tensor):
        # A complex table, in which 1 + 0i stands for no rotation.
        return torch.ones_like(output)
    cos, sin = _cos_sin(module, output)
    return torch.ones_like(cos), torch.zeros_like(sin)


def _pair_columns(cos: Tensor) -> slice:
    """Return the columns that hold each pair once."""
    # Many tables hold each pair twice, in two halves or side by side, to be multiplied by all
    # dimensions of a head.
    width = cos.shape[-1]
    if width % 2 == 0 and torch.equal(cos[..., : width // 2], cos[..., width // 2 :]):
        return slice(0, width // 2)
    if width % 2 == 0 and torch.equal(cos[..., 0::2], cos[..., 1::2]):
        return slice(0, width, 2)
    return slice(0, width)
