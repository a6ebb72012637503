"""Choice of the backend that computes an attention call."""

import logging
import threading
from dataclasses import dataclass, field

from torch import Tensor

from lampe.attention.backend import Backend
from lampe.attention.blockwise import Blockwise
from lampe.attention.dense import Dense
from lampe.attention.flash import Flash
from lampe.attention.inputs import AttentionInputs
from lampe.attention.triton_backend import Triton
from lampe.backend_names import AUTO
from lampe.errors import BadSetting, UnknownName

# The order is that of counted work and memory traffic: nobody has timed the first two on a GPU.
BACKENDS: dict[str, Backend] = {
    backend.name: backend for backend in (Triton(), Flash(), Blockwise(), Dense())
}
"""All backends by name, in the order in which "auto" tries them."""

log = logging.getLogger("lampe")


@dataclass(frozen=True)
class BackendChoice:
    """Backend that computed a call, with the reasons why earlier ones could not.

    Attributes:
        backend: name of the backend.
        refusals: name and reason of each backend that was tried before it.
    """

    backend: str
    refusals: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        lines = [f"attention: {self.backend}"]
        lines += [f"  not {name}: {reason}" for name, reason in self.refusals]
        return "\n".join(lines)


@dataclass
class BackendDispatcher:
    """Attention by one backend, or by the first that can process each call.

    Attributes:
        name: name of the backend, or "auto" for the first in ``BACKENDS`` that does not refuse.
        choices: the distinct choices so far, in the order in which they were first made.

    Raises:
        UnknownName: for a backend that does not exist.
    """

    name: str = AUTO
    choices: list[BackendChoice] = field(default_factory=list)
    _lock: threading.Lock = field(
        default_factory=threading.Lock, init=False, repr=False, compare=False
    )

    def __post_init__(self) -> None:
        if self.name not in (AUTO, *BACKENDS):
            raise UnknownName("attention backend", self.name, (AUTO, *BACKENDS))

    def attend(self, inputs: AttentionInputs) -> Tensor:
        """Return attention ``[B, H, Q, D]`` in the dtype of the queries.

        Raises:
            BadSetting: where the backend that the user selected cannot process the inputs.
        """
        choice = self._choose(inputs)
        self._record(choice)
        backend = BACKENDS[choice.backend]
        reads_rotated = backend.uses_rotated_keys and inputs.decode_step is not None
        if inputs.rotated_keys is not None and not reads_rotated:
            # An earlier step may have rotated the cache's own keys in place. A backend that does
            # not know would rotate them a second time.
            inputs.rotated_keys.restore(inputs.key)
        assert reads_rotated or not inputs.key_is_rotated
        return backend.attend(inputs)

    def _record(self, choice: BackendChoice) -> None:
        """Add a choice to ``choices``, and log it, if it is new."""
        # Looked up without the lock first: this runs in every layer, and almost never adds.
        if choice in self.choices:
            return
        with self._lock:
            # Several threads may make the same choice at the same time.
            if choice in self.choices:
                return
            self.choices.append(choice)
        log.info("%s", choice)

    def _choose(self, inputs: AttentionInputs) -> BackendChoice:
        if self.name != AUTO:
            reason = BACKENDS[self.name].refuses(inputs)
            if reason is not None:
                raise BadSetting(
                    f"attention={self.name!r} cannot run here: {reason}; "
                    "choose 'auto' for the first backend that can"
                )
            return BackendChoice(self.name)
        refusals: list[tuple[str, str]] = []
        for backend in BACKENDS.values():
            reason = backend.refuses(inputs)
            if reason is None:
                return BackendChoice(backend.name, tuple(refusals))
            refusals.append((backend.name, reason))
        raise AssertionError("the dense backend refuses no call")
