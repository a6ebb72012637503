"""LaMPE as its authors released it (scar-on/LaMPE at 4e3c91f), where that differs from the paper.

With l the prompt's tokens, U its ``use_length`` and f(x) = floor(U x / (l - 1)):

    re = last index of the run of equal f that holds index ``tail``
    b1 = head - f(head) - 1
    b2 = (l - 1 - re) - f(l - 1 - re) - b1

    region     pairs              relative position       here
    head       d <= head          d
    middle     head <= d <= l-re  f(i) + b1 - f(j)        ``llama_cache1.py``, three regions
    tail       d >= l - re        d - b2

``llama_sw_map.py`` has two regions, without a tail. What the code does beside the paper, and what
each variant below has of it:

* Windows include both ends, so in a prompt the pairs at d = head and at d = l - re are in two
  regions and count twice. In an answer the windows are one token shorter, and they do not.
* The three regions keep the middle's query where the prompt ended. Positions of an answer drift:
  after t tokens they are about t U / (l - 1) too small. The table of mapped indices ends with the
  prompt, which makes the code fail after ``head`` generated tokens.
* The two regions are mapped again for each generated token, as if the prompt ended with it.
* f is taken in float32, which is not always the floor.
"""

# Names and settings of methods are checked without torch, which takes seconds to import: functions
# that make tensors import it themselves.
from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

from lampe.errors import BadSetting
from lampe.positions import IDENTITY_PLAN, Number, PositionMap, PositionPlan, Region, constant

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class ReleaseVariant:
    """Part of the release's behaviour that a variant of LaMPE reproduces.

    Attributes:
        has_tail: whether there are three regions, or two without a tail.
        counts_pairs_twice: whether pairs on the edges of a prompt's regions count twice.
        exact_floors: whether f is the true floor instead of float32's.
        has_decode_plans: whether generated tokens have plans of their own, which drift or are
            mapped again; otherwise the prompt's plan goes on.
    """

    has_tail: bool = True
    counts_pairs_twice: bool = False
    exact_floors: bool = False
    has_decode_plans: bool = True


RELEASE_VARIANTS = {
    "reference": ReleaseVariant(counts_pairs_twice=True),
    "reference-nodup": ReleaseVariant(),
    "reference-fixed": ReleaseVariant(exact_floors=True, has_decode_plans=False),
    # From here on ``llama_sw_map.py``, which the release's RULER script for Llama runs.
    "sw-map": ReleaseVariant(has_tail=False, counts_pairs_twice=True),
    "sw-map-nodup": ReleaseVariant(has_tail=False),
}
"""Variants of LaMPE that follow the release; "reference-fixed" is our repair of it."""


@dataclass(frozen=True)
class Float32Floor(PositionMap):
    """Map ``offset + floor(last * x / span)`` in the release's float32 arithmetic.

    Where the exact product is a whole number the result may be one below it. Published numbers
    depend on that.

    Attributes:
        last: U, the mapped index of the last token.
        span: tokens less one.
    """

    last: int = 0
    span: int = 1

    def __call__(self, index: Tensor) -> Tensor:
        import torch

        # The release multiplies a reciprocal by ``last`` and then by ``x``, each step rounded to
        # float32, so the order of operations matters. At 16384 tokens with U = 1993 the last token
        # gets 1992, which moves the middle of every answer.
        slope = torch.reciprocal(torch.tensor(float(self.span))) * self.last
        steps = (index.float() * slope.to(index.device)).floor()
        return steps.double() + float(self.offset)

    def __str__(self) -> str:
        offset = f" + {self.offset}" if self.offset else ""
        return f"floor32(x · {self.last}/{self.span}){offset}"


