"""The model as it is: rotary positions at true distances (RoFormer, arXiv 2104.09864)."""

from dataclasses import dataclass
from typing import ClassVar

from lampe.methods.method import IndexMethod


@dataclass(frozen=True, kw_only=True)
class Original(IndexMethod):
    """No extension. A attention_factor alone can be tried on it."""

    name: ClassVar[str] = "original"
