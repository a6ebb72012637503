"""What a backend is: attention over a plan's regions, and a word on which calls it can take."""

from typing import Any, ClassVar

from torch import Tensor

from lampe.attention.inputs import AttentionInputs
from lampe.encoding import Encoding


class Backend:
    """Base of all backends."""

    name: ClassVar[str] = ""
    turns: ClassVar[bool] = False
    """Whether a step of an answer is taken over keys that are kept turned."""

    def refuses(self, call: AttentionInputs) -> str | None:
        """Why this backend cannot take a call, or None where it can."""
        return None

    def attend(self, call: AttentionInputs) -> Tensor:
        """Attention ``[B, H, Q, D]`` in the dtype of the queries."""
        raise NotImplementedError

    def __call__(
        self, query: Tensor, key: Tensor, value: Tensor, encoding: Encoding, **options: Any
    ) -> Tensor:
        """The same with the fields of a ``Call`` spelled out."""
        return self.attend(AttentionInputs(query, key, value, encoding, **options))
