"""Engine that answers prompts and reads passages by vLLM, in this process.

One engine serves all methods of a model: a worker extension switches the method. vLLM makes its own
batches, so a sample's answer does not depend on those that run beside it.
"""

import math
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

# Before vLLM is imported: methods of plug-ins are known to this process only.
os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")

import torch
import vllm
from transformers import PreTrainedTokenizerBase
from vllm import LLM, RequestOutput, SamplingParams
from vllm.logprobs import Logprob
from vllm.platforms import current_platform

import lampe
from lampe.errors import first_line
from lampe_eval.benches.bench import Passage, Prompt, ScoredText
from lampe_eval.device_memory import total_bytes
from lampe_eval.engine.local_engine import GeneratedAnswer, StopStrings, decode_answer
from lampe_eval.errors import UserError
from lampe_eval.models import ModelSource, cost_of, weights_dtype
from lampe_vllm import plugin
from lampe_vllm.served_method import ServedMethod

PROMPTS_AT_A_TIME = 8
"""Prompts of full length whose keys and values fit the cache on a CPU."""
CPU_CACHE_SHARE = 3
"""Part of the machine's memory, a third, that the cache takes at most, beyond one prompt."""
GPU_MEMORY_SHARE = 0.85
"""Share of a GPU's memory that vLLM takes: tables of cos and sin lie beside it."""
WORKER_EXTENSION = "lampe_vllm.worker_extension.MethodExtension"


