"""Entry point of vLLM's general plug-ins: rotary modules and attention backends."""

from vllm.v1.attention.backends.registry import AttentionBackendEnum, register_backend

from lampe_vllm.gpu_selection import register_gpu_backend
from lampe_vllm.rotary import register_rotary_modules

# By name: its compiled code imports llvmlite, over whose objects vLLM stumbles where it looks for
# its Triton kernels in all modules, before it makes a model.
CPU_BACKEND = "lampe_vllm.cpu_backend.LampeCPUBackend"


def register() -> None:
    """Register everything with vLLM, which calls this once or twice in each of its processes."""
    register_rotary_modules()
    # vLLM's CPU platform takes this backend whatever is asked for, so ours hands on to vLLM's own.
    register_backend(AttentionBackendEnum.CPU_ATTN, CPU_BACKEND)
    register_gpu_backend()
