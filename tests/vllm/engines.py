"""Engines of vLLM in this process, one after the other."""

import gc
import os
import sys
from pathlib import Path
from typing import Any

# Before vLLM is imported: engines then run in this process.
os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
os.environ["VLLM_NO_USAGE_STATS"] = "1"
os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
# Each test has a home of its own, and vLLM takes long to describe an architecture anew.
os.environ.setdefault("VLLM_CACHE_ROOT", str(Path.home() / ".cache" / "vllm"))

from vllm import LLM
from vllm.distributed import cleanup_dist_env_and_memory
from vllm.model_executor.layers import rotary_embedding
from vllm.platforms import current_platform

from lampe_vllm import engine_state, plugin
from lampe_vllm.served_method import ServedMethod

MAX_LENGTH = 4096


def _replace_kernels() -> None:
    """Let vLLM replace its Triton kernels by those for CPUs, which each engine would do again.

    It looks into every module for them, and stumbles over objects of llvmlite, which compiled
    attention imports.
    """
    names = [name for name in sys.modules if name.partition(".")[0] in ("llvmlite", "numba")]
    hidden = {name: sys.modules.pop(name) for name in names}
    current_platform.register_triton_kernel_overrides()
    sys.modules.update(hidden)
    type(current_platform).register_triton_kernel_overrides = staticmethod(lambda: None)


_replace_kernels()


class Engines:
    """Starter of engines, of which one runs at a time."""

    def __init__(self) -> None:
        # Whether or not its entry point is installed.
        plugin.register()
        self._running: LLM | None = None
        self._asked: Any = None

    def start(self, model: Path | str, served: ServedMethod | None, **options: Any) -> LLM:
        """Start an engine in the place of the one before, unless that one is the same."""
        asked = model, served, options
        if self._running is not None and asked == self._asked:
            return self._running
        settings: dict[str, Any] = {
            "max_model_len": MAX_LENGTH,
            "dtype": "float32",
            "enforce_eager": True,
            "enable_prefix_caching": False,
            "kv_cache_memory_bytes": 256 << 20,
            **options,
        }
        overrides = {} if served is None else served.overrides(MAX_LENGTH)
        engine = self.load(model=str(model), hf_overrides=overrides, **settings)
        self._asked = asked
        return engine

    def load(self, **options: Any) -> LLM:
        """Start an engine in the place of the one before; options are those of vLLM."""
        self.stop()
        self._running = LLM(**options)
        return self._running

    def stop(self) -> None:
        """Stop the engine that runs."""
        if self._running is not None:
            self._running.llm_engine.engine_core.shutdown()
            self._running = self._asked = None
            gc.collect()
            cleanup_dist_env_and_memory()
        rotary_embedding._ROPE_DICT.clear()


def serve(method: str, settings: dict[str, Any]) -> None:
    """Serve another method on the engine that runs."""
    assert engine_state._newest is not None
    engine_state._newest.serve(ServedMethod(method, settings, force=True))
