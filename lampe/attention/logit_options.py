"""What a layer does to its logits beside positions: a cap on them, and a sink that takes part of the softmax."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, eq=False)
class LogitOptions:
    """Soft cap and sinks of a layer's attention.

    Args:
        softcap: scaled logits become ``softcap * tanh(logits / softcap)``; None leaves them.
        sinks: ``[H]``, one more logit per query head, of a key whose value is zero; None for none.
    """

    softcap: float | None = None
    sinks: Tensor | None = None

    def capped(self, logits: Tensor) -> Tensor:
        """Scaled logits after the cap."""
        return logits if self.softcap is None else self.softcap * (logits / self.softcap).tanh()


PLAIN_LOGITS = LogitOptions()
"""Nothing beside positions."""
