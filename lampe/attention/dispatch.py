"""Which backend takes a call: the first by priority that does not refuse, or the one that was asked for."""

import logging
from dataclasses import dataclass, field

from torch import Tensor

from lampe.attention.backend import Backend
from lampe.attention.blockwise import Blockwise
from lampe.attention.dense import Dense
from lampe.attention.flash import Flash
from lampe.attention.inputs import AttentionInputs
from lampe.attention.triton_backend import Triton
from lampe.errors import BadSetting, UnknownName

BACKENDS: dict[str, Backend] = {
    backend.name: backend for backend in (Triton(), Flash(), Blockwise(), Dense())
}
"""All backends by name, the fastest first as far as it was counted; no GPU has timed them."""

AUTO = "auto"

log = logging.getLogger("lampe")


@dataclass(frozen=True)
class BackendChoice:
    """The backend that took a call, and why those before it did not."""

    backend: str
    refusals: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        return "\n".join(
            [f"attention: {self.backend}", *(f"  not {name}: {why}" for name, why in self.refusals)]
        )


@dataclass
class BackendDispatcher:
    """Attention by the backend called ``name``, or "auto" for the fastest that takes a call.

    Attributes:
        made: the choices so far, each once.

    Raises:
        UnknownName: for a backend that does not exist.
    """

    name: str = AUTO
    made: list[BackendChoice] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.name not in (AUTO, *BACKENDS):
            raise UnknownName("attention backend", self.name, (AUTO, *BACKENDS))

    def attend(self, call: AttentionInputs) -> Tensor:
        """Attention ``[B, H, Q, D]``.

        Raises:
            BadSetting: where the backend that was asked for cannot take the call.
        """
        choice = self._choose(call)
        if choice not in self.made:
            self.made.append(choice)
            log.info("%s", choice)
        backend = BACKENDS[choice.backend]
        if call.turned and not (backend.turns and call.step()):
            call.turned.restore(call.key)
        return backend.attend(call)

    def _choose(self, call: AttentionInputs) -> BackendChoice:
        if self.name != AUTO:
            if why := BACKENDS[self.name].refuses(call):
                raise BadSetting(
                    f"attention={self.name!r} cannot run here: {why}; 'auto' takes what can"
                )
            return BackendChoice(self.name)
        refusals: list[tuple[str, str]] = []
        for backend in BACKENDS.values():
            why = backend.refuses(call)
            if why is None:
                return BackendChoice(backend.name, tuple(refusals))
            refusals.append((backend.name, why))
        raise AssertionError("the oracle takes every call")
