"""Devices that models run on."""

import torch

from lampe_eval.errors import UserError
from lampe_eval.suite import Suite


def resolve_device(name: str) -> str:
    """Return a device as torch names it; "auto" is a GPU if there is one.

    Raises:
        UserError: if torch knows no such device.
    """
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        return str(torch.device(name))
    except RuntimeError:
        raise UserError(f"--device: {name!r} is no device; use auto, cpu, cuda or cuda:0") from None


def device_of_run(suite: Suite) -> str:
    """Return the device that a suite's model runs on, or each of its replicas.

    Raises:
        UserError: if torch knows no such device.
    """
    # Without --devices, Ray uses all GPUs of the cluster, and this machine need not have one.
    if suite.uses_ray:
        return "cpu" if suite.runs_on_cpus else "cuda"
    # The plug-in has attention for vLLM on CPUs only.
    if suite.engine == "vllm":
        return "cpu"
    return resolve_device(suite.device)
