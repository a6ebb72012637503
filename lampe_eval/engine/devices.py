"""Devices that models run on."""

import torch

from lampe.errors import LampeError
from lampe_eval.errors import UserError
from lampe_eval.suite import Suite
from lampe_vllm.server_command import check_vllm


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
        UserError: if torch knows no such device, or vLLM is not installed.
    """
    # Without --devices, Ray uses all GPUs of the cluster, and this machine need not have one.
    if suite.uses_ray:
        return "cpu" if suite.runs_on_cpus else "cuda"
    if suite.engine == "vllm":
        try:
            check_vllm(force=False)
        except LampeError as error:
            raise UserError(f"--engine vllm: {error}") from None
    return resolve_device(suite.device)
