"""Scheduler of vLLM that lets only prompts of one encoding share cached keys.

A key deeper than the first layer depends on the positions that earlier layers gave to its prompt,
and so on the prompt's encoding. vLLM has a salt for each request, by which cached blocks are told
apart; the scheduler adds a name of the encoding to it.
"""

import hashlib
from typing import Any

from vllm.v1.core.sched.scheduler import Scheduler
from vllm.v1.request import Request

from lampe.geometry import Geometry, geometry_of
from lampe.methods import Method
from lampe_vllm.served_method import ServedMethod


class SaltedScheduler(Scheduler):
    """Scheduler that salts requests with the encoding of their prompt."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        config = self.vllm_config.model_config.hf_config
        served = ServedMethod.of(config)
        self._names = None
        if served is not None:
            self._names = EncodingNames(served.build(), geometry_of(config, served.window))

    def add_request(self, request: Request) -> None:
        """Add a request, its blocks named by its encoding as well."""
        if self._names is not None:
            name = self._names.of_prompt(request.num_prompt_tokens)
            request.cache_salt = f"{request.cache_salt or ''}{name}"
            # Blocks were named when the request came.
            request.block_hashes.clear()
            request.update_block_hashes()
        super().add_request(request)


class EncodingNames:
    """Names of encodings: prompts of two lengths share one only if their encodings are equal."""

    def __init__(self, method: Method, geometry: Geometry) -> None:
        self._method, self._geometry = method, geometry
        self._names: dict[int, str] = {}

    def of_prompt(self, length: int) -> str:
        """Return the name of the encoding of a prompt of ``length`` tokens."""
        if length not in self._names:
            encoding = self._method.encode(self._geometry, length)
            self._names[length] = hashlib.sha256(repr(encoding).encode()).hexdigest()
        return self._names[length]