@dataclass(frozen=True)
class Release:
    """Plans of the release for one prompt, and the constants they are made of.

    Attributes:
        length: tokens of the prompt.
        head_tokens: tokens at exact distances.
        tail_tokens: first tokens of the prompt at unit spacing, before the release rounds it up to
            ``run_end``.
        use_length: U, the mapped index of the last token.
        variant: which behaviour to reproduce.

    Raises:
        BadSetting: for a number below 1, from which the release makes empty regions.
    """

    length: int
    head_tokens: int
    tail_tokens: int
    use_length: int
    variant: ReleaseVariant = RELEASE_VARIANTS["reference"]

    def __post_init__(self) -> None:
        if min(self.head_tokens, self.tail_tokens, self.use_length) < 1:
            raise BadSetting(
                f"lampe: the release takes head_tokens={self.head_tokens}, "
                f"tail_tokens={self.tail_tokens}, U={self.use_length} from 1 on"
            )

    def ids(self, length: int, offset: Number = 0) -> PositionMap:
        """Return f over ``length`` tokens, plus an offset."""
        if self.variant.exact_floors:
            scale = Fraction(self.use_length, length - 1)
            return PositionMap(scale=scale, floor=True, offset=offset)
        return Float32Floor(last=self.use_length, span=length - 1, offset=offset)

    def id(self, index: int) -> int:
        """Return f of one token of the prompt."""
        import torch

        return int(self.ids(self.length)(torch.tensor(index)))

    @property
    def run_end(self) -> int:
        """Return ``re``, an index that is also the number of tokens of the tail."""
        import torch

        # As a count it is one short, so the last token of the run stays in the middle. For the
        # published settings a tail of 200 becomes 200 to 212.
        ids = self.ids(self.length)(torch.arange(self.length))
        return int((ids == ids[self.tail_tokens]).nonzero()[-1])

    @property
    def head_offset(self) -> int:
        """Return ``b1``, by which queries of the middle are shifted to continue the head."""
        # With this - 1 of the release, distance head + 1 can get a smaller position than head.
        return self.head_tokens - self.id(self.head_tokens) - 1

    @property
    def tail_offset(self) -> int:
        """Return ``b2``, by which the tail is shifted to continue the middle."""
        end = self.length - 1 - self.run_end
        return end - self.id(end) - self.head_offset

    def prompt_plan(self) -> PositionPlan:
        """Return the plan of the prompt.

        Raises:
            BadSetting: where head and tail do not fit into the prompt.
        """
        return self.three_regions() if self.variant.has_tail else self.two_regions()

    def decode_plan(self, stop: int) -> PositionPlan | None:
        """Return the plan of a generated token, or None where the prompt's plan goes on.

        Args:
            stop: tokens up to the generated one, itself included.

        Raises:
            BadSetting: where the release fails.
        """
        if not self.variant.has_decode_plans:
            return None
        return self.three_regions_at(stop) if self.variant.has_tail else self.two_regions_at(stop)

    def three_regions(self) -> PositionPlan:
        """Return the prompt's plan; a prompt shorter than two heads keeps true distances.

        Raises:
            BadSetting: where head and tail do not fit into the prompt.
        """
        if self.length < 2 * self.head_tokens:
            return IDENTITY_PLAN
        # Beyond this the release asks flash-attention for a negative window, which means no limit:
        # most pairs would count twice.
        if self.tail_tokens >= self.length or self.head_tokens + self.run_end > self.length:
            raise BadSetting(
                f"lampe: head_tokens={self.head_tokens} and tail_tokens={self.tail_tokens} "
                f"do not fit into {self.length} tokens"
            )
        middle_begin, tail_begin = self.head_tokens, self.length - self.run_end
        # Inclusive windows: each region runs one token into the next.
        extra = 1 if self.variant.counts_pairs_twice else 0
        head_end, middle_end = self.head_tokens + extra, tail_begin + extra
        if self.variant.exact_floors:
            # The repair gives d = head to the head, as the paper does, and to it alone.
            head_end = middle_begin = self.head_tokens + 1
        query, key = self.ids(self.length, self.head_offset), self.ids(self.length)
        regions = (
            Region(0, head_end, name="head"),
            Region(middle_begin, middle_end, query=query, key=key, name="middle"),
            self._tail(tail_begin),
        )
        return PositionPlan(regions, overlapping=self.variant.counts_pairs_twice)

    def three_regions_at(self, stop: int) -> PositionPlan:
        """Return the plan of a generated token, whose middle drifts.

        Args:
            stop: tokens up to the generated one, itself included.

        Raises:
            BadSetting: beyond ``head_tokens`` generated tokens, where the release breaks.
        """
        # Decided by the prompt alone, so its answer keeps true distances too, however long it is.
        if self.length < 2 * self.head_tokens:
            return IDENTITY_PLAN
        if stop - self.length > self.head_tokens:
            raise BadSetting(
                f"lampe: the release breaks after head_tokens={self.head_tokens} generated tokens; "
                "use another variant"
            )
        # The middle's query stays at the end of the prompt: this is the drift.
        query = constant(self.id(self.length - 1) + self.head_offset)
        key, tail_begin = self.ids(self.length), self.length - self.run_end
        return PositionPlan(
            (
                Region(0, self.head_tokens, name="head"),
                Region(self.head_tokens, tail_begin, query=query, key=key, name="middle"),
                self._tail(tail_begin),
            )
        )

    def two_regions(self) -> PositionPlan:
        """Return the prompt's plan without a tail; a prompt within a head keeps true distances."""
        if self.length <= self.head_tokens:
            return IDENTITY_PLAN
        extra = 1 if self.variant.counts_pairs_twice else 0
        query, key = self.ids(self.length, self.head_offset), self.ids(self.length)
        regions = (
            Region(0, self.head_tokens + extra, name="head"),
            Region(self.head_tokens, None, query=query, key=key, name="middle"),
        )
        return PositionPlan(regions, overlapping=self.variant.counts_pairs_twice)

    def two_regions_at(self, stop: int) -> PositionPlan:
        """Return the plan of a generated token, mapped as if the prompt ended with it.

        Args:
            stop: tokens up to the generated one, itself included.

        Raises:
            BadSetting: after a prompt within a head, of which the release attends to nothing.
        """
        if self.length <= self.head_tokens:
            raise BadSetting(
                f"lampe: the release cannot answer a prompt of {self.length} tokens "
                f"with head_tokens={self.head_tokens}"
            )
        import torch

        # The map follows the answer, but b1 stays that of the prompt.
        key = self.ids(stop)
        query = constant(int(key(torch.tensor(stop - 1))) + self.head_offset)
        return PositionPlan(
            (
                Region(0, self.head_tokens, name="head"),
                Region(self.head_tokens, None, query=query, key=key, name="middle"),
            )
        )

    def _tail(self, begin: int) -> Region:
        return Region(begin, None, query=PositionMap(offset=-self.tail_offset), name="tail")
