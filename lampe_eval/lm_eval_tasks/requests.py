"""Requests of lm-evaluation-harness as token ids, by its own code and without a model."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from lm_eval.models.utils import handle_stop_sequences, has_bos_prefix, normalize_gen_kwargs
from transformers import PreTrainedTokenizerBase

from lampe_eval.errors import UserError

GREEDY_KEYS = {"do_sample", "temperature", "top_p", "top_k", "until", "max_gen_toks"}
"""Settings of generation that greedy answers follow, or that do not concern them."""


@dataclass(frozen=True)
class GenerationRequest:
    """Prompt of a request, cut on the left, with what ends its answer.

    Attributes:
        ids: token ids of the prompt.
        cut_tokens: tokens that were cut.
        max_new_tokens: tokens that the answer may have.
        stop_strings: texts before which the answer ends.
    """

    ids: list[int]
    cut_tokens: int
    max_new_tokens: int
    stop_strings: tuple[str, ...]


class RequestEncoder(HFLM):  # type: ignore[misc]
    """Language model without weights that records which tokens it is asked to score.

    Args:
        tokenizer: the tokenizer of the model under test.
        max_length: most tokens that the model reads; what is longer is cut on the left.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, max_length: int) -> None:
        super(HFLM, self).__init__()
        self.tokenizer = tokenizer
        self.backend = "causal"
        self.add_bos_token = None
        self.custom_prefix_token_id = None
        self.enable_thinking = None
        self.chat_template_args: dict[str, Any] = {}
        self.batch_size_per_gpu = 1
        self._max_length = max_length
        self._asked: list[tuple[list[int], list[int]]] = []

    def requests_of(self, task: Any, doc_id: int, doc: Any, *, chat: bool) -> list[Instance]:
        """Return a task's requests for a row of its data.

        Args:
            task: the task of the harness.
            doc_id: number of the row.
            doc: the row.
            chat: whether prompts are in the tokenizer's chat template.
        """
        template = self.apply_chat_template if chat else None
        context = task.fewshot_context(
            doc,
            num_fewshot=task.config.num_fewshot,
            apply_chat_template=chat,
            fewshot_as_multiturn=chat,
            chat_template=template,
            gen_prefix=task.doc_to_prefix(doc),
        )
        requests = task.construct_requests(
            doc=doc,
            ctx=context,
            metadata=(task.config.task, doc_id, task.config.repeats),
            apply_chat_template=chat,
            chat_template=template,
        )
        return requests if isinstance(requests, list) else [requests]

    def scored_texts(self, requests: list[Instance]) -> Iterator[tuple[list[int], int]]:
        """Yield token ids of texts with the number of last ones that are scored.

        A request has one text; one of a rolling log-likelihood has a text for each window.

        Raises:
            UserError: for a text of which even the scored tokens are too long.
        """
        self._asked = []
        # Not by `getattr`: these two methods tokenize, and hand their tokens to the method below.
        if requests[0].request_type == "loglikelihood_rolling":
            self.loglikelihood_rolling(requests, disable_tqdm=True)
        else:
            self.loglikelihood(requests, disable_tqdm=True)
        for context, continuation in self._asked:
            if len(continuation) > self.max_length:
                raise UserError(
                    f"a text to score has {len(continuation)} tokens, more than {self.max_length}; "
                    "use longer --lengths"
                )
            # The last token is not read.
            yield (context + continuation)[-(self.max_length + 1) :], len(continuation)

    def _loglikelihood_tokens(
        self, requests: list[tuple[Any, list[int], list[int]]], *_: Any, **__: Any
    ) -> list[tuple[float, bool]]:
        self._asked += [(context, continuation) for _, context, continuation in requests]
        return [(0.0, True)] * len(requests)

    def generation(self, request: Instance) -> GenerationRequest:
        """Return the prompt of a request and what ends its answer.

        Raises:
            UserError: for a request whose answers are not greedy, or too long.
        """
        context, options = request.args[:2]
        settings = dict(normalize_gen_kwargs(options, self.max_gen_toks))
        others = {key for key in settings.keys() - GREEDY_KEYS if settings[key]}
        if settings.get("do_sample") or others:
            named = ", ".join(sorted(others or {"do_sample"}))
            raise UserError(
                f"the task generates with {named}, and answers here are greedy; "
                "run it with lampe-eval lm-eval"
            )
        answer = settings["max_gen_toks"]
        most = self.max_length - answer
        if most < 1:
            raise UserError(
                f"at length {self.max_length}: answers of this task may have {answer} tokens; "
                "use longer --lengths"
            )
        # The harness leaves out what the tokenizer adds where the text has it already.
        adds = not has_bos_prefix(context, self.tokenizer.bos_token)
        ids = self.tokenizer.encode(context, add_special_tokens=adds)
        eos = self.tokenizer.decode(self.eot_token_id, skip_special_tokens=False)
        stops = handle_stop_sequences(settings.get("until"), eos=eos)
        kept = ids[-most:]
        return GenerationRequest(kept, len(ids) - len(kept), answer, tuple(filter(None, stops)))
