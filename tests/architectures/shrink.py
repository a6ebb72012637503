"""Tiny random models of every causal-LM type of transformers, made from default configurations.

No type is a special case. A field with a known name gets a small value, and one layer of each kind
stays: layers differ in kind where some field distinguishes them (layer types, dense or sparse,
rotated or not).
"""

import re
from typing import Any

import torch
from torch import nn
from transformers import (
    CONFIG_MAPPING,
    MODEL_FOR_CAUSAL_LM_MAPPING,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

WINDOW = 64
VOCABULARY = 128
KINDS = 4
"""Kinds of layers at most; each comes twice."""

SMALL_VALUES: tuple[tuple[str, int], ...] = (
    (r"(vocab_size.*|n_vocab|.*_vocab_size)", VOCABULARY),
    (r"(max_position_embeddings|max_seq_len|n_positions|seq_length)", WINDOW),
    (r"(sliding_window|attention_chunk_size|.*window_size|local_attention|.*window_len)", 16),
    (r"attention_hidden_size", 128),
    (
        r"(hidden_size|.*_hidden_size|d_model|n_embd|embedding_size|"
        r"word_embed_proj_dim|lru_width|dim)",
        64,
    ),
    (r"(.*intermediate_size.*|ffn_dim|.*ffn_hidden_size|n_inner|.*_ff|d_inner|ffn_size)", 64),
    (r"(encoder_|decoder_)?(num_|n_)?(attention_|swa_)*(attention_|query_)?heads?", 4),
    (r"(swa_)?num_(global_)?attention_heads", 4),
    (r"(swa_)?num_(global_)?key_value_heads", 2),
    (r"multi_query_group_num", 2),
    (r"(head_dim|global_head_dim|swa_head_dim|attention_head_dim|kv_channels)", 24),
    (r"(v_head_dim|swa_v_head_dim|qk_nope_head_dim)", 16),
    (r"(qk_rope_head_dim|index_head_dim|indexer_head_dim|rotary_dim)", 8),
    (r"qk_head_dim", 24),
    (r".*lora_rank", 16),
    (
        r"(index_topk|index_n_heads|n_index_heads|index_block_size|"
        r"index_local_blocks|index_topk_blocks)",
        4,
    ),
    (r"(n|num|moe_num)_(.*_)?experts", 4),
    (r"(num_experts_per_tok(en)?|moe_topk|top_k|moe_k|top_k_experts)", 2),
    (
        r"(n_group|topk_group|num_expert_group|first_k_dense_replace|"
        r"num_dense_layers|moe_layer_start_index)",
        1,
    ),
    (r"zero_expert_num", 2),
    (r"num_layers_per_stack", 1),
    (r".*_group_vocab", 64),
    (r"(mamba_d_state|state_size|ssm_state_size|mamba_d_conv|conv_kernel|conv_L_cache)", 4),
    (r"(mamba_(n|num)_heads|n_mamba_heads|linear_num(_key|_value)?_heads)", 4),
    (r"(mamba_d_head|mamba_head_dim|linear(_key|_value)?_head_dim|mamba_headdim)", 32),
    (r"mamba_d_ssm", 128),
    (r"(mamba_n_groups|n_groups|mamba_ngroups|mamba_dt_rank|time_step_rank)", 1),
    (r"(mamba_chunk_size|chunk_size)", 16),
)  # fmt: skip
"""Patterns of whole field names, and the largest value that a number there may have."""

UNSET_VALUES: dict[str, Any] = {
    "head_dim": 24,
    "num_key_value_heads": 2,
    "n_routed_experts": 4,
    "n_shared_experts": 1,
    "num_experts_per_tok": 2,
    "layer_types": ["full_attention", "full_attention"],
    "attn_layer_indices": [1],
    "indexer_n_heads": 4,
    "indexer_kv_heads": 2,
    "indexer_head_dim": 8,
}
"""Values for fields that are None by default in some types that need them."""

SWITCHES: dict[str, Any] = {
    "position_embedding_type": "rope",
    "use_mem_rope": True,
    "mamba_d_head": 32,
    "H_cycles": 1,
    "L_cycles": 1,
}
"""Fields that switch on rotary positions where they are optional, or reduce further sizes."""

HEADS = ("head_dim", "global_head_dim", "attention_head_dim")
HEAD_DIMS = (24, 16, 32)
DEPTH = ("num_hidden_layers", "n_layers", "n_layer", "num_layers", "decoder_layers")
TOKENS = ("pad_token_id", "bos_token_id", "eos_token_id")


def types() -> list[str]:
    """Return every causal-LM type of the installed transformers."""
    return sorted(
        name for name in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES if name in CONFIG_MAPPING_NAMES
    )


def tiny_model(name: str) -> PreTrainedModel:
    """Return a random model of a type in float32, without weights of 0 or 1 that hide an effect.

    Of a composite type it is the language model. Where the type allows it, the width of a head is
    not the hidden size divided by the number of heads, so that code that assumes so fails.
    """
    config = CONFIG_MAPPING[name]()
    kind = MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]
    if kind.config_class is not type(config):
        config = config.get_text_config()
    failure: Exception | None = None
    for head_dim in HEAD_DIMS:
        torch.manual_seed(0)
        try:
            model: PreTrainedModel = kind(shrunk(config, head_dim)).float().eval()
            _randomize(model)
            model(torch.arange(8)[None], use_cache=False)
            return model
        except Exception as error:
            failure = failure or error
    assert failure is not None
    raise failure


