"""A model's rotary modules: which they are, what they answer with, and how they are made to answer with nothing.

A rotary module holds inverse frequencies and answers with cos and sin, or with both as one complex tensor.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from lampe.errors import UnsupportedModel


def find_rotary_modules(model: nn.Module) -> list[nn.Module]:
    """Modules that hold inverse frequencies.

    Raises:
        UnsupportedModel: where there are none.
    """
    found = [
        m
        for m in model.modules()
        if any(name.endswith("inv_freq") for name, _ in m.named_buffers(recurse=False))
    ]
    if not found:
        raise UnsupportedModel(
            f"{type(model).__name__} has no module that holds inverse frequencies, to take over from"
        )
    return found


def disable_rotary(rotaries: Iterable[nn.Module]) -> list[RemovableHandle]:
    """Makes modules answer with the rotation by nothing, in the shapes they would answer with."""
    return [module.register_forward_hook(_identity_rotation) for module in rotaries]


@dataclass
class RecordedRotary:
    """What rotary modules answered in a forward call.

    Attributes:
        modules: those that were asked.
        answers: cos and sin ``[L, P]`` float32, one pair for each distinct answer.
    """

    modules: set[nn.Module] = field(default_factory=set)
    answers: list[tuple[Tensor, Tensor]] = field(default_factory=list)

    def note(self, module: nn.Module, inputs: Any, output: Any) -> None:
        """Forward hook."""
        cos, sin = _parts(module, output)
        self.modules.add(module)
        width = _pairs(cos)
        answer = cos[0, :, width].float().cpu(), sin[0, :, width].float().cpu()
        if not any(_same(answer, known) for known in self.answers):
            self.answers.append(answer)


@contextmanager
def record_rotary(rotaries: Iterable[nn.Module]) -> Iterator[RecordedRotary]:
    """Notes what modules answer."""
    heard = RecordedRotary()
    hooks = [module.register_forward_hook(heard.note) for module in rotaries]
    try:
        yield heard
    finally:
        for hook in hooks:
            hook.remove()


def _parts(module: nn.Module, output: Any) -> tuple[Tensor, Tensor]:
    if isinstance(output, Tensor) and output.is_complex():
        cos, sin = output.real, output.imag
    elif (
        isinstance(output, tuple)
        and len(output) == 2
        and all(isinstance(part, Tensor) for part in output)
    ):
        cos, sin = output
    else:
        raise UnsupportedModel(
            f"{type(module).__name__} answers with neither cos and sin nor a complex tensor"
        )
    if cos.shape != sin.shape or cos.ndim != 3:
        raise UnsupportedModel(
            f"{type(module).__name__} answers with cos and sin of shape {tuple(cos.shape)}"
        )
    return cos, sin


def _identity_rotation(module: nn.Module, inputs: Any, output: Any) -> Any:
    """Forward hook: the rotation by nothing."""
    if isinstance(output, Tensor):
        return torch.ones_like(output)
    cos, sin = _parts(module, output)
    return torch.ones_like(cos), torch.zeros_like(sin)


def _pairs(cos: Tensor) -> slice:
    """Which columns stand for the pairs: tables often name each pair twice, in halves or side by side."""
    width = cos.shape[-1]
    if width % 2 == 0 and torch.equal(cos[..., : width // 2], cos[..., width // 2 :]):
        return slice(0, width // 2)
    if width % 2 == 0 and torch.equal(cos[..., 0::2], cos[..., 1::2]):
        return slice(0, width, 2)
    return slice(0, width)


def _same(a: tuple[Tensor, Tensor], b: tuple[Tensor, Tensor]) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))
