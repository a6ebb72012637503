"""Prompts of an exact length with sentences scattered over a haystack and a question at the end.

instruction, haystack with the sentences in it, question, start of the answer
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random

from lampe_eval.benches.bench import SampleRequest
from lampe_eval.benches.sentence_haystack import Haystack, sentence_pool
from lampe_eval.prompts.chat_template import Message
from lampe_eval.prompts.prompt_fitting import prompt_affixes
from lampe_eval.prompts.tokenization import encode
from lampe_eval.ruler.seeded_random import Indices

ANSWER_PREFIX = "\nAnswer:"


@dataclass(frozen=True)
class ScatteredPrompt:
    """Prompt with its sentences in their places.

    Attributes:
        ids: token ids of the prompt.
        depths: where each sentence lies, in percent of the haystack's tokens.
        haystack_sha256: hash of the haystack without the sentences.
    """

    ids: list[int]
    depths: tuple[float, ...]
    haystack_sha256: str


class ScatteredPrompts:
    """Builder of the prompts of a cell.

    Args:
        request: the request.
        instruction: text before the haystack.
        answer_tokens: tokens that the answer may have.
    """

    def __init__(self, request: SampleRequest, instruction: str, answer_tokens: int) -> None:
        message = Message("", answer_prefix=ANSWER_PREFIX)
        before, self._after = prompt_affixes(request.tokenizer, request.protocol, message)
        self._before = [*before, *encode(request.tokenizer, instruction, is_data=True)]
        self._answer_tokens = answer_tokens
        self._length = request.length
        self.pool = sentence_pool(
            request.tokenizer, request.source, request.data_dir, request.length
        )

    def least_length(self, sentences: Sequence[str], question: str) -> int:
        """Return the tokens of prompt and answer without any haystack."""
        pieces = [f" {sentence}" for sentence in sentences]
        tokens = self.pool.tokenizer.count_tokens(*pieces, _question_text(question))
        return len(self._before) + tokens + len(self._after) + self._answer_tokens

    def build(
        self,
        sentences: Sequence[str],
        question: str,
        *,
        rng: Random,
        allowed: Indices,
        choose_gaps: Callable[[Haystack], Sequence[int]],
    ) -> ScatteredPrompt:
        """Return a prompt that has the length of the cell with its answer.

        Args:
            sentences: the sentences to scatter.
            question: the question.
            rng: chooses the haystack.
            allowed: numbers of the pool's sentences that it may have.
            choose_gaps: returns the gap of each sentence in a haystack.
        """
        tokens = self._length - self.least_length(sentences, question)
        haystack = self.pool.draw(rng, tokens, allowed)
        gaps = choose_gaps(haystack)
        body = haystack.with_sentences(sentences, gaps)
        end = self.pool.tokenizer.encode_inside(_question_text(question))
        ids = [*self._before, *body.tolist(), *end.tolist(), *self._after]
        return ScatteredPrompt(ids, tuple(map(haystack.depth_of, gaps)), haystack.sha256)


def _question_text(question: str) -> str:
    return f"\n\nQuestion: {question}"
