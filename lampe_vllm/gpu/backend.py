"""Attention backend of vLLM on a GPU, chosen by ``--attention-backend CUSTOM``.

It has not run on a GPU yet. CUDA graphs capture everything but attention: what a step needs is
computed on the host, for each request by its own encoding.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor
from vllm.config import get_current_vllm_config
from vllm.v1.attention.backend import (
    AttentionBackend,
    AttentionImpl,
    AttentionMetadataBuilder,
    CommonAttentionMetadata,
    MultipleOf,
)

from lampe.attention import BackendDispatcher, LogitOptions
from lampe.attention.triton_backend import MAX_HEAD_DIM, MIN_HEAD_DIM
from lampe.errors import UnsupportedModel
from lampe.positions import LocalWindow
from lampe_vllm.batch_tokens import BatchTokens
from lampe_vllm.engine_state import EngineState, engine_state
from lampe_vllm.gpu.decode import DecodeTables
from lampe_vllm.gpu.paged_cache import PagedCache
from lampe_vllm.gpu.step import GPUStep, divide_step
from lampe_vllm.layer_checks import check_layer
from lampe_vllm.prompt_encodings import PromptEncodings


class LampeGPUBackend(AttentionBackend):
    """Backend of a served method over vLLM's paged KV cache, in any of its layouts."""

    supported_dtypes: ClassVar[list[torch.dtype]] = [torch.bfloat16, torch.float16]
    supported_kv_cache_dtypes: ClassVar[list[Any]] = ["auto"]
    forward_includes_kv_cache_update = False

    @staticmethod
    def get_name() -> str:
        """Return the name of vLLM's enumeration under which ``plugin`` registers this class."""
        return "CUSTOM"

    @staticmethod
    def get_impl_cls() -> type["LampeGPUAttention"]:
        return LampeGPUAttention

    @staticmethod
    def get_builder_cls() -> type["LampeGPUMetadataBuilder"]:
        return LampeGPUMetadataBuilder

    @staticmethod
    def get_supported_kernel_block_sizes(kv_cache_spec: Any = None) -> list[int | MultipleOf]:
        return [MultipleOf(16)]

    @classmethod
    def supports_head_size(cls, head_size: int) -> bool:
        return MIN_HEAD_DIM <= head_size <= MAX_HEAD_DIM

    @classmethod
    def supports_compute_capability(cls, capability: Any) -> bool:
        return bool(capability.major >= 8)

    @classmethod
    def supports_sink(cls) -> bool:
        return True

    @classmethod
    def supports_sliding_window(cls) -> bool:
        return True

    @classmethod
    def supports_kv_connector(cls) -> bool:
        """Refuse caches that other engines share, whose prompts may have other encodings."""
        return False

    @classmethod
    def supports_device_cpu_query_lens_mismatch(cls) -> bool:
        """Refuse speculation that decides on the device how many tokens a request has."""
        return False

    @classmethod
    def supports_rswa(cls) -> bool:
        """Accept the option by which vLLM hands over the length of each prompt."""
        return True


@dataclass(eq=False)
class GPUBatchTokens:
    """Tokens of a step; vLLM's metadata of attention for the layers of one KV cache group.

    Attributes:
        batch: requests that have tokens in this step, and their blocks.
        tables: tables of decode steps for each kind of layer, from one step to the next.
    """

    batch: BatchTokens
    tables: dict[LocalWindow | None, DecodeTables]
    _steps: dict[LocalWindow | None, GPUStep] = field(default_factory=dict)

    def step(self, local: LocalWindow | None, encodings: PromptEncodings) -> GPUStep:
        """Return how the tokens attend in a kind of layer, computed once for all of its layers.

        Args:
            local: tokens that the layer attends to; None for all.
            encodings: those of the method.
        """
        if local not in self._steps:
            requests, block_table = self.batch.requests, self.batch.block_table
            prompts = encodings.prompts(local, [request.prompt for request in requests])
            if local not in self.tables:
                self.tables[local] = DecodeTables(block_table.device)
            pairs = list(zip(requests, prompts, strict=True))
            self._steps[local] = divide_step(pairs, block_table, self.tables[local])
        return self._steps[local]


