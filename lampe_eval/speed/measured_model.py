"""The model that is measured: a checkpoint, or random weights of a named shape."""

from collections.abc import Mapping
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from lampe_eval import models
from lampe_eval.cards import Card, shipped_card
from lampe_eval.engine.devices import resolve_device
from lampe_eval.errors import UserError
from lampe_eval.speed.speed_config import SpeedConfig


class ShapeCard(Card):
    """A shape: transformers' configuration of a model, without weights."""

    config: Mapping[str, Any]


def load_measured_model(
    order: SpeedConfig,
) -> tuple[PreTrainedModel, Mapping[str, Mapping[str, Any]]]:
    """The model on its device, and the settings that its card has for methods.

    Raises:
        UserError: where it cannot be had.
    """
    device = resolve_device(order.device)
    if order.shape:
        return _of_shape(order, device), {}
    source = models.find_model(order.checkpoint, window=order.window, dtype=order.dtype)
    return models.load_model(source, device)[0], source.settings


def _of_shape(order: SpeedConfig, device: str) -> PreTrainedModel:
    """Random weights, made where they are to be."""
    assert order.shape is not None
    described = dict(shipped_card("shapes", order.shape, ShapeCard).config)
    if order.layers and order.layers > described["num_hidden_layers"]:
        raise UserError(f"--layers: {order.shape} has {described['num_hidden_layers']}")
    if order.layers:
        described["num_hidden_layers"] = order.layers
    config = AutoConfig.for_model(**described)
    name = order.dtype or ("bfloat16" if device.startswith("cuda") else "float32")
    dtype = getattr(torch, name, None)
    if not isinstance(dtype, torch.dtype):
        raise UserError(
            f"--dtype: {name!r} is no type of torch's; use float32, bfloat16 or float16"
        )
    try:
        with torch.device(device):
            model: Any = AutoModelForCausalLM.from_config(config, dtype=dtype)  # type: ignore[no-untyped-call]
    except (RuntimeError, AssertionError) as error:
        raise UserError(
            f"{order.name} on device {device!r}: {str(error).splitlines()[0]}"
        ) from None
    found: PreTrainedModel = model.eval()
    return found
