"""Model ``lampe`` of lm-evaluation-harness: its Hugging Face model, patched with a method.

    lampe-eval lm-eval --model lampe --model_args pretrained=pocket,method=lampe --tasks TASK

Answers and log-likelihoods are the same at every batch size. The harness pads rows of unequal
length on the right without a mask, and a method that depends on the length then plans for the width
of the batch. Here only rows of one length share a batch of log-likelihoods.
"""

import inspect
from collections import defaultdict
from typing import Any

import torch
from lm_eval.api.registry import model_registry
from lm_eval.models.huggingface import HFLM
from torch import Tensor
from tqdm import tqdm

import lampe
from lampe.backend_names import AUTO
from lampe_eval.engine.devices import resolve_device
from lampe_eval.errors import UserError
from lampe_eval.integrations.patched_source import PatchedSource
from lampe_eval.models import ALL_GPUS, load_model, loading_arguments
from lampe_eval.suite import parse_length

WINDOWS = 4
"""Windows that the default `max_length` has, as the default lengths of most benchmarks here."""
UNSUPPORTED = ("peft", "delta", "autogptq", "gptqmodel", "tp_plan")
"""Arguments of the Hugging Face model that change what is loaded."""

TokenizedRequest = tuple[tuple[str, str] | None, list[int], list[int]]
"""Texts of a request where it has any, tokens of its context, and tokens to score."""


class LampeLM(HFLM):  # type: ignore[misc]
    """Language model of lm-evaluation-harness that is patched with a method.

    Args:
        pretrained: card, card file, folder, GGUF file or hub id, as for `lampe-eval run --model`.
        method: a method, also with settings: "lampe:mapping_length=128".
        window: tokens of pretraining, where the configuration states a wrong number.
        attention: name of an attention backend, or "auto".
        max_length: tokens of prompt and answer; what is longer is cut on the left. By default 4
            windows, for every method, so that all of them get the same prompts.
        dtype: data type of the weights; by default that of the model's card.
        device: device as torch names it; "auto" is a GPU if there is one.
        options: arguments of the harness's Hugging Face model; others are settings of the method.

    Raises:
        UserError: for a name, a setting or a value that does not exist, or a model that cannot be
            loaded or patched.
    """

    def __init__(
        self,
        pretrained: str = "pocket",
        method: str = "lampe",
        *,
        window: int | None = None,
        attention: str = AUTO,
        max_length: int | str | None = None,
        dtype: str | None = None,
        device: str | None = None,
        **options: Any,
    ) -> None:
        known = inspect.signature(HFLM.__init__).parameters
        settings = {name: value for name, value in options.items() if name not in known}
        for name in UNSUPPORTED:
            if options.get(name):
                raise UserError(
                    f"model lampe: {name} is not supported; merge it into a checkpoint first, or "
                    "use the model hf"
                )
        self._patched = PatchedSource.of_arguments(
            pretrained, method, settings, window=window, dtype=dtype, attention=attention
        )
        source = self._patched.source
        place, loading = loading_arguments(source.path, source.revision, source.gguf)
        super().__init__(
            place,
            revision=source.revision,
            gguf_file=loading.get("gguf_file"),
            max_length=_max_length(max_length, source.geometry.window),
            device=resolve_device(device or "auto"),
            **{name: value for name, value in options.items() if name in known},
        )

    def _create_model(
        self, pretrained: str, *, parallelize: bool | None = False, **options: Any
    ) -> None:
        """Load the model as every command of lampe-eval does, and patch it."""
        device = ALL_GPUS if parallelize else str(self.device)
        self._model, _ = load_model(self._patched.source, device)
        self._patched.patch(self._model)

    def _loglikelihood_tokens(
        self,
        requests: list[TokenizedRequest],
        disable_tqdm: bool = False,
        override_bs: int | None = None,
    ) -> list[tuple[float, bool]]:
        """Return log-likelihoods; only requests of one length share a batch."""
        rows: dict[int, list[int]] = defaultdict(list)
        for row, (_, context, continuation) in enumerate(requests):
            # The model reads all tokens but the last one.
            rows[min(len(context) + len(continuation) - 1, self.max_length)].append(row)
        # Longest first, so that what does not fit in memory fails early.
        groups = [rows[length] for length in sorted(rows, reverse=True)]
        if self.batch_size == "auto" and override_bs is None and groups:
            override_bs = self._detect_batch_size(requests, groups[0][0])
        answers: dict[int, tuple[float, bool]] = {}
        for group in tqdm(groups, desc="lengths", disable=disable_tqdm or self.rank != 0):
            found = super()._loglikelihood_tokens(
                [requests[row] for row in group], disable_tqdm=True, override_bs=override_bs
            )
            answers |= dict(zip(group, found, strict=True))
        return [answers[row] for row in range(len(requests))]

    def _model_call(
        self, inps: Tensor, attn_mask: Tensor | None = None, labels: Tensor | None = None
    ) -> Tensor:
        """Return the logits ``[B, L, V]`` of rows ``inps[B, L]`` without padding."""
        mixed = self.mixed_precision_dtype
        device_type = self.device.type
        with torch.no_grad(), torch.autocast(device_type, dtype=mixed, enabled=mixed is not None):
            # Without a mask, a last token that pads elsewhere would count as padding.
            mask = torch.ones_like(inps)
            logits: Tensor = self.model(inps, attention_mask=mask, use_cache=False).logits
        return logits

    def _model_generate(
        self, context: Tensor, max_length: int, stop: list[str], **options: Any
    ) -> Tensor:
        """Return prompts ``context[B, L]`` with their answers."""
        cache = lampe.growing_cache(self.model)
        generated: Tensor = super()._model_generate(
            context, max_length, stop, past_key_values=cache, **options
        )
        return generated


def _max_length(given: int | str | None, window: int) -> int:
    """Return the most tokens of prompt and answer."""
    if given is None:
        return WINDOWS * window
    try:
        return parse_length(str(given))
    except ValueError as error:
        raise UserError(f"model lampe: max_length: {error}") from None


# Where the harness loads the entry point, it has registered that under the name already.
if "lampe" not in model_registry:
    model_registry.register("lampe", target=LampeLM)
