"""Changes of a layer's logits that do not depend on positions: a soft cap and attention sinks."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, eq=False)
class LogitOptions:
    """Soft cap and sinks of a layer's attention.

    Attributes:
        softcap: scaled logits become ``softcap * tanh(logits / softcap)``; None leaves them.
        sinks: ``[H]``, the logit that each query head adds to its softmax for a key whose value is
            zero; None for no sinks.
    """

    softcap: float | None = None
    sinks: Tensor | None = None

    def capped(self, logits: Tensor) -> Tensor:
        """Return scaled logits after the soft cap, in the same shape."""
        return logits if self.softcap is None else self.softcap * (logits / self.softcap).tanh()


PLAIN_LOGITS = LogitOptions()
"""Logits without soft cap and sinks."""