class LampeGPUMetadataBuilder(AttentionMetadataBuilder[GPUBatchTokens]):
    """Builder of ``GPUBatchTokens`` for each step."""

    def __init__(
        self, kv_cache_spec: Any, layer_names: Sequence[str], vllm_config: Any, device: torch.device
    ) -> None:
        super().__init__(kv_cache_spec, list(layer_names), vllm_config, device)
        state = engine_state(vllm_config)
        assert state is not None, "layers of this backend refuse to be made without a method"
        # All rotary modules of the model are there by now.
        state.prepare()
        self._state = state
        self._tables: dict[LocalWindow | None, DecodeTables] = {}

    def build(
        self,
        common_prefix_len: int,
        common_attn_metadata: CommonAttentionMetadata,
        fast_build: bool = False,
    ) -> GPUBatchTokens:
        batch = common_attn_metadata
        lengths = batch.seq_lens_cpu_upper_bound
        if lengths is None or self.vllm_config.speculative_config is not None:
            # With speculation the host only knows a bound; asking the device waits for it.
            lengths = batch.seq_lens.cpu()
        # Dummy batches, whose answers nobody reads, have no prompts or empty ones. vLLM's second
        # model runner holds the lengths on the device, without those of padding.
        prompts = lengths if batch.rswa_prefix_lens is None else batch.rswa_prefix_lens.cpu()
        tokens = BatchTokens.of(
            batch.query_start_loc_cpu,
            lengths[: len(prompts)],
            prompts.clamp(min=1),
            batch.block_table_tensor,
            self._state.reserved_tokens,
        )
        return GPUBatchTokens(tokens, self._tables)


class LampeGPUAttention(AttentionImpl[GPUBatchTokens]):
    """Attention of one layer.

    Shapes: T tokens of a step, H query heads, G key heads, D head dimensions.
    """

    lampe: EngineState

    def __init__(
        self,
        num_heads: int,
        head_size: int,
        scale: float,
        num_kv_heads: int | None = None,
        alibi_slopes: list[float] | None = None,
        sliding_window: int | None = None,
        kv_cache_dtype: str = "auto",
        logits_soft_cap: float | None = None,
        attn_type: str = "decoder",
        kv_sharing_target_layer_name: str | None = None,
        sinks: Tensor | None = None,
    ) -> None:
        self.num_heads, self.num_kv_heads = num_heads, num_kv_heads or num_heads
        self.head_size, self.scale = head_size, float(scale)
        self.kv_cache_dtype, self.is_fp8_kv_cache = kv_cache_dtype, kv_cache_dtype != "auto"
        self.alibi_slopes, self.attn_type = alibi_slopes, attn_type
        self.kv_sharing_target_layer_name = kv_sharing_target_layer_name
        state = engine_state(get_current_vllm_config())
        if state is None:
            raise UnsupportedModel(
                "--attention-backend CUSTOM is lampe's and needs a method; give one in "
                "--hf-overrides, as lampe-eval serve does, or leave the option out"
            )
        self.lampe = state
        check_layer(self)
        self._local = LocalWindow(sliding_window) if sliding_window else None
        self._logits = LogitOptions(logits_soft_cap or None, sinks)
        self._dispatcher = BackendDispatcher()

    def do_kv_cache_update(
        self, layer: Any, key: Tensor, value: Tensor, kv_cache: Tensor, slot_mapping: Tensor
    ) -> None:
        """Write the keys ``[T, G, D]`` and values of a step into the cache."""
        # vLLM has it on GPUs alone.
        from vllm.v1.attention.backends.fa_utils import reshape_and_cache_flash

        cache = PagedCache.from_vllm(kv_cache)
        reshape_and_cache_flash(
            key,
            value,
            cache.key.transpose(1, 2),
            cache.value.transpose(1, 2),
            slot_mapping,
            self.kv_cache_dtype,
            layer._k_scale,
            layer._v_scale,
        )

    def forward(
        self,
        layer: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        kv_cache: Tensor,
        attn_metadata: GPUBatchTokens | None,
        output: Tensor,
        output_scale: Tensor | None = None,
        output_block_scale: Tensor | None = None,
    ) -> Tensor:
        """Write the attention of a step's queries ``[T, H, D]`` to ``output``, and return it."""
        # vLLM has no metadata when it only measures memory.
        if attn_metadata is None:
            return output.fill_(0)
        step = attn_metadata.step(self._local, self.lampe.encodings)
        step.attend(
            query,
            PagedCache.from_vllm(kv_cache),
            output,
            scale=self.scale,
            logits=self._logits,
            dispatcher=self._dispatcher,
        )
        return output
