"""What a benchmark is: it yields samples for a task at a length, scores each, and reduces the scores of a cell."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

from transformers import PreTrainedTokenizerBase

from lampe_eval.cards import TaskCard
from lampe_eval.prompts.protocol import Protocol, parse_protocol
from lampe_eval.scoring.estimates import Estimate


@dataclass(frozen=True)
class FollowUp:
    """A second prompt, asked after the answer to the first.

    Attributes:
        ask: the prompt, given the first answer.
        join: the prediction, given both answers.
    """

    ask: Callable[[str], "Prompt"]
    join: Callable[[str, str], str]


@dataclass(frozen=True)
class Prompt:
    """A sample to be answered.

    Attributes:
        id: unique within its task and length.
        ids: the prompt's tokens.
        max_new_tokens: room for the answer.
        references: what the answer is scored against, as the benchmark's scorer takes it.
        extras: what else the scorer needs, and what tells the sample in the benchmark's data.
        meta: what tables may group by, such as the depth of a needle.
        cut: tokens that were taken out of it to make it fit.
        skip: whether it is too long to be answered and the protocol leaves such samples out.
        stops: tokens that end the answer beside the model's own, after at least one other.
        decoding: how the answer's tokens become text, as ``Protocol`` says.
        follow_up: what is asked next.
    """

    id: str
    ids: Sequence[int]
    max_new_tokens: int
    references: Any
    extras: Mapping[str, Any] = field(default_factory=dict)
    meta: Mapping[str, float] = field(default_factory=dict)
    cut: int = 0
    skip: bool = False
    stops: tuple[int, ...] = ()
    decoding: Literal["text", "specials", "squeezed"] = "text"
    follow_up: FollowUp | None = None


@dataclass(frozen=True)
class Passage:
    """A sample to be read for its loss: ``scored`` last tokens of ``ids`` count."""

    id: str
    ids: Sequence[int]
    scored: int
    meta: Mapping[str, float] = field(default_factory=dict)


Sample = Prompt | Passage
SampleRow = Mapping[str, Any]
"""A finished sample as it is stored: see ``lampe_eval.store``."""


@dataclass(frozen=True)
class Score:
    """Score of a task at a length.

    Attributes:
        value: the score, in percent or as perplexity.
        stderr: its standard error; NaN for fewer than two independent units.
        n: number of samples.
        details: further numbers by name.
    """

    value: float
    stderr: float
    n: int
    details: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class CellScore(Score):
    """Score of a cell with the estimate it was computed from.

    Attributes:
        estimate: the parts of each sample, from which methods are compared; it also knows the
            number and the kind of independent units.
    """

    estimate: Estimate = field(kw_only=True, compare=False, repr=False)

    @classmethod
    def from_estimate(
        cls, estimate: Estimate, details: Mapping[str, float], value: float | None = None
    ) -> "CellScore":
        """Return the score of an estimate.

        Args:
            estimate: the estimate of the cell.
            details: further numbers by name.
            value: the score as the benchmark rounds it; that of the estimate by default.
        """
        score = estimate.value if value is None else value
        return cls(score, estimate.stderr, len(estimate.parts), details, estimate=estimate)


@dataclass(frozen=True)
class SampleRequest:
    """Which samples of a task are wanted; the same draw gives the same samples, whenever asked.

    Attributes:
        tokenizer: of the model under test.
        length: of a cell, in tokens.
        limit: samples at most.
        protocol: how samples become prompts.
        seed: of everything that is drawn.
        source: the user's text file or folder; the pocket language where None.
        data_dir: folder with the benchmark's files, looked at before the cache.
        release_prompts: whether the method has prompts of its own in its authors' release.
    """

    tokenizer: PreTrainedTokenizerBase
    length: int
    limit: int
    protocol: Protocol
    seed: int = 0
    source: Path | None = None
    data_dir: Path | None = None
    release_prompts: bool = False


@dataclass(frozen=True)
class Task:
    """A task with its card; ``full_name`` is "bench/task"."""

    bench: str
    name: str
    card: Any

    @property
    def full_name(self) -> str:
        return f"{self.bench}/{self.name}"


class Bench(ABC):
    """A benchmark.

    Attributes:
        name: as users call it; the folder of its tasks.
        family: the folder of its protocols, by default the same.
        card: what its tasks say.
        source_option: the option that names the user's own text, if there is one.
        higher_is_better: whether more is better.
    """

    name: ClassVar[str]
    family: ClassVar[str] = ""
    card: ClassVar[type[TaskCard]] = TaskCard
    source_option: ClassVar[str | None] = None
    higher_is_better: ClassVar[bool] = True

    def protocol(self, text: str) -> Protocol:
        """A protocol of this bench as a user writes it.

        Raises:
            UserError: as ``lampe_eval.prompts.protocol.parse``.
        """
        return parse_protocol(self.family or self.name, text)

    @abstractmethod
    def samples(self, task: Task, draw: SampleRequest) -> Iterator[Sample]:
        """At most ``draw.limit`` samples of a task.

        Raises:
            UserError: for a length that the task cannot have, or a source that cannot be read.
        """

    def has_task(self, task: Task, protocol: Protocol) -> bool:
        """Whether a protocol has a task: LaMPE's authors ran some alone."""
        return True

    def required_files(
        self, task: Task, protocol: Protocol, source: Path | None = None
    ) -> list[str]:
        """Names of the files, as ``lampe_eval.assets`` has them, that the samples of a task are made of.

        Args:
            source: the user's own text, as ``Draw`` has it.
        """
        return []

    def user_files(self, task: Task, protocol: Protocol, data_dir: Path | None) -> list[Path]:
        """Files of the user's own that the samples of a task are read from as they are."""
        return []

    def score(self, task: str, row: SampleRow, protocol: Protocol) -> float:
        """Score of one answer, from 0 to 1; the row has ``prediction``, ``references`` and ``extras``."""
        raise NotImplementedError(f"{self.name} has no answers to score")

    def estimate(self, task: Task, rows: Sequence[SampleRow], protocol: Protocol) -> Estimate:
        """The number of a cell and what it is made of, which methods are compared by: the mean score in percent."""
        return Estimate.mean([100 * row["score"] for row in rows])

    def cell_score(self, task: Task, rows: Sequence[SampleRow], protocol: Protocol) -> CellScore:
        """Return the score of a cell with its error, its details and its estimate."""
        details = self.details(task, rows, protocol)
        return CellScore.from_estimate(self.estimate(task, rows, protocol), details)

    def details(
        self, task: Task, rows: Sequence[SampleRow], protocol: Protocol
    ) -> dict[str, float]:
        """More numbers of a cell, by name."""
        return {}

    def detail_counts(self, rows: Sequence[SampleRow]) -> dict[str, int]:
        """Of how many samples numbers of ``details`` are, where they are of some alone and it is known."""
        return {}

    def task_averages(self, scores: Mapping[str, Score], protocol: Protocol) -> dict[str, float]:
        """What the benchmark reports of its tasks at one length, by name; none of them lacks a sample."""
        return {}

    def length_averages(self, averages: Mapping[int, float]) -> dict[str, float]:
        """What the benchmark reports over lengths, of the first of ``averages`` at each."""
        return {}
