"""Specification of generated samples, and the state of one sample while it is drawn."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random

from lampe_eval.ruler.ruler_wording import RulerWording, WordingName, load_wording
from lampe_eval.ruler.seeded_random import seeded_rng
from lampe_eval.ruler.shared_corpora import SharedCorpora

PromptAffixes = Callable[[str], tuple[Sequence[int], Sequence[int]]]
"""Function from the start of an answer to the ids before a prompt and the ids after it.

The ids after the prompt contain the start of the answer.
"""


@dataclass(frozen=True)
class SampleSpec:
    """Settings that all samples of a cell have in common.

    Attributes:
        corpora: tokenizer and texts.
        length: tokens of a prompt and its answer together.
        seed: seed of everything that is drawn.
        wording_name: wording of instructions and questions.
        exact: whether a prompt is made of ids and fills the length to the token. Otherwise it is
            text made of whole units, as upstream generates it.
        overhead: tokens that the caller adds to every prompt.
        affixes: what the caller puts around an exact prompt, such as a chat template. By default
            nothing but the start of the answer.
    """

    corpora: SharedCorpora
    length: int
    seed: int = 0
    wording_name: WordingName = "own"
    exact: bool = True
    overhead: int = 0
    affixes: PromptAffixes | None = None

    @property
    def wording(self) -> RulerWording:
        """Return the sentences of the wording."""
        return load_wording(self.wording_name, self.corpora.data_dir)


@dataclass(frozen=True)
class SampleDraw:
    """Sample of a task while it is drawn.

    Attributes:
        spec: settings of the cell.
        task: name and version of the task.
        answer_tokens: tokens reserved for the answer.
        index: number of the sample.
    """

    spec: SampleSpec
    task: str
    answer_tokens: int
    index: int

    @property
    def corpora(self) -> SharedCorpora:
        """Return the tokenizer and texts."""
        return self.spec.corpora

    @property
    def wording(self) -> RulerWording:
        """Return the sentences of the wording."""
        return self.spec.wording

    @property
    def max_prompt_tokens(self) -> int:
        """Return the largest number of tokens that a prompt may have."""
        return max(0, self.spec.length - self.answer_tokens - self.spec.overhead)

    def rng(self, *purpose: object) -> Random:
        """Return the generator for one purpose within this sample.

        Args:
            purpose: name of what is drawn. Each purpose has a generator of its own, so that a new
                draw in one place does not change the draws in another.
        """
        return seeded_rng(self.task, self.spec.seed, self.index, *purpose)

    def shared_rng(self, *purpose: object) -> Random:
        """Return the generator for one purpose that all samples of the task share."""
        return seeded_rng(self.task, self.spec.seed, *purpose)
