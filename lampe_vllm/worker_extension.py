"""Extension of vLLM's workers by which a loaded engine serves one method after another."""

from typing import Any

from lampe.errors import UnsupportedModel
from lampe_vllm import plugin
from lampe_vllm.engine_state import engine_state
from lampe_vllm.served_method import ServedMethod

# A worker may have a process of its own, which finds no entry point where the package is used from
# a checkout.
plugin.register()


class MethodExtension:
    """Base that vLLM adds to its worker (``--worker-extension-cls``), for ``collective_rpc``.

    Attributes:
        vllm_config: that of the worker.
    """

    vllm_config: Any

    def serve_method(self, described: dict[str, Any], reserved_tokens: int) -> None:
        """Serve another method from now on; no request may be running.

        Args:
            described: the method, as a configuration has it.
            reserved_tokens: tokens of each answer that are planned with its prompt.

        Raises:
            LampeError: for a method that does not exist, or an engine without one.
        """
        state = engine_state(self.vllm_config)
        if state is None:
            raise UnsupportedModel("this engine was started without a method")
        state.serve(ServedMethod.from_mapping(described), reserved_tokens)
