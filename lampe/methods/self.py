"""SELF: groups that grow along the text by a logistic curve (arXiv 2505.17296).

With W the window, and G(n) the group of the n-th token where tokens are packed in order into groups
of ``floor(f(0)), floor(f(1)), ...`` tokens:

    f(g) = C / (1 + (C - 1) exp(-r g))      from 1 up to C - 1 tokens
    rel  = d                                for d < W
    rel  = W + k(i - W) - k(j)              otherwise, with k(x) = G(max(0, x - first))

Groups are small at the beginning of the text, and not near the query. The release
(alexeipc/SELF-LLM at e8d729e) has ``first = 1`` in a prompt. Its answers have positions of their
own: without flash attention every far key is at W, and with it key j is at ``W + G'(j - 1)``, and
key 0 at 0, where G' has the window as its capacity and the rate 0.02, which makes the oldest keys
the nearest.
"""

# Names and settings of methods are checked without torch, which takes seconds to import: functions
# that make tensors import it themselves.
from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, ClassVar

from lampe.errors import BadSetting, UnknownName
from lampe.geometry import Geometry
from lampe.methods.method import (
    IndexMethod,
    positions_beyond,
    require_positive,
    setting,
)
from lampe.methods.rerope import ReRoPE
from lampe.positions import IDENTITY_PLAN, PositionMap, PositionPlan, Region, constant

if TYPE_CHECKING:
    import torch
    from torch import Tensor

RELEASED_RATE = 0.02
RELEASED_WINDOW = 4096
"""Tokens of pretraining of Llama 2, for which the release has this rate."""
LARGEST_CAPACITY = 1 << 16
"""Largest capacity, for which the table of group sizes is still small."""
FARTHEST_GROUP = 1 << 40
"""Group at which growth ends at the latest, far beyond the groups of any text."""


@dataclass(frozen=True)
class LogisticGroups(PositionMap):
    """Map from token index ``x`` to ``offset + G(max(0, x + shift))``.

    Attributes:
        capacity: C, in tokens.
        rate: r, per group.
    """

    capacity: int = 2
    rate: float = RELEASED_RATE

    def __call__(self, index: Tensor) -> Tensor:
        import torch

        first_tokens, first_groups = _growth(self.capacity, self.rate, index.device)
        token = (index + self.shift).clamp(min=0)
        # Row s has the groups of s + 1 tokens. A size without groups begins where the next one
        # does, and the search takes the last of them.
        row = torch.searchsorted(first_tokens, token.contiguous(), right=True) - 1
        group = first_groups[row] + (token - first_tokens[row]).div(row + 1, rounding_mode="floor")
        return group.double() + float(self.offset)

    def __str__(self) -> str:
        index = "x" if self.shift == 0 else f"x {'-' if self.shift < 0 else '+'} {abs(self.shift)}"
        offset = f" + {self.offset}" if self.offset else ""
        return f"group({index}; C={self.capacity}, r={self.rate:g}){offset}"


@dataclass(frozen=True)
class FlashDecodeKeys(LogisticGroups):
    """Map by which the release's flash attention reads an answer: older keys are nearer."""

    def __call__(self, index: Tensor) -> Tensor:
        return (-super().__call__(index)).where(index > 0, float(self.capacity))

    def lowest(self, first: Tensor, last: Tensor) -> Tensor:
        return self(last)