class VllmEngine:
    """Model loaded by vLLM, which serves one method at a time.

    Attributes:
        tokenizer: the model's tokenizer.
        device: device type.
        low_memory_from: infinite, because vLLM keeps to the memory that it has taken.
    """

    low_memory_from = math.inf

    def __init__(
        self,
        source: ModelSource,
        tokenizer: PreTrainedTokenizerBase,
        stop_tokens: Sequence[int],
        max_length: int,
        gpus: int = 1,
    ) -> None:
        """Load the model.

        Args:
            source: the model.
            tokenizer: its tokenizer.
            stop_tokens: its stop tokens.
            max_length: tokens of the longest prompt with its answer.
            gpus: GPUs that the model is spread over.

        Raises:
            UserError: for a model that cannot be served.
        """
        self.tokenizer = tokenizer
        self.device = torch.device(current_platform.device_type)
        self._method, self._geometry = lampe.method_of("original"), source.geometry
        self._stop_tokens = list(stop_tokens)
        self._served = self._asked = ServedMethod("original", window=source.geometry.window)
        self._reserved_tokens = 0
        # The package may be used from a checkout, without its entry points.
        plugin.register()
        try:
            self._llm = LLM(
                model=source.path,
                revision=None if source.commit is None else source.revision,
                # Left to itself, vLLM computes in bfloat16 what is stored in float32.
                dtype=weights_dtype(source),
                max_model_len=max_length,
                hf_overrides=self._served.overrides(max_length),
                skip_tokenizer_init=True,
                enable_prefix_caching=False,
                tensor_parallel_size=gpus,
                **_device_options(source, max_length),
                # As the local engine runs the model, so that float32 gives the same answers.
                enforce_eager=True,
                generation_config="vllm",
                worker_extension_cls=WORKER_EXTENSION,
            )
        except Exception as error:
            problem = f"vLLM cannot load it: {first_line(error)}"
            raise UserError(f"model {source.name!r}: {problem}") from None

    @property
    def backend(self) -> str:
        """Return name and version of what runs, and the device type."""
        return f"vllm {vllm.__version__} on {self.device.type}"

    @contextmanager
    def patched(self, method: lampe.Method, window: int, attention: str) -> Iterator[None]:
        """Serve a method for the calls within the context.

        Args:
            method: the method.
            window: tokens of the model's pretraining.
            attention: not used: vLLM has one backend.
        """
        self._method = method
        self._asked = ServedMethod.of_method(method, window)
        yield

    def answer(
        self, prompts: Sequence[Prompt], *, low_memory: bool = False
    ) -> list[GeneratedAnswer]:
        """Generate greedy answers to prompts.

        Args:
            prompts: prompts with the same `max_new_tokens`, `stop_token_ids`, `stop_strings`,
                `decoding` and `reserved_tokens`.
            low_memory: not used: vLLM reads prompts in chunks.
        """
        first = prompts[0]
        rows = [prompt.ids for prompt in prompts]
        self._check(rows, first.reserved_tokens, first.max_new_tokens)
        self._serve(first.reserved_tokens)
        stops = {*self._stop_tokens, *first.stop_token_ids}
        parameters = SamplingParams(
            temperature=0,
            max_tokens=first.max_new_tokens,
            min_tokens=1 if first.stop_token_ids else 0,
            stop_token_ids=sorted(stops),
            ignore_eos=True,
            detokenize=False,
            # Of each token alone; where a logit is not a number, neither is this.
            logprobs=0,
        )
        started = time.perf_counter()
        stop_strings = StopStrings(self.tokenizer, first.stop_strings)
        outputs, first_tokens_at = self._run(rows, parameters, stop_strings)
        prefill_seconds = first_tokens_at - started
        decode_seconds = time.perf_counter() - first_tokens_at
        answers = []
        for prompt, output in zip(prompts, outputs, strict=True):
            (answer,) = output.outputs
            tokens = list(answer.token_ids)
            text, count, stop_reason = decode_answer(self.tokenizer, prompt, stops, tokens)
            has_nan = any(
                math.isnan(step[token].logprob)
                for step, token in zip(answer.logprobs, tokens, strict=True)
            )
            answers.append(
                GeneratedAnswer(text, count, stop_reason, has_nan, prefill_seconds, decode_seconds)
            )
        return answers

    def loss(self, passage: Passage, *, low_memory: bool = False) -> float:
        """Return the sum of the losses (natural logarithm) of a passage's scored tokens.

        Args:
            passage: the passage.
            low_memory: not used: vLLM reads passages in chunks.
        """
        (tokens,) = self._scored([ScoredText(passage.ids, passage.scored_tokens)], 0)
        return -math.fsum(token.logprob for token in tokens)

    def loglikelihoods(
        self, texts: Sequence[ScoredText], *, low_memory: bool = False
    ) -> list[tuple[float, bool]]:
        """Return the log-likelihood of each text's scored tokens, and whether they are greedy.

        Args:
            texts: texts that are read as one batch, each as a prompt.
            low_memory: not used: vLLM reads texts in chunks.
        """
        # The local engine does not read the last token, and the plan does not count it.
        return [
            (
                math.fsum(token.logprob for token in tokens),
                all(token.rank == 1 for token in tokens),
            )
            for tokens in self._scored(texts, -1)
        ]

    def _scored(self, texts: Sequence[ScoredText], reserved_tokens: int) -> list[list[Logprob]]:
        """Return the log-probabilities of the scored tokens of texts.

        Args:
            texts: texts that are read as one batch, each as a prompt.
            reserved_tokens: tokens beyond the text that the method plans for.
        """
        rows = [text.ids for text in texts]
        self._check(rows, reserved_tokens, 1)
        self._serve(reserved_tokens)
        parameters = SamplingParams(
            temperature=0, max_tokens=1, prompt_logprobs=0, ignore_eos=True, detokenize=False
        )
        outputs, _ = self._run(rows, parameters)
        found = []
        for text, output in zip(texts, outputs, strict=True):
            scored = range(len(text.ids) - text.scored_tokens, len(text.ids))
            found.append([output.prompt_logprobs[index][text.ids[index]] for index in scored])
        return found

    def _check(self, rows: Sequence[Sequence[int]], reserved_tokens: int, new_tokens: int) -> None:
        """Refuse prompts that the method cannot read: an error within vLLM would end the engine.

        Raises:
            BadSetting: for such a prompt.
        """
        for ids in rows:
            length = len(ids) + reserved_tokens
            self._method.encode(self._geometry, length)
            self._method.decode_plan(self._geometry, length, len(ids) + new_tokens)

    def _serve(self, reserved_tokens: int) -> None:
        """Switch to the method that is asked for, with tokens of the answer that it plans for."""
        if (self._served, self._reserved_tokens) == (self._asked, reserved_tokens):
            return
        arguments = (self._asked.to_mapping(), reserved_tokens)
        self._llm.collective_rpc("serve_method", args=arguments)
        self._served, self._reserved_tokens = self._asked, reserved_tokens

    def _run(
        self,
        rows: Sequence[Sequence[int]],
        parameters: SamplingParams,
        stop_strings: StopStrings | None = None,
    ) -> tuple[list[RequestOutput], float]:
        """Return the outputs of prompts, and the clock when all had their first token."""
        engine: Any = self._llm.llm_engine
        names = [str(index) for index in range(len(rows))]
        outputs: dict[str, RequestOutput] = {}
        try:
            for name, ids in zip(names, rows, strict=True):
                engine.add_request(name, {"prompt_token_ids": list(ids)}, parameters)
            first_tokens_at = time.perf_counter()
            while engine.has_unfinished_requests():
                for output in engine.step():
                    if output.request_id not in outputs:
                        first_tokens_at = time.perf_counter()
                    outputs[output.request_id] = output
                    if stop_strings is not None and stop_strings.end(output.outputs[0].token_ids):
                        engine.abort_request([output.request_id])
        except BaseException:
            # What is left would run with the next batch, under its names.
            engine.abort_request(names)
            raise
        return [outputs[name] for name in names], first_tokens_at


def _device_options(source: ModelSource, max_length: int) -> dict[str, Any]:
    """Return the options of vLLM that differ between a CPU and GPUs."""
    if not current_platform.is_cpu():
        return {"attention_backend": "CUSTOM", "gpu_memory_utilization": GPU_MEMORY_SHARE}
    # By default vLLM takes the larger part of a machine's memory.
    longest = max_length * cost_of(source).cache_bytes
    share = total_bytes(torch.device("cpu")) // CPU_CACHE_SHARE
    return {"kv_cache_memory_bytes": max(longest, min(PROMPTS_AT_A_TIME * longest, share))}
