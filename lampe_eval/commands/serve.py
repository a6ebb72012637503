"""Command `lampe-eval serve`: vLLM's OpenAI server, with a method in its attention."""

import os
import shlex
import sys
from collections.abc import Sequence

import lampe
from lampe_eval import checkpoint_files, models
from lampe_eval.cards import ModelCard
from lampe_eval.errors import UserError
from lampe_eval.method_specs import MethodSpec
from lampe_eval.models import ModelSource
from lampe_eval.running.resolved_settings import warn_beyond_window
from lampe_vllm.served_method import ServedMethod
from lampe_vllm.server_command import PrefixCaching, ServerCommand, check_plugin, check_vllm

WINDOWS = 4
"""Length that is served by default, in windows of the model."""


def serve(
    card: ModelCard,
    name: str,
    spec: MethodSpec,
    options: Sequence[str],
    *,
    max_length: int | None,
    window: int | None,
    prefix_caching: PrefixCaching,
    force: bool,
    only_print: bool,
) -> None:
    """Print the command of a server and become it.

    Args:
        card: the model's card.
        name: the model's name.
        spec: the method.
        options: options of vLLM.
        max_length: tokens of prompt and answer at most; None for some windows of the model.
        window: tokens of pretraining, where the configuration is wrong about it.
        prefix_caching: which requests share the keys of equal beginnings.
        force: whether to serve with what was not tried.
        only_print: whether to stop after printing.

    Raises:
        UserError: for a model, a method or options that cannot be served.
    """
    if checkpoint_files.gguf_file(card):
        raise UserError(f"model {name!r}: is a GGUF file; serve a checkpoint in safetensors")
    command = server_command(
        card, name, spec, options,
        max_length=max_length, window=window, prefix_caching=prefix_caching, force=force,
    )  # fmt: skip
    if not only_print:
        try:
            check_vllm(force)
            check_plugin()
        except lampe.LampeError as error:
            raise UserError(f"cannot serve: {error}") from None
    arguments = command.arguments()
    print(shlex.join([sys.executable, *arguments]), flush=True)
    if not only_print:
        # The server takes the place of this process, so that signals reach it.
        os.execv(sys.executable, [sys.executable, *arguments])


def server_command(
    card: ModelCard,
    name: str,
    spec: MethodSpec,
    options: Sequence[str],
    *,
    max_length: int | None,
    window: int | None,
    prefix_caching: PrefixCaching,
    force: bool,
) -> ServerCommand:
    """Return the command of a server, checked; the arguments are those of ``serve``.

    Raises:
        UserError: for a model, a method or options that cannot be served.
    """
    source = models.describe_model(card, name, window=window)
    method = spec.build(source.settings)
    served = ServedMethod.of_method(method, window or card.window, force)
    command = ServerCommand(
        source.path,
        served,
        max_length or WINDOWS * source.geometry.window,
        prefix_caching,
        _weights(source),
        tuple(options),
    )
    try:
        command.check(models.load_config(source))
    except lampe.LampeError as error:
        raise UserError(f"model {name!r}: {error}") from None
    warn_beyond_window(spec.label, method, source.geometry, command.max_length)
    return command


def _weights(source: ModelSource) -> dict[str, str]:
    """Return the options by which vLLM loads the weights that ``run`` loads."""
    # Left to itself, vLLM computes in bfloat16 what is stored in float32.
    options = {"--dtype": models.weights_dtype(source)}
    if source.commit is not None:
        options["--revision"] = source.revision
    return options
