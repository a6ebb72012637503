"""Fixtures of the library's tests: a tiny model, and no gradients."""

import warnings
from collections.abc import Iterator

import pytest
import torch
from transformers import LlamaForCausalLM

import lampe
from tests.lampe.tiny import llama


@pytest.fixture
def model() -> LlamaForCausalLM:
    return llama()


@pytest.fixture
def no_gradients_or_warnings() -> Iterator[None]:
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore", lampe.PositionWarning)
        yield