@lru_cache(maxsize=64)
def _growth(capacity: int, rate: float, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return the first token and the first group ``[C - 1]`` (int64) of each size of a group."""
    import torch

    # A tensor made inside inference_mode could not be used by a later call that needs gradients.
    with torch.inference_mode(False):
        size = torch.arange(1, capacity, dtype=torch.float64)
        begin = ((size * (capacity - 1)).log() - (capacity - size).log()) / rate
        first_groups = begin.ceil().clamp(max=FARTHEST_GROUP).long()
        tokens = (first_groups.diff() * size[:-1].long()).cumsum(0)
        return torch.cat((tokens.new_zeros(1), tokens)).to(device), first_groups.to(device)


@dataclass(frozen=True, kw_only=True)
class SELF(IndexMethod):
    """Method of two regions: neighbours, and groups that grow along the text.

    Attributes:
        window_size: ``W``, neighbours with exact positions, in tokens.
        capacity: ``C``; the largest groups have one token less. 2 leaves the model as it is.
        rate: ``r``, growth per group.
        first: tokens before the first group begins, 1 as released or 0.
        decode: "prompt" for one plan, or as released "eager" or "flash", see above.
    """

    name: ClassVar[str] = "self"
    window_size: int | None = setting(
        derive=lambda method, geometry, length: max(1, geometry.window // 8),
        rule="an eighth of the window; the authors' script has 512 of 4096",
    )
    capacity: int | None = setting(
        derive=lambda method, geometry, length: method._smallest_capacity(geometry, length),
        rule="smallest that keeps the prompt within two thirds of the window, as for selfextend",
    )
    rate: float | int | None = setting(
        derive=lambda method, geometry, length: (
            RELEASED_RATE * max(1.0, RELEASED_WINDOW / geometry.window)
        ),
        rule="0.02 as released; below a window of 4096 in proportion more, to grow in time",
    )
    first: int = setting(1, rule="1, as released")
    decode: str = setting("prompt", rule="prompt: answers have the positions of the prompt's rows")

    def plan(self, geometry: Geometry, length: int) -> PositionPlan:
        window, capacity = self.window_size, self.capacity
        assert window is not None and capacity is not None
        self._check()
        if capacity == 2:
            return IDENTITY_PLAN
        key = self._groups(capacity)
        query = replace(key, shift=key.shift - window, offset=window)
        groups = Region(window, None, query=query, key=key, name="groups")
        return PositionPlan((Region(0, window, name="neighbours"), groups))

    def decode_plan(self, geometry: Geometry, length: int, stop: int) -> PositionPlan | None:
        if self.decode == "prompt":
            return None
        window = self.value_of("window_size", geometry, length)
        if self.decode == "eager":
            return ReRoPE(window_size=window).plan(geometry, length)
        keys = FlashDecodeKeys(shift=-1, capacity=window, rate=RELEASED_RATE)
        far = Region(window, None, query=constant(window), key=keys, name="groups")
        return PositionPlan((Region(0, window, name="neighbours"), far))

    def _groups(self, capacity: int) -> LogisticGroups:
        assert self.rate is not None
        return LogisticGroups(shift=-self.first, capacity=capacity, rate=float(self.rate))

    def _check(self) -> None:
        """Refuse settings that give no groups.

        Raises:
            BadSetting: for a number out of range.
            UnknownName: for a rule of decoding that does not exist.
        """
        window, capacity, rate = self.window_size, self.capacity, self.rate
        assert window is not None and capacity is not None and rate is not None
        require_positive(self.name, window_size=window, rate=rate)
        if self.decode not in ("prompt", "eager", "flash"):
            raise UnknownName("decode of self", self.decode, ("prompt", "eager", "flash"))
        if not 2 <= capacity <= LARGEST_CAPACITY:
            raise BadSetting(
                f"self: capacity={capacity} must lie between 2 and {LARGEST_CAPACITY} tokens"
            )
        if self.first not in (0, 1):
            raise BadSetting(f"self: first={self.first} must be 0 or 1")
        if self.decode == "flash" and not 2 <= window <= LARGEST_CAPACITY:
            raise BadSetting(
                f"self: window_size={window} is the capacity under decode=flash, and must lie "
                f"between 2 and {LARGEST_CAPACITY} tokens"
            )

    def _smallest_capacity(self, geometry: Geometry, length: int) -> int:
        """Return the smallest capacity that keeps a prompt within two thirds of the window.

        Raises:
            BadSetting: where none does.
        """
        if length <= geometry.window:
            return 2
        import torch

        window = self.value_of("window_size", geometry, length)
        rate = self.value_of("rate", geometry, length)
        method = replace(self, window_size=window, rate=rate, capacity=2)
        method._check()
        most = positions_beyond(geometry, exact=window)
        last = torch.tensor(length - 1 - window)
        capacities = range(2, LARGEST_CAPACITY + 1)
        # Larger groups need fewer positions for the same text.
        index = bisect_left(
            capacities, True, key=lambda capacity: float(method._groups(capacity)(last)) < most
        )
        if index == len(capacities):
            raise BadSetting(
                f"self: with rate={rate:g} groups grow too slowly to keep {length} tokens within "
                f"two thirds of a window of {geometry.window}; give a larger rate, or a capacity"
            )
        return capacities[index]
