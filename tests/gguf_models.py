"""Tiny random Llamas as GGUF files and as checkpoints, with the same weights and tokenizer."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import torch
from transformers import LlamaConfig, LlamaForCausalLM

CONFIG = LlamaConfig(
    vocab_size=260,
    hidden_size=64,
    intermediate_size=96,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=64,
    rope_parameters={"rope_type": "default", "rope_theta": 5000.0},
    tie_word_embeddings=False,
)
SPECIALS = ["<unk>", "<s>", "</s>"]
TEMPLATE = "{% for m in messages %}<s>{{ m['content'] }}</s>{% endfor %}"
PARTS = {
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
"""Names of a layer's parts in GGUF files by those of transformers."""


def random_llama() -> LlamaForCausalLM:
    """Return a Llama with random weights that float16 holds exactly."""
    model = LlamaForCausalLM(CONFIG)
    with torch.no_grad():
        for weight in model.parameters():
            weight.normal_(std=0.1) if weight.ndim > 1 else weight.uniform_(0.9, 1.1)
            weight.copy_(weight.half().float())
    return model.eval()


def write_gguf(
    path: Path,
    model: LlamaForCausalLM,
    kind: gguf.GGMLQuantizationType = gguf.GGMLQuantizationType.F16,
    *,
    architecture: str = "llama",
    tokenizer: bool = True,
    change: Callable[[gguf.GGUFWriter], Any] = lambda _: None,
) -> None:
    """Write a model to a GGUF file.

    Args:
        path: the file.
        model: the model.
        kind: data type of its matrices.
        architecture: name of the architecture that the header states.
        tokenizer: whether the file has a tokenizer, one of bytes.
        change: adds more fields.
    """
    writer = gguf.GGUFWriter(path, architecture)
    config = model.config
    assert config.num_key_value_heads
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_vocab_size(config.vocab_size)
    if tokenizer:
        _add_tokenizer(writer)
    change(writer)
    for name, weight in model.state_dict().items():
        data = _in_order_of_gguf(name, weight, config).numpy()
        if data.ndim == 1:
            writer.add_tensor(_gguf_name(name), data)
        else:
            writer.add_tensor(_gguf_name(name), gguf.quantize(data, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _add_tokenizer(writer: gguf.GGUFWriter) -> None:
    """Add a tokenizer of single bytes, as GPT-2 writes them, and one merge."""
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    letters = [chr(byte) for byte in shown] + [chr(256 + n) for n in range(256 - len(shown))]
    tokens = [*SPECIALS, *letters, "th"]
    control, normal = gguf.TokenType.CONTROL, gguf.TokenType.NORMAL
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(tokens)
    writer.add_token_types([control if token in SPECIALS else normal for token in tokens])
    writer.add_token_merges(["t h"])
    writer.add_unk_token_id(0)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_chat_template(TEMPLATE)


def _gguf_name(name: str) -> str:
    outside = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
    part = name.removesuffix(".weight")
    if part in outside:
        return f"{outside[part]}.weight"
    _, _, layer, part = part.split(".", 3)
    return f"blk.{layer}.{PARTS[part]}.weight"


def _in_order_of_gguf(name: str, weight: torch.Tensor, config: LlamaConfig) -> torch.Tensor:
    """Return a weight as llama.cpp has it: rows of queries and keys with their pairs together."""
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
    count = heads.get(name.split(".")[-2])
    if count is None:
        return weight
    return weight.unflatten(0, (count, 2, -1)).transpose(1, 2).flatten(0, 2).contiguous()
