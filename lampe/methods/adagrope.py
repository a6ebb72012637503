"""AdaGroPE: positions reused the more often, the farther a token is (ACL 2025, long paper 28).

Distances are mapped onto P positions in order. Position 0 and its neighbours stand for one token
each, the next ones for two, then for four, and so on:

    r_k = floor(rho P / k)                        positions at least that stand for k = 1, 2, 4, ...
    L_n = n P - sum over k < n of (n - k) r_k     longest text in which none stands for more than n

In a text of L_(n-1) < l <= L_n tokens the positions beyond the r_k stand for n - 1 tokens each,
and the last ``l - L_(n-1)`` of them, the farthest, for n.

A reconstruction: no code was released, and the formulas are those of a summary of the paper, with
n - k for its n - k - 1. The paper's position of a distance is whole (Toeplitz), which no pair of
query and key positions can give; here distances go on evenly from one whole position to the next.
The paper maps a text again for every token of an answer; here the prompt's map goes on.
"""

import dataclasses
from dataclasses import dataclass
from fractions import Fraction
from typing import ClassVar

from lampe.errors import BadSetting
from lampe.geometry import Geometry
from lampe.methods.method import IndexMethod, require_positive, setting
from lampe.positions import IDENTITY_PLAN, PositionMap, PositionPlan, Region


@dataclass(frozen=True, kw_only=True)
class AdaGroPE(IndexMethod):
    """Method with a region for each number of tokens that a position stands for.

    Attributes:
        positions: ``P``; a prompt of no more tokens keeps true distances.
        ratio: ``rho``, share of the positions that are exact.
    """

    name: ClassVar[str] = "adagrope"
    positions: int | None = setting(
        derive=lambda method, geometry, length: max(1, geometry.window // 2),
        rule="half the window, as the authors' for tasks; for perplexity they take all of it",
    )
    ratio: float | int = setting(0.25, rule="a quarter, the authors' for all models")

    def plan(self, geometry: Geometry, length: int) -> PositionPlan:
        assert self.positions is not None
        require_positive(self.name, positions=self.positions)
        if not 0 < self.ratio <= 0.5:
            raise BadSetting(f"adagrope: ratio={self.ratio} must lie between 0 and 0.5")
        if length <= self.positions:
            return IDENTITY_PLAN
        regions: list[Region] = []
        distance = position = 0
        for tokens, count in self._tokens_of_positions(self.positions, length).items():
            end = distance + tokens * count
            key = PositionMap(scale=Fraction(1, tokens))
            query = dataclasses.replace(key, offset=position - Fraction(distance, tokens))
            if count:
                regions.append(Region(distance, end, query=query, key=key, name=f"1 of {tokens}"))
            distance, position = end, position + count
        # An answer goes on as the farthest tokens of the prompt.
        regions[-1] = dataclasses.replace(regions[-1], far=None)
        return PositionPlan(tuple(regions))

    def _tokens_of_positions(self, positions: int, length: int) -> dict[int, int]:
        """Return how many positions stand for 1, 2, ... tokens each, the nearest first."""
        counts: dict[int, int] = {}
        # L_n grows evenly between powers of two: ``reach`` is L_n at ``n = tokens``.
        tokens, reach = 1, positions
        while True:
            counts[tokens] = int(self.ratio * positions / tokens)
            others = positions - sum(counts.values())
            if length <= reach + tokens * others:
                break
            reach += tokens * others
            tokens *= 2
        full, farthest = divmod(length - reach - 1, others)
        most = tokens + full + 1
        counts[most - 1] = counts.get(most - 1, 0) + others - (farthest + 1)
        counts[most] = farthest + 1
        return counts
