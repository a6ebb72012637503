"""Configurations of transformers that do what a method does, without a patch."""

import copy
from types import MappingProxyType
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

import lampe
from lampe.methods import METHODS, method_of

LENGTH = 640
CONFIGURABLE: list[tuple[str, dict[str, Any]]] = [
    ("pi", {}),
    ("ntk", {}),
    ("dynamic-ntk", {"cache": "rotated"}),
    ("yarn", {}),
    ("yarn", {"factor": 8, "attention_factor": 1.1, "beta_fast": 16}),
]


@pytest.mark.parametrize(("name", "settings"), CONFIGURABLE)
def test_a_configuration_computes_the_logits_of_a_patched_model(
    name: str,
    settings: dict[str, Any],
    pocket: tuple[PreTrainedModel, PreTrainedTokenizerBase],
) -> None:
    patched, _ = pocket
    geometry = lampe.geometry_of(patched.config)
    method = method_of(name, **settings).resolved(geometry, LENGTH)
    parameters = method.rope_parameters(geometry, LENGTH)
    assert parameters is not None
    config = copy.deepcopy(patched.config)
    config.rope_parameters = dict(parameters)
    configured = type(patched)(config).to(patched.dtype).eval()
    configured.load_state_dict(patched.state_dict())
    ids = torch.arange(LENGTH)[None] % patched.config.vocab_size
    with torch.no_grad():
        with lampe.patch(patched, name, **settings):
            expected = patched(ids).logits
        torch.testing.assert_close(configured(ids).logits, expected, rtol=0, atol=2e-3)
        assert (configured(ids).logits - patched(ids).logits).abs().max() > 0.1


def test_the_unpatched_model_keeps_its_configuration() -> None:
    geometry = lampe.Geometry(window=256, head_dim=64)
    parameters = method_of("original").rope_parameters(geometry, LENGTH)
    assert parameters == geometry.rope_parameters


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("dynamic-ntk", {}),
        ("original", {"attention_factor": 1.1}),
        *((name, {}) for name in METHODS if name not in {"original", "pi", "ntk", "yarn"}),
        ("dca+yarn", {}),
    ],
)
def test_no_configuration_does_what_other_methods_do(name: str, settings: dict[str, Any]) -> None:
    geometry = lampe.Geometry(window=256, head_dim=64)
    method = method_of(name, **settings).resolved(geometry, LENGTH)
    assert method.rope_parameters(geometry, LENGTH) is None


def test_a_configuration_keeps_the_share_of_a_head_that_is_rotated() -> None:
    own = {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.5}
    geometry = lampe.Geometry(
        window=256, head_dim=64, rotary_dim=32, rope_parameters=MappingProxyType(own)
    )
    for name in ("pi", "ntk", "yarn"):
        method = method_of(name).resolved(geometry, LENGTH)
        parameters = method.rope_parameters(geometry, LENGTH)
        assert parameters is not None and parameters["partial_rotary_factor"] == 0.5


def test_linear_scaling_does_not_replace_a_scaling_that_the_model_has() -> None:
    own = {"rope_type": "linear", "rope_theta": 1e4, "factor": 2.0}
    geometry = lampe.Geometry(window=256, head_dim=64, rope_parameters=MappingProxyType(own))
    method = method_of("pi").resolved(geometry, LENGTH)
    assert method.rope_parameters(geometry, LENGTH) is None
