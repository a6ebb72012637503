"""Attention backend of vLLM on the CPU: a method's attention over vLLM's paged KV cache.

Without a method it hands everything on to vLLM's own backend, which it stands in for.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor
from vllm.config import get_current_vllm_config
from vllm.v1.attention.backend import CommonAttentionMetadata
from vllm.v1.attention.backends.cpu_attn import (
    CPUAttentionBackend,
    CPUAttentionBackendImpl,
    CPUAttentionMetadataBuilder,
)

from lampe.attention.blockwise import Blockwise
from lampe.attention.inputs import AttentionInputs
from lampe.attention.logit_options import LogitOptions
from lampe.positions import LocalWindow
from lampe_vllm import paged_decode
from lampe_vllm.batch_tokens import BatchTokens, RequestTokens, SingleQueries
from lampe_vllm.engine_state import EngineState, engine_state
from lampe_vllm.layer_checks import check_layer
from lampe_vllm.prompt_encodings import PromptEncoding

BLOCKWISE = Blockwise()
COMPILED_DTYPES = {torch.float32: torch.float32, torch.bfloat16: torch.int16}
"""Data types that compiled code reads, and the type of numpy by which it does."""


class LampeCPUBackend(CPUAttentionBackend):
    """Backend that vLLM finds in the place of its own."""

    @classmethod
    def supports_rswa(cls) -> bool:
        """Accept the option by which vLLM hands over the length of each prompt."""
        return True

    @staticmethod
    def get_impl_cls() -> type["LampeCPUAttention"]:
        return LampeCPUAttention

    @staticmethod
    def get_builder_cls() -> type["LampeCPUMetadataBuilder"]:
        return LampeCPUMetadataBuilder


class LampeCPUMetadataBuilder(CPUAttentionMetadataBuilder):
    """Builder of ``BatchTokens`` for each step."""

    def __init__(self, kv_cache_spec: Any, layer_names: Any, vllm_config: Any, device: Any) -> None:
        super().__init__(kv_cache_spec, layer_names, vllm_config, device)
        self.lampe = engine_state(vllm_config)
        if self.lampe is not None:
            self.lampe.prepare()

    def build(
        self,
        common_prefix_len: int,
        common_attn_metadata: CommonAttentionMetadata,
        fast_build: bool = False,
    ) -> Any:
        batch = common_attn_metadata
        if self.lampe is None:
            return super().build(common_prefix_len, batch, fast_build)
        return BatchTokens.of(
            batch.query_start_loc_cpu,
            batch.seq_lens,
            batch.rswa_prefix_lens,
            batch.block_table_tensor,
            self.lampe.reserved_tokens,
        )


class LampeCPUAttention(CPUAttentionBackendImpl):
    """Attention of one layer.

    Shapes: T tokens of a step, H query heads, G key heads, D head dimensions.
    """

    lampe: EngineState | None

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.lampe = engine_state(get_current_vllm_config())
        if self.lampe is not None:
            check_layer(self)
        self._local = LocalWindow(self.sliding_window) if self.sliding_window > 0 else None

    def do_kv_cache_update(
        self, layer: Any, key: Tensor, value: Tensor, kv_cache: Tensor, slot_mapping: Tensor
    ) -> None:
        """Write the keys ``[T, G, D]`` and values of a step into the cache."""
        if self.lampe is None:
            super().do_kv_cache_update(layer, key, value, kv_cache, slot_mapping)
            return
        # vLLM's own writer orders numbers as its kernel for this processor reads them.
        size = kv_cache.shape[2]
        slots = _keys_and_values(kv_cache).permute(0, 3, 2, 1, 4)
        slots[slot_mapping // size, slot_mapping % size] = torch.stack((key, value), dim=1)

    def forward(
        self,
        layer: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        kv_cache: Tensor,
        attn_metadata: Any,
        output: Tensor,
        *others: Any,
        **options: Any,
    ) -> Tensor:
        """Write the attention of a step's queries ``[T, H, D]`` to ``output``, and return it."""
        # vLLM has no metadata when it only measures memory.
        if self.lampe is None or attn_metadata is None:
            super().forward(
                layer, query, key, value, kv_cache, attn_metadata, output, *others, **options
            )
            return output
        assert isinstance(attn_metadata, BatchTokens)
        batch = attn_metadata
        compiled = query.dtype in COMPILED_DTYPES
        step = batch.layer_step(self._local, self.lampe.encodings, compiled)
        for request, prompt in step.whole:
            tokens = slice(request.begin, request.begin + request.count)
            if request.start:
                keys, values = _gathered(kv_cache, batch.block_table, request)
            else:
                # The whole of what they see is at hand.
                keys, values = key[tokens].transpose(0, 1), value[tokens].transpose(0, 1)
            output[tokens] = self._attend(query[tokens], keys, values, request, prompt)
        if step.single is not None:
            self._attend_single(query, kv_cache, batch, step.single, output)
        return output

    def _attend(
        self,
        query: Tensor,
        keys: Tensor,
        values: Tensor,
        request: RequestTokens,
        prompt: PromptEncoding,
    ) -> Tensor:
        """Return the attention ``[T, H, D]`` of the queries of one request.

        Args:
            query: ``[T, H, D]``.
            keys: ``[G, K, D]``, of all tokens up to the last query.
            values: ``[G, K, D]``.
            request: the request's tokens.
            prompt: the encoding of its prompt.
        """
        inputs = AttentionInputs(
            query.transpose(0, 1)[None],
            keys[None],
            values[None],
            prompt.at(request.start + request.count),
            scale=self.scale,
            start=request.start,
            logits=LogitOptions(self.logits_soft_cap or None, self.sinks),
            tables=prompt.tables,
        )
        return BLOCKWISE.attend(inputs)[0].transpose(0, 1)

    def _attend_single(
        self,
        query: Tensor,
        kv_cache: Tensor,
        batch: BatchTokens,
        single: SingleQueries,
        output: Tensor,
    ) -> None:
        """Write the attention of queries that attend one by one."""
        assert self.lampe is not None
        geometry = self.lampe.encodings.geometry
        attend = paged_decode.compile_attention(
            self.head_size,
            self.num_queries_per_kv,
            geometry.dim // 2,
            geometry.begin,
            geometry.layout == "interleaved",
            float(self.logits_soft_cap),
            query.dtype == torch.bfloat16,
        )
        bits = COMPILED_DTYPES[query.dtype]
        sinks = query.new_empty(0) if self.sinks is None else self.sinks
        out = torch.empty(len(single.tokens), *query.shape[1:], dtype=torch.float32)
        attend(
            query[single.tokens].view(bits).numpy(),
            single.scales * np.float32(self.scale),
            single.parts,
            single.rotations,
            single.ends,
            _keys_and_values(kv_cache).view(bits).numpy(),
            batch.block_table.numpy(),
            single.tables,
            sinks.float().numpy(),
            out.numpy(),
        )
        output[single.tokens] = out.to(output.dtype)


def _keys_and_values(kv_cache: Tensor) -> Tensor:
    """Return a view ``[blocks, G, 2, size, D]`` of the cache.

    The keys of a block lie together, and so do its values: that is the order of reading, and
    attention of a decode step is a tenth faster than with each key beside its value.
    """
    blocks, groups, size, both = kv_cache.shape
    return kv_cache.view(blocks, groups, 2, size, both // 2)


def _gathered(
    kv_cache: Tensor, block_table: Tensor, request: RequestTokens
) -> tuple[Tensor, Tensor]:
    """Return the keys and values ``[G, K, D]`` of a request, up to its last token of a step."""
    length = request.start + request.count
    blocks = block_table[request.row, : -(-length // kv_cache.shape[2])]
    # Selected before it is transposed: of a view torch would copy the whole cache first.
    gathered = _keys_and_values(kv_cache.index_select(0, blocks)).permute(2, 1, 0, 3, 4)
    keys, values = gathered.flatten(2, 3)[:, :, :length]
    return keys, values
