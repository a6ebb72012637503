"""Small Llama with random weights, whose answers depend on positions, and prompts for it."""

import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

WINDOW = 64


def llama(layers: int = 2) -> LlamaForCausalLM:
    """Return the model."""
    config = LlamaConfig(
        vocab_size=128,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        max_position_embeddings=WINDOW,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=None,
        initializer_range=0.15,
    )
    return LlamaForCausalLM(config).eval()


def random_ids(length: int, rows: int = 1) -> Tensor:
    """Return random tokens ``[rows, length]``, none of them special."""
    return torch.randint(2, 128, (rows, length))
