"""Model whose speed is measured: a checkpoint, or random weights of a named shape."""

from collections.abc import Mapping
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from lampe.errors import first_line
from lampe_eval import models
from lampe_eval.cards import Card, shipped_card
from lampe_eval.engine.devices import resolve_device
from lampe_eval.errors import UserError
from lampe_eval.speed.speed_config import ResolvedSpeed, SpeedConfig


class ShapeCard(Card):
    """Card of a shape: a model without weights.

    Attributes:
        config: transformers' configuration of the model.
    """

    config: Mapping[str, Any]


def load_measured_model(
    resolved: ResolvedSpeed,
) -> tuple[PreTrainedModel, Mapping[str, Mapping[str, Any]]]:
    """Return the model on its device, and its card's settings by name of a method.

    Raises:
        UserError: if the model cannot be loaded.
    """
    config = resolved.config
    device = resolve_device(config.device)
    if config.shape:
        return _build_shape(config.shape, config, device), {}
    assert resolved.model is not None
    card, name = resolved.model
    source = models.describe_model(card, name, window=config.window, dtype=config.dtype)
    return models.load_model(source, device)[0], source.settings


def _build_shape(shape: str, config: SpeedConfig, device: str) -> PreTrainedModel:
    """Return a model of a shape with random weights."""
    settings = dict(shipped_card("shapes", shape, ShapeCard).config)
    layers = settings["num_hidden_layers"]
    if config.layers and config.layers > layers:
        raise UserError(f"--layers: cannot keep {config.layers} layers; {shape} has {layers}")
    settings["num_hidden_layers"] = config.layers or layers
    dtype_name = config.dtype or ("bfloat16" if device.startswith("cuda") else "float32")
    dtype = getattr(torch, dtype_name, None)
    if not isinstance(dtype, torch.dtype):
        raise UserError(
            f"--dtype: {dtype_name!r} is not a data type of torch; use float32, bfloat16 or float16"
        )
    model_config = AutoConfig.for_model(**settings)
    try:
        # Created on the device itself, so that large weights never pass through host memory.
        with torch.device(device):
            model: Any = AutoModelForCausalLM.from_config(model_config, dtype=dtype)  # type: ignore[no-untyped-call]
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"{config.name} on device {device!r}: {first_line(error)}") from None
    measured: PreTrainedModel = model.eval()
    return measured
