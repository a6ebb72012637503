"""Registration of the attention backend for GPUs with vLLM, and the check that vLLM took it."""

from typing import Any

from vllm.platforms import current_platform
from vllm.v1.attention.backends.registry import AttentionBackendEnum, register_backend

from lampe.errors import UnsupportedModel

BACKEND = "lampe_vllm.gpu.backend.LampeGPUBackend"


def register_gpu_backend() -> None:
    """Register the backend under vLLM's name for backends of others; twice does no harm."""
    register_backend(AttentionBackendEnum.CUSTOM, BACKEND)


def check_gpu_backend(vllm_config: Any) -> None:
    """Refuse an engine that serves a method on a GPU by another attention backend.

    Its rotary modules do not rotate, so that any other backend would attend without positions.

    Raises:
        UnsupportedModel: unless the backend is chosen for all layers.
    """
    if current_platform.is_cpu():
        return
    if not current_platform.is_cuda():
        raise UnsupportedModel(
            f"cannot serve a method on {current_platform.device_name}: only NVIDIA GPUs and CPUs "
            "have a backend; serve it on one of these"
        )
    attention = vllm_config.attention_config
    if attention.backend is not AttentionBackendEnum.CUSTOM or attention.backend_per_kind:
        raise UnsupportedModel(
            f"cannot serve a method on a GPU by the attention backend {attention.backend}: give "
            "--attention-backend CUSTOM, and no backend per kind of layer"
        )
