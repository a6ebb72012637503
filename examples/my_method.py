"""A method of your own: exact distances nearby, halved distances far away.

Compare it with LaMPE:

    lampe-eval run --plugin examples/my_method.py --method mine,lampe --bench niah

A file `mine.yaml` beside this one may name the paper and set hyper-parameters; it is not needed.
"""

from dataclasses import dataclass
from fractions import Fraction
from typing import ClassVar

import lampe


@dataclass(frozen=True, kw_only=True)
class Mine(lampe.IndexMethod):
    """Distances beyond the nearest tokens count half.

    Attributes:
        near: tokens with exact distances.
    """

    name: ClassVar[str] = "mine"  # what --method takes

    # A setting is None until it is derived from the model and the prompt. Users set it with
    # --method mine:near=64; `rule` is what `lampe-eval suggest` says about its default.
    near: int | None = lampe.setting(
        derive=lambda method, geometry, length: geometry.window // 8,
        rule="an eighth of the window",
    )

    def plan(self, geometry: lampe.Geometry, length: int) -> lampe.PositionPlan:
        """Return which relative position each query sees at each key.

        A plan is a tuple of regions. A region has the pairs with a distance in [near, far), and
        gives them the position query(i) - key(j). The regions must cover every distance once.
        """
        assert self.near is not None  # `resolved` has filled it in
        if self.near < 1:
            raise lampe.BadSetting(f"mine: near={self.near} must be at least 1")
        half = Fraction(1, 2)
        # At distance `near` the far region continues where the near one ends:
        # query(i) - key(j) = (i - j) / 2 + near / 2, which is `near` for i - j = near.
        query = lampe.PositionMap(scale=half, offset=half * self.near)
        key = lampe.PositionMap(scale=half)
        near = lampe.Region(0, self.near, name="near")
        far = lampe.Region(self.near, None, query=query, key=key, name="far")
        return lampe.PositionPlan((near, far))

    # Methods of frequencies, such as YaRN, subclass lampe.Method and override `rope` instead.
