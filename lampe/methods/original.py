"""Rotary positions at true distances, the model as it is (RoFormer, arXiv 2104.09864)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from lampe.geometry import Geometry
from lampe.methods.method import IndexMethod


@dataclass(frozen=True, kw_only=True)
class Original(IndexMethod):
    """Method that extends nothing; an attention factor alone can be tried on it."""

    name: ClassVar[str] = "original"

    def rope_parameters(self, geometry: Geometry, length: int) -> Mapping[str, Any] | None:
        return (
            None if self.attention_factor not in ("none", "released") else geometry.rope_parameters
        )
