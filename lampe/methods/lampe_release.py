"""LaMPE as its authors released it (scar-on/LaMPE at 4e3c91f), with what it does beside the paper.

With l the prompt's tokens, U its ``use_length`` and f(x) = floor(U x / (l - 1)):

    re = last index of the run of equal f that holds index ``tail``
    b1 = head - f(head) - 1
    b2 = (l - 1 - re) - f(l - 1 - re) - b1

    region     pairs              relative position       here
    head       d <= head          d
    middle     head <= d <= l-re  f(i) + b1 - f(j)        ``llama_cache1.py``, three regions
    tail       d >= l - re        d - b2

``llama_sw_map.py`` has no tail. In a prompt, the pairs at d = head and at d = l - re are in two regions and count
twice; in an answer they do not. Answers of the three regions keep the middle's query where the prompt ended, so that
its positions drift, and break after ``head`` tokens; those of the two regions map anew for each token. f is taken in
float32, which is not always the floor.
"""

from dataclasses import dataclass
from fractions import Fraction

import torch
from torch import Tensor

from lampe.errors import BadSetting
from lampe.positions import IDENTITY_PLAN, Number, PositionMap, PositionPlan, Region, constant


@dataclass(frozen=True)
class Float32Floor(PositionMap):
    """``offset + floor(last * x / span)`` in the release's float32: a reciprocal, times ``last``, times ``x``.

    Args:
        last: U.
        span: tokens less one.
    """

    last: int = 0
    span: int = 1

    def __call__(self, index: Tensor) -> Tensor:
        slope = torch.reciprocal(torch.tensor(float(self.span))) * self.last
        steps = (index.float() * slope.to(index.device)).floor()
        return steps.double() + float(self.offset)

    def __str__(self) -> str:
        offset = f" + {self.offset}" if self.offset else ""
        return f"floor32(x · {self.last}/{self.span}){offset}"


@dataclass(frozen=True)
class Release:
    """The release's constants for a prompt.

    Args:
        length: tokens of the prompt.
        head, tail: tokens.
        use_length: mapped index of the last token.
        once: whether every pair of the prompt counts once, by windows one token shorter.
        exact: whether f is the true floor.
    """

    length: int
    head_tokens: int
    tail_tokens: int
    use_length: int
    once: bool = False
    exact: bool = False

    def __post_init__(self) -> None:
        if min(self.head_tokens, self.tail_tokens, self.use_length) < 1:
            raise BadSetting(
                f"lampe: the release takes head_tokens={self.head_tokens}, tail_tokens={self.tail_tokens}, U={self.use_length} from 1 on"
            )

    def ids(self, length: int, offset: Number = 0) -> PositionMap:
        """f over so many tokens, plus an offset."""
        if self.exact:
            return PositionMap(
                scale=Fraction(self.use_length, length - 1), floor=True, offset=offset
            )
        return Float32Floor(last=self.use_length, span=length - 1, offset=offset)

    def id(self, index: int) -> int:
        """f of one token of the prompt."""
        return int(self.ids(self.length)(torch.tensor(index)))

    @property
    def run_end(self) -> int:
        """``re``."""
        ids = self.ids(self.length)(torch.arange(self.length))
        return int((ids == ids[self.tail_tokens]).nonzero()[-1])

    @property
    def head_offset(self) -> int:
        """``b1``."""
        return self.head_tokens - self.id(self.head_tokens) - 1

    @property
    def tail_offset(self) -> int:
        """``b2``."""
        end = self.length - 1 - self.run_end
        return end - self.id(end) - self.head_offset

    def three_regions(self) -> PositionPlan:
        """The prompt's plan; a prompt shorter than two heads keeps true distances.

        Raises:
            BadSetting: where head and tail do not fit into the prompt.
        """
        if self.length < 2 * self.head_tokens:
            return IDENTITY_PLAN
        if self.tail_tokens >= self.length or self.head_tokens + self.run_end > self.length:
            raise BadSetting(
                f"lampe: head_tokens={self.head_tokens} and tail_tokens={self.tail_tokens} do not fit into {self.length} tokens"
            )
        ids, far, more = self.ids(self.length), self.length - self.run_end, 0 if self.once else 1
        regions = (
            Region(0, self.head_tokens + (1 if self.exact else more), name="head"),
            Region(
                self.head_tokens + (1 if self.exact else 0),
                far + (0 if self.exact else more),
                query=self.ids(self.length, self.head_offset),
                key=ids,
                name="middle",
            ),
            Region(far, None, query=PositionMap(offset=-self.tail_offset), name="tail"),
        )
        return PositionPlan(regions, overlapping=not (self.once or self.exact))

    def three_regions_at(self, stop: int) -> PositionPlan:
        """The plan of a generated token.

        Raises:
            BadSetting: beyond ``head`` generated tokens, where the release breaks.
        """
        if self.length < 2 * self.head_tokens:
            return IDENTITY_PLAN
        if stop - self.length > self.head_tokens:
            raise BadSetting(
                f"lampe: the release breaks after head_tokens={self.head_tokens} generated tokens; use another variant"
            )
        frozen = self.id(self.length - 1) + self.head_offset
        far = self.length - self.run_end
        return PositionPlan(
            (
                Region(0, self.head_tokens, name="head"),
                Region(
                    self.head_tokens,
                    far,
                    query=constant(frozen),
                    key=self.ids(self.length),
                    name="middle",
                ),
                Region(far, None, query=PositionMap(offset=-self.tail_offset), name="tail"),
            )
        )

    def two_regions(self) -> PositionPlan:
        """The prompt's plan without a tail; a prompt no longer than a head keeps true distances."""
        if self.length <= self.head_tokens:
            return IDENTITY_PLAN
        query, key = self.ids(self.length, self.head_offset), self.ids(self.length)
        near = Region(0, self.head_tokens + (0 if self.once else 1), name="head")
        return PositionPlan(
            (near, Region(self.head_tokens, None, query=query, key=key, name="middle")),
            not self.once,
        )

    def two_regions_at(self, stop: int) -> PositionPlan:
        """The plan of a generated token.

        Raises:
            BadSetting: after a prompt no longer than a head, of which the release attends to nothing.
        """
        if self.length <= self.head_tokens:
            raise BadSetting(
                f"lampe: the release cannot answer a prompt of {self.length} tokens with head_tokens={self.head_tokens}"
            )
        ids = self.ids(stop)
        last = int(ids(torch.tensor(stop - 1))) + self.head_offset
        return PositionPlan(
            (
                Region(0, self.head_tokens, name="head"),
                Region(self.head_tokens, None, query=constant(last), key=ids, name="middle"),
            )
        )
