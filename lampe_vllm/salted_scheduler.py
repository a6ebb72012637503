"""Scheduler of vLLM that lets only prompts of one encoding share cached keys.

A key deeper than the first layer depends on the positions that earlier layers gave to its prompt,
and so on the prompt's encoding. vLLM has a salt for each request, by which cached blocks are told
apart; the scheduler adds a name of the encoding to it.
"""

import hashlib
from functools import lru_cache
from typing import Any

from vllm.v1.core.sched.scheduler import Scheduler
from vllm.v1.request import Request

from lampe.geometry import Geometry, geometry_of
from lampe.methods import Method
from lampe_vllm.served_method import ServedMethod


class SaltedScheduler(Scheduler):
    """Scheduler that salts requests with the encoding of their prompt.

    Raises:
        UnsupportedModel: without a method to serve.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        config = self.vllm_config.model_config.hf_config
        served = ServedMethod.of(config)
        self._method = None if served is None else served.build()
        self._geometry = geometry_of(config, None if served is None else served.window)

    def add_request(self, request: Request) -> None:
        """Add a request, its blocks named by its encoding as well."""
        if self._method is not None:
            name = encoding_name(self._method, self._geometry, request.num_prompt_tokens)
            request.cache_salt = f"{request.cache_salt or ''}{name}"
            # Blocks were named when the request came.
            request.block_hashes.clear()
            request.update_block_hashes()
        super().add_request(request)


@lru_cache(maxsize=1024)
def encoding_name(method: Method, geometry: Geometry, length: int) -> str:
    """Return a name that prompts of two lengths share only where they have the same encoding."""
    encoding = method.encode(geometry, length)
    return hashlib.sha256(repr(encoding).encode()).hexdigest()
