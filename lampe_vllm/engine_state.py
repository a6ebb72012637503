"""State of an engine that serves a method: what its attention layers share."""

import weakref
from typing import Any

from lampe.geometry import Geometry, geometry_of
from lampe_vllm.layer_checks import check_engine, rope_of_model
from lampe_vllm.prompt_encodings import PromptEncodings
from lampe_vllm.served_method import ServedMethod


class EngineState:
    """Method that an engine serves, on its model.

    Attributes:
        served: the method as the configuration has it.
        reserved_tokens: tokens of each answer that are planned with its prompt, as
            ``Handle.prompt`` takes them.
    """

    def __init__(self, vllm_config: Any, served: ServedMethod) -> None:
        self._config = weakref.ref(vllm_config)
        self.served = served
        self.reserved_tokens = 0
        self._encodings: PromptEncodings | None = None
        check_engine(vllm_config, served)

    def prepare(self) -> None:
        """Make the encodings, once all rotary modules of the model are there.

        Raises:
            UnsupportedModel: for a model whose ropes the method cannot take over.
        """
        if self._encodings is None:
            self._encodings = PromptEncodings(self.served.build(), self._geometry())

    @property
    def encodings(self) -> PromptEncodings:
        """Return the encodings of the method; there after ``prepare``."""
        assert self._encodings is not None
        return self._encodings

    def serve(self, served: ServedMethod, reserved_tokens: int = 0) -> None:
        """Serve another method from now on; no request may be running."""
        if served != self.served:
            encodings = PromptEncodings(served.build(), self.encodings.geometry)
            self.served, self._encodings = served, encodings
        self.reserved_tokens = reserved_tokens

    def _geometry(self) -> Geometry:
        config = self._config()
        assert config is not None
        geometry = geometry_of(config.model_config.hf_config, self.served.window)
        return rope_of_model(config.model_config, geometry)


_newest: EngineState | None = None


def engine_state(vllm_config: Any) -> EngineState | None:
    """Return the state of an engine, the same for all of its layers; None without a method.

    Raises:
        LampeError: for a method, a setting or a model that cannot be served.
    """
    global _newest
    served = ServedMethod.of(vllm_config.model_config.hf_config)
    if served is None:
        return None
    if _newest is None or _newest._config() is not vllm_config:
        _newest = EngineState(vllm_config, served)
    return _newest