def in_precision(model: PreTrainedModel, dtype: torch.dtype) -> PreTrainedModel:
    """Return the model cast to a dtype as loading does: inverse frequencies stay float32."""
    frequencies = {
        name: buffer.clone() for name, buffer in model.named_buffers() if "inv_freq" in name
    }
    model.to(dtype)
    for name, buffer in frequencies.items():
        module, _, attribute = name.rpartition(".")
        setattr(model.get_submodule(module), attribute, buffer)
    return model


@torch.no_grad()
def _randomize(model: nn.Module) -> None:
    """Randomize norms that start as ones, and sinks and biases that start as zeros."""
    for parameter in model.parameters():
        if parameter.ndim <= 1:
            parameter.add_(torch.empty_like(parameter).uniform_(-0.3, 0.3))
        elif parameter.std() < 0.05:
            parameter.normal_(std=0.1)


def shrunk(config: PreTrainedConfig, head_dim: int = 24) -> PreTrainedConfig:
    """Return the configuration with small values, those of a composite model's parts too."""
    fields = _small(config.to_dict())
    fields |= {name: head_dim for name in HEADS if fields.get(name) == 24}
    return type(config)(**fields)


def _small(fields: dict[str, Any]) -> dict[str, Any]:
    """Return fields with small values and two layers of each kind."""
    depth = next((fields[name] for name in DEPTH if isinstance(fields.get(name), int)), 0)
    layers = _sampled_layers(fields, depth)
    out = {name: _value(name, value, depth, layers) for name, value in fields.items()}
    out |= {name: value for name, value in SWITCHES.items() if name in fields}
    if fields.get("num_kv_shared_layers"):
        out["num_kv_shared_layers"] = len(layers) // 2
    if "qk_rope_head_dim" in fields and "head_dim" in fields:
        out["head_dim"] = out["qk_rope_head_dim"]
    if "qk_rope_head_dim" in fields and "num_key_value_heads" in fields:
        out["num_key_value_heads"] = out["num_attention_heads"]
    if set(out.get("layer_types") or ()) == {"linear_attention"}:
        out["layer_types"][-1] = "full_attention"
    if fields.get("rope_parameters") == {}:
        rope = {"rope_type": "default", "rope_theta": 10000.0}
        out["rope_parameters"] = {kind: dict(rope) for kind in set(fields["layer_types"])}
    return out


def _sampled_layers(fields: dict[str, Any], depth: int) -> list[int]:
    """Return the first layer of each kind, all of them twice.

    Layers are of one kind where every field that is given per layer has the same value for them.
    """
    per_layer = [value for value in fields.values() if _is_per_layer(value, depth)]
    first_of_kind: dict[str, int] = {}
    for layer in range(depth):
        kind = repr([_layer_value(value, layer, depth) for value in per_layer])
        first_of_kind.setdefault(kind, layer)
    kinds = sorted(first_of_kind.values())[:KINDS]
    return kinds + kinds


def _is_per_layer(value: Any, depth: int) -> bool:
    """Return whether a field is given per layer.

    It is a list as long as the model, a sorted list of layer numbers, or a table by layer number.
    """
    if isinstance(value, dict):
        return bool(value) and all(
            str(at).isdigit() and isinstance(part, dict) for at, part in value.items()
        )
    if isinstance(value, list) and len(value) < depth:
        return (
            bool(value)
            and all(type(item) is int and item < depth for item in value)
            and value == sorted(value)
        )
    return isinstance(value, list) and len(value) == depth


def _layer_value(value: Any, layer: int, depth: int) -> Any:
    """Return the value for a layer of a field that is given per layer."""
    if isinstance(value, dict):
        return {int(key): part for key, part in value.items()}.get(layer)
    return value[layer] if len(value) == depth else layer in value


def _value(name: str, value: Any, depth: int, layers: list[int]) -> Any:
    if value is None:
        return UNSET_VALUES.get(name)
    if name in DEPTH:
        return len(layers) or 2
    if name in TOKENS:
        return TOKENS.index(name)
    if depth and _is_per_layer(value, depth):
        values = [_layer_value(value, layer, depth) for layer in layers]
        if isinstance(value, dict):
            return {at: _small(part) for at, part in enumerate(values) if part is not None}
        if len(value) == depth:
            return [_limited(name, part) for part in values]
        return [at for at, listed in enumerate(values) if listed]
    if isinstance(value, dict) and name != "rope_parameters":
        return _small(value)
    return _limited(name, value)


def _limited(name: str, value: Any) -> Any:
    """Return a number no larger than a field of this name may be; anything else unchanged."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return value
    return min(
        value,
        next((small for pattern, small in SMALL_VALUES if re.fullmatch(pattern, name)), value),
    )
