"""What a sample is a function of, beside its task and number."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random

from lampe_eval.ruler.ruler_wording import Name, RulerWording, load_wording
from lampe_eval.ruler.seeded_random import seeded_rng
from lampe_eval.ruler.shared_corpora import SharedCorpora

Frame = Callable[[str], tuple[Sequence[int], Sequence[int]]]
"""Ids before a prompt and behind it, the start of the answer among them, given that start."""


@dataclass(frozen=True)
class SampleSpec:
    """How samples are made.

    Attributes:
        shelf: tokenizer and texts.
        length: of a prompt and the room for its answer, in tokens.
        seed: of everything that is drawn.
        words: whose wording.
        exact: whether a prompt is made of ids and takes all of the length; else it is text of whole units.
        overhead: tokens that the caller adds to every prompt.
        frame: what the caller puts around a prompt; by default nothing but the start of the answer. Exact prompts only.
    """

    shelf: SharedCorpora
    length: int
    seed: int = 0
    words: Name = "own"
    exact: bool = True
    overhead: int = 0
    frame: Frame | None = None

    @property
    def wording(self) -> RulerWording:
        return load_wording(self.words, self.shelf.data_dir)


@dataclass(frozen=True)
class SampleDraw:
    """One sample of a task under a recipe.

    Attributes:
        task: name and version.
        room: tokens for the answer.
        index: of the sample.
    """

    recipe: SampleSpec
    task: str
    room: int
    index: int

    @property
    def shelf(self) -> SharedCorpora:
        return self.recipe.shelf

    @property
    def wording(self) -> RulerWording:
        return self.recipe.wording

    @property
    def budget(self) -> int:
        """Tokens that a prompt can have at most."""
        return max(0, self.recipe.length - self.room - self.recipe.overhead)

    def rng(self, *what: object) -> Random:
        """The generator of one thing about this sample."""
        return seeded_rng(self.task, self.recipe.seed, self.index, *what)

    def shared(self, *what: object) -> Random:
        """The generator of one thing that is the same in all samples of the task."""
        return seeded_rng(self.task, self.recipe.seed, *what)
