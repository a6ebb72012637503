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

import lampe
from lampe.errors import first_line
from lampe_eval.benches.bench import Passage, Prompt, Sample
from lampe_eval.engine.local_engine import GeneratedAnswer, decode_answer
from lampe_eval.errors import UserError
from lampe_eval.models import ModelSource, cost_of
from lampe_vllm import plugin
from lampe_vllm.served_method import ServedMethod

PROMPTS_AT_A_TIME = 8
"""Prompts of full length whose keys and values fit the cache."""
WORKER_EXTENSION = "lampe_vllm.worker_extension.MethodExtension"


class VllmEngine:
    """Model loaded by vLLM, which serves one method at a time.

    Attributes:
        tokenizer: the model's tokenizer.
        device: device type.
        low_memory_from: infinite, because vLLM keeps to the memory that it has taken.
    """

    device = torch.device("cpu")
    low_memory_from = math.inf

    def __init__(
        self,
        source: ModelSource,
        tokenizer: PreTrainedTokenizerBase,
        stop_tokens: Sequence[int],
        max_length: int,
    ) -> None:
        """Load the model.

        Args:
            source: the model.
            tokenizer: its tokenizer.
            stop_tokens: its stop tokens.
            max_length: tokens of the longest prompt with its answer.

        Raises:
            UserError: for a model that cannot be served.
        """
        self.tokenizer = tokenizer
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
                dtype=source.dtype,
                max_model_len=max_length,
                hf_overrides=self._served.overrides(max_length),
                skip_tokenizer_init=True,
                enable_prefix_caching=False,
                kv_cache_memory_bytes=PROMPTS_AT_A_TIME * max_length * cost_of(source).cache_bytes,
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
            prompts: prompts with the same `max_new_tokens`, `stop_token_ids`, `decoding` and
                `plan_length`.
            low_memory: not used: vLLM reads prompts in chunks.
        """
        first = prompts[0]
        self._check(prompts, first.reserved_tokens, first.max_new_tokens)
        self._serve(first.reserved_tokens)
        stops = {*self._stop_tokens, *first.stop_token_ids}
        parameters = SamplingParams(
            temperature=0,
            max_tokens=first.max_new_tokens,
            min_tokens=1 if first.stop_token_ids else 0,
            stop_token_ids=sorted(stops),
            ignore_eos=True,
            detokenize=False,
        )
        started = time.perf_counter()
        outputs, first_tokens_at = self._run([prompt.ids for prompt in prompts], parameters)
        prefill_seconds = first_tokens_at - started
        decode_seconds = time.perf_counter() - first_tokens_at
        answers = []
        for prompt, output in zip(prompts, outputs, strict=True):
            tokens = list(output.outputs[0].token_ids)
            text, count, stop_reason = decode_answer(self.tokenizer, prompt, stops, tokens)
            answers.append(
                GeneratedAnswer(
                    text,
                    count,
                    stop_reason,
                    prefill_seconds=prefill_seconds,
                    decode_seconds=decode_seconds,
                )
            )
        return answers

    def loss(self, passage: Passage, *, low_memory: bool = False) -> float:
        """Return the sum of the losses (natural logarithm) of a passage's scored tokens.

        Args:
            passage: the passage.
            low_memory: not used: vLLM reads passages in chunks.
        """
        self._check([passage], 0, 1)
        self._serve(0)
        parameters = SamplingParams(
            temperature=0, max_tokens=1, prompt_logprobs=0, ignore_eos=True, detokenize=False
        )
        ((output,), _) = self._run([passage.ids], parameters)
        logprobs = output.prompt_logprobs
        scored = range(len(passage.ids) - passage.scored_tokens, len(passage.ids))
        return -math.fsum(logprobs[index][passage.ids[index]].logprob for index in scored)

    def _check(self, samples: Sequence[Sample], reserved_tokens: int, new_tokens: int) -> None:
        """Refuse samples that the method cannot read: an error within vLLM would end the engine.

        Raises:
            BadSetting: for such a sample.
        """
        for sample in samples:
            length = len(sample.ids) + reserved_tokens
            self._method.encode(self._geometry, length)
            self._method.decode_plan(self._geometry, length, len(sample.ids) + new_tokens)

    def _serve(self, reserved_tokens: int) -> None:
        """Switch to the method that is asked for, with tokens of the answer that it plans for."""
        if (self._served, self._reserved_tokens) == (self._asked, reserved_tokens):
            return
        arguments = (self._asked.to_mapping(), reserved_tokens)
        self._llm.collective_rpc("serve_method", args=arguments)
        self._served, self._reserved_tokens = self._asked, reserved_tokens

    def _run(
        self, rows: Sequence[Sequence[int]], parameters: SamplingParams
    ) -> tuple[list[RequestOutput], float]:
        """Return the outputs of prompts, and the clock when all had their first token."""
        engine: Any = self._llm.llm_engine
        for index, ids in enumerate(rows):
            engine.add_request(str(index), {"prompt_token_ids": list(ids)}, parameters)
        outputs: dict[int, RequestOutput] = {}
        first_tokens_at = time.perf_counter()
        while engine.has_unfinished_requests():
            for output in engine.step():
                index = int(output.request_id)
                if index not in outputs:
                    first_tokens_at = time.perf_counter()
                outputs[index] = output
        return [outputs[index] for index in range(len(rows))], first_tokens_at
