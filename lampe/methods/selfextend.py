"""SelfExtend: exact positions for neighbours, grouped positions beyond (arXiv 2401.01325).

With G the group size and W the neighbour window:

    rel = d                               for d < W
    rel = i // G - j // G + W - W // G    otherwise

Where G does not divide W, the files of the authors (datamllab/LongLM) do not shift alike:

    integer             W - W // G       Llama_4_40.py, Mistral.py, Phi.py, Qwen2.py, first patches
    fractional          W - W / G        Llama.py without flash attention, or with Triton's
    fractional-prefill  W - W / G for a prompt, W - W // G for its answer: Llama.py with flash_attn

``example.py`` runs Llama 2 with G = 32 and W = 1024 with flash_attn, then with Triton. The older
``llama_example.py`` (G = 8), ``mistral_example.py`` (G = 4) and ``gemma_example.py`` (G = 8), all
with W = 1024, run the first patches. In each of them G divides W, which makes all shifts equal.
LaMPE's RULER script does not: with G = 21 and W = 2048 its own copy shifts by the fraction
throughout. Its InfiniteBench script calls LongLM with flash_attn.
"""

import dataclasses
from dataclasses import dataclass
from fractions import Fraction
from typing import ClassVar

from lampe.errors import UnknownName
from lampe.geometry import Geometry
from lampe.methods.method import (
    IndexMethod,
    quarter_of_the_window,
    require_positive,
    setting,
    smallest_compression,
)
from lampe.positions import IDENTITY_PLAN, PositionMap, PositionPlan, Region

SHIFTS = ("integer", "fractional", "fractional-prefill")
"""Shifts of groups against the neighbours, see above."""


@dataclass(frozen=True, kw_only=True)
class SelfExtend(IndexMethod):
    """Method of two regions: neighbours and groups.

    Attributes:
        window_size: ``W``, neighbours with exact positions, in tokens.
        group_size: ``G``, tokens that share a position; 1 leaves the model as it is.
        shift: "integer" as above, "fractional" (``W / G`` unrounded), or "fractional-prefill" (of
            a prompt fractional, of generated tokens integer), see above.
    """

    name: ClassVar[str] = "selfextend"
    window_size: int | None = setting(
        derive=quarter_of_the_window,
        rule="a quarter of the window; the authors run 1024 of 4096",
    )
    group_size: int | None = setting(
        derive=lambda method, geometry, length: method._smallest_group(geometry, length),
        rule=(
            "smallest that keeps the prompt within two thirds of the window, "
            "the rule of thumb in SelfExtend's README"
        ),
    )
    shift: str = "integer"

    def plan(self, geometry: Geometry, length: int) -> PositionPlan:
        window, group = self.window_size, self.group_size
        assert window is not None and group is not None
        require_positive(self.name, group_size=group, window_size=window)
        if group == 1:
            return IDENTITY_PLAN
        require_shift(self.name, self.shift)
        query, key = group_maps(window, group, self.shift)
        groups = Region(window, None, query=query, key=key, name="groups")
        return PositionPlan((Region(0, window, name="neighbours"), groups))

    def decode_plan(self, geometry: Geometry, length: int, stop: int) -> PositionPlan | None:
        if self.shift != "fractional-prefill":
            return None
        method = self.resolved(geometry, length)
        return dataclasses.replace(method, shift="integer").plan(geometry, length)

    def _smallest_group(self, geometry: Geometry, length: int) -> int:
        window = self.value_of("window_size", geometry, length)
        require_positive(self.name, window_size=window)
        return smallest_compression(geometry, length, exact=window)


def require_shift(name: str, shift: str) -> None:
    """Raise UnknownName unless the shift of a method is one of ``SHIFTS``."""
    if shift not in SHIFTS:
        raise UnknownName(f"shift of {name}", shift, SHIFTS)


def group_maps(window: int, group: int, shift: str) -> tuple[PositionMap, PositionMap]:
    """Return the maps of queries and of keys for groups of tokens beyond a window.

    Args:
        window: tokens with exact positions.
        group: tokens that share a position.
        shift: one of ``SHIFTS``.
    """
    # The offset makes the first grouped distance continue the neighbours: without it, grouped
    # positions would begin at W // G.
    grouped_window = window // group if shift == "integer" else Fraction(window, group)
    key = PositionMap(scale=Fraction(1, group), floor=True)
    return dataclasses.replace(key, offset=window - grouped_window), key
