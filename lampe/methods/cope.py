"""CoPE: the slowest pairs turn slower still, or not at all (arXiv 2602.05258).

Of n clipped pairs, the slowest ones, the k-th (k = 0..n-1) has its frequency multiplied by

    soft    0.5 (1 + cos(pi k / (n - 1)))      the first keeps its frequency, the last has 0
    hard    0

The authors' models were trained with clipped frequencies. Nothing shows that it helps a model
that was not: it takes away rotation that such a model has learnt.
"""

import dataclasses
import math
from dataclasses import dataclass
from typing import ClassVar

from lampe.errors import BadSetting, UnknownName
from lampe.geometry import Geometry
from lampe.methods.method import Method, require_positive, setting
from lampe.methods.yarn import YaRN
from lampe.rope import Rope


@dataclass(frozen=True, kw_only=True)
class CoPE(Method):
    """Clipped frequencies, of the model's own rope or of YaRN's.

    Attributes:
        clip: ``n``, the slowest pairs; more than there are means all.
        mode: "soft" or "hard", see above.
        factor: extension by YaRN before the clipping; 1 leaves the model's own frequencies.
    """

    name: ClassVar[str] = "cope"
    clip: int | None = setting(
        derive=lambda method, geometry, length: geometry.dim // 2 * 20 // 64,
        rule="20 of 64 pairs as released, in proportion",
    )
    mode: str = setting("soft", rule="soft, the authors' own")
    factor: float | int = setting(
        1.0, rule="1, the model's own frequencies; beyond their training the authors add YaRN"
    )

    @property
    def has_attention_factor(self) -> bool:
        return self.factor != 1

    def rope(self, geometry: Geometry, length: int) -> Rope:
        assert self.clip is not None
        require_positive(self.name, factor=self.factor)
        if self.clip < 0:
            raise BadSetting(f"cope: clip={self.clip} must be at least 0")
        rope = YaRN(factor=self.factor).rope(geometry, length)
        clipped = self._clipped(min(self.clip, len(rope.inv_freq)))
        whole = [1.0] * (len(rope.inv_freq) - len(clipped))
        weighted = zip(rope.inv_freq, whole + clipped, strict=True)
        inv_freq = tuple(frequency * weight for frequency, weight in weighted)
        slowed = sum(weight < 1 for weight in clipped)
        return dataclasses.replace(rope, inv_freq=inv_freq, clipped=slowed)

    def _clipped(self, pairs: int) -> list[float]:
        """Return what the frequencies of clipped pairs are multiplied by.

        Raises:
            UnknownName: for a mode that does not exist.
        """
        match self.mode:
            case "hard":
                return [0.0] * pairs
            case "soft":
                # A single pair keeps its frequency, as in the release.
                steps = max(1, pairs - 1)
                return [(1 + math.cos(math.pi * pair / steps)) / 2 for pair in range(pairs)]
        raise UnknownName("mode of cope", self.mode, ("soft", "hard"))
