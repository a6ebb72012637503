"""Rotary positions at true distances, the model as it is (RoFormer, arXiv 2104.09864)."""

from dataclasses import dataclass
from typing import ClassVar

from lampe.methods.method import IndexMethod


@dataclass(frozen=True, kw_only=True)
class Original(IndexMethod):
    """Method that extends nothing; an attention factor alone can be tried on it."""

    name: ClassVar[str] = "original"
