"""Attention backend of vLLM on the CPU: a method's attention over vLLM's paged KV cache.

Without a method it hands everything on to vLLM's own backend, which it stands in for.
"""

from typing import Any

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
from lampe.attention.rotation import rotate
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
        kv_cache.transpose(1, 2)[slot_mapping // size, slot_mapping % size] = torch.cat(
            (key, value), dim=-1
        )

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
        groups, heads, dim = self.num_kv_heads, self.num_queries_per_kv, self.head_size
        attend = paged_decode.compile_attention(
            dim,
            heads,
            single.tables.shape[1] // 2,
            geometry.begin,
            geometry.layout == "interleaved",
            float(self.logits_soft_cap),
            query.dtype == torch.bfloat16,
        )
        rows = query[single.part_tokens].float() * (single.scales * self.scale)
        rows = rotate(rows, single.cos, single.sin, geometry.layout, geometry.begin)
        parts = len(single.parts)
        part_out = rows.new_empty(parts, groups, heads, dim)
        part_lse = rows.new_empty(parts, groups, heads)
        attend(
            single.parts,
            rows.view(parts, groups, heads, dim).numpy(),
            torch.unflatten(kv_cache, -1, (2, dim)).view(COMPILED_DTYPES[query.dtype]).numpy(),
            batch.block_table.numpy(),
            single.tables,
            part_out.numpy(),
            part_lse.numpy(),
        )
        out = rows.new_empty(len(single.tokens), self.num_heads, dim)
        sinks = rows.new_empty(0) if self.sinks is None else self.sinks.float()
        paged_decode.merge_parts(
            single.ends,
            part_out.view(parts, self.num_heads, dim).numpy(),
            part_lse.view(parts, self.num_heads).numpy(),
            sinks.numpy(),
            out.numpy(),
        )
        output[single.tokens] = out.to(output.dtype)


def _gathered(
    kv_cache: Tensor, block_table: Tensor, request: RequestTokens
) -> tuple[Tensor, Tensor]:
    """Return the keys and values ``[G, K, D]`` of a request, up to its last token of a step."""
    size, dim = kv_cache.shape[2], kv_cache.shape[3] // 2
    length = request.start + request.count
    blocks = block_table[request.row, : -(-length // size)]
    # Selected before it is transposed: of a view torch would copy the whole cache first.
    gathered = kv_cache.index_select(0, blocks).transpose(0, 1).flatten(1, 2)[:, :length]
    return gathered[..., :dim], gathered[..., dim:]
