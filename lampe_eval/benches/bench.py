"""Interface of a benchmark: samples of a task at a length, scores of answers, numbers of a cell.

To add a benchmark, write a subclass of `Bench` with `name`, `samples` and `score`, and a folder
`tasks/<name>/` with `tasks.yaml` (a `TaskCard` for each task) and `protocols.yaml` (a `Protocol`
for each way of making prompts; at least `fair`). All other methods have defaults.

A *cell* is one model, one method, one task and one length. For each cell the harness calls
`samples`, runs the model on each sample, calls `score` for each answer, and then `cell_score` once
for all of them. Rows are samples as they are stored (`SampleRecord`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

from lampe_eval.cards import TaskCard, shipped_folder
from lampe_eval.errors import UserError
from lampe_eval.prompts.protocol import Decoding, PlanLength, Protocol, parse_protocol
from lampe_eval.records import SampleRecord
from lampe_eval.scoring.estimates import Estimate
from lampe_eval.texts.jsonl_rows import FaultyRow

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class FollowUp:
    """Second prompt of a sample, which is built from the answer to the first.

    Attributes:
        make_prompt: returns the second prompt, given the first answer.
        join_answers: returns the prediction to score, given the first and the second answer.
    """

    make_prompt: Callable[[str], Prompt]
    join_answers: Callable[[str, str], str]


@dataclass(frozen=True)
class Prompt:
    """Sample that the model answers.

    Attributes:
        id: unique within the sample's task and length, and the same in every run.
        ids: token ids of the prompt, special tokens included.
        max_new_tokens: tokens that the answer may have.
        references: what the answer is scored against, in the form that `Bench.score` expects.
        extras: anything else that `Bench.score` needs, and what identifies the sample in the
            benchmark's data.
        meta: numbers that tables may group by, such as the depth of a needle.
        document_sha256: hash of what several samples may share, such as the document that the
            question is about; empty where no two samples share one.
        cut_tokens: tokens that were removed to make the prompt fit.
        skip: whether the prompt is too long and the protocol leaves such samples out.
        stop_token_ids: tokens that end the answer in addition to the model's own EOS tokens. The
            answer has at least one token before them.
        stop_strings: texts before the first of which the answer ends, wherever tokens begin.
        decoding: how the answer's tokens become text; see `Protocol.decoding`.
        plan_length: see `Protocol.plan_length`; the harness sets it.
        plan_tokens: tokens for which a method plans all questions about the prompt's document; 0
            for a prompt with a plan of its own. The harness sets it.
        shared_tokens: first tokens that all questions about its document have in common, which are
            read once; 0 for a prompt that is read by itself. The harness sets it.
        follow_up: the second prompt, if the benchmark asks twice.
        error: what is wrong with the data of a sample that cannot be run; it has no ids.
    """

    id: str
    ids: Sequence[int]
    max_new_tokens: int
    references: Any
    extras: Mapping[str, Any] = field(default_factory=dict)
    meta: Mapping[str, float] = field(default_factory=dict)
    document_sha256: str = ""
    cut_tokens: int = 0
    skip: bool = False
    stop_token_ids: tuple[int, ...] = ()
    stop_strings: tuple[str, ...] = ()
    decoding: Decoding = "text"
    plan_length: PlanLength = "prompt"
    plan_tokens: int = 0
    shared_tokens: int = 0
    follow_up: FollowUp | None = None
    error: str = ""

    @classmethod
    def of_faulty_row(cls, sample_id: str, row: FaultyRow) -> Self:
        """Return the sample that stands for a faulty row, so that its cell counts an error."""
        return cls(sample_id, (), 0, None, error=str(row))

    @property
    def reserved_tokens(self) -> int:
        """Return the tokens beyond the prompt for which a method plans together with it."""
        if self.plan_tokens:
            return self.plan_tokens - len(self.ids)
        return self.max_new_tokens if self.plan_length == "prompt+answer" else 0


@dataclass(frozen=True)
class Passage:
    """Sample whose loss is measured; the model generates nothing.

    Attributes:
        id: unique within the sample's task and length, and the same in every run.
        ids: token ids of the text.
        scored_tokens: how many of the last ids count towards the loss.
        meta: numbers that tables may group by.
    """

    id: str
    ids: Sequence[int]
    scored_tokens: int
    meta: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class ScoredText:
    """Text with the tokens whose log-likelihood counts.

    Attributes:
        ids: token ids of the text; the model reads all but the last one.
        scored_tokens: how many of the last ids count.
    """

    ids: Sequence[int]
    scored_tokens: int


@dataclass(frozen=True)
class Continuations:
    """Sample of texts whose log-likelihoods are measured, such as the choices of a question.

    Attributes:
        id: unique within the sample's task and length, and the same in every run.
        texts: the texts; the model reads each by itself, as a prompt.
        references: what the log-likelihoods are scored against.
        extras: anything else that the bench needs to score them.
        meta: numbers that tables may group by.
    """

    id: str
    texts: tuple[ScoredText, ...]
    references: Any
    extras: Mapping[str, Any] = field(default_factory=dict)
    meta: Mapping[str, float] = field(default_factory=dict)

    @property
    def ids(self) -> Sequence[int]:
        """Return the token ids that the model reads of the longest text."""
        return max((text.ids for text in self.texts), key=len)[:-1]


Sample = Prompt | Passage | Continuations


@dataclass(frozen=True)
class Score:
    """Score of a complete cell as averages use it.

    Attributes:
        value: the number that tables show, in the unit of the task's metric (mostly percent).
        stderr: its standard error, NaN for fewer than two independent units.
        n: number of samples.
        details: more numbers of the cell by name, such as the score at each depth.
    """

    value: float
    stderr: float
    n: int
    details: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class CellScore:
    """Score of a cell, derived from the estimate of its samples.

    Attributes:
        estimate: the parts of each sample, from which methods are compared; it also knows the
            number and the kind of independent units.
        details: more numbers of the cell by name, such as the score at each depth.
        detail_estimates: the estimates of those that are scores of samples.
        rounded: the score as the benchmark rounds it; None for that of the estimate.
    """

    estimate: Estimate = field(compare=False, repr=False)
    details: Mapping[str, float] = field(default_factory=dict)
    detail_estimates: Mapping[str, Estimate] = field(
        default_factory=dict, compare=False, repr=False
    )
    rounded: float | None = None

    @property
    def value(self) -> float:
        """Return the number that tables show, in the unit of the task's metric (mostly percent)."""
        return self.estimate.value if self.rounded is None else self.rounded

    @property
    def stderr(self) -> float:
        """Return the standard error of the estimate, NaN for fewer than two independent units."""
        return self.estimate.stderr

    @property
    def n(self) -> int:
        """Return the number of samples."""
        return len(self.estimate.parts)


@dataclass(frozen=True)
class SampleRequest:
    """Request for the samples of a task at a length.

    Equal requests give equal samples, whatever was requested before.

    Attributes:
        tokenizer: tokenizer of the model under test.
        length: tokens of prompt and answer together.
        limit: largest number of samples.
        protocol: how samples become prompts.
        seed: seed of everything that is random.
        source: the user's text file or folder, for benches with a `source_option`; None for the
            built-in text.
        data_dir: folder that is searched for the benchmark's files before the cache.
        release_prompts: whether the method gets the prompts that its authors gave to it alone.
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
    """Task of a bench with its card.

    Attributes:
        bench: name of the bench.
        name: name of the task within its bench.
        card: the entry of `tasks.yaml`, an instance of the bench's `card` class.
    """

    bench: str
    name: str
    card: Any

    @property
    def full_name(self) -> str:
        """Return the name as users write it: "bench/task"."""
        return f"{self.bench}/{self.name}"


class Bench(ABC):
    """Benchmark: the base class of all benches.

    Attributes:
        name: name that users write; also the name of the folder in `tasks/`.
        protocols_of: name of the bench whose protocols this bench uses; its own name if empty.
        outside_folder: folder of its YAML files, for a bench from outside the package.
        card: schema of an entry of `tasks.yaml`.
        source_option: name of the command line option for the user's own text, such as "text" for
            `--text`; None for benches that read no such text.
        higher_is_better: whether a higher score is better.
        mirror: name of the repository on the hub whose parquet files hold ready prompts of this
            bench; empty for a bench without one.
        lists_tasks: whether a `tasks.yaml` lists the tasks; a bench of another program's tasks
            finds them by name, with `find_tasks`.
    """

    name: ClassVar[str]
    protocols_of: ClassVar[str] = ""
    outside_folder: ClassVar[Path | None] = None
    card: ClassVar[type[TaskCard]] = TaskCard
    source_option: ClassVar[str | None] = None
    higher_is_better: ClassVar[bool] = True
    mirror: ClassVar[str] = ""
    lists_tasks: ClassVar[bool] = True

    @property
    def folder(self) -> Path:
        """Return the folder with its `tasks.yaml`."""
        return self.outside_folder or shipped_folder("tasks") / self.name

    @property
    def protocols_folder(self) -> Path:
        """Return the folder with its `protocols.yaml`."""
        return shipped_folder("tasks") / self.protocols_of if self.protocols_of else self.folder

    @property
    def has_answers(self) -> bool:
        """Return True where the model answers; a bench that measures losses scores no answer."""
        return type(self).score is not Bench.score

    @property
    def averages_scores(self) -> bool:
        """Return True where the number of a cell is the mean of its samples' scores from 0 to 1."""
        return self.has_answers and type(self).estimate is Bench.estimate

    def protocol(self, text: str) -> Protocol:
        """Return a protocol of this bench by its name, such as "fair" or "fair:chat=none".

        Raises:
            UserError: for a name, a field or a value that does not exist.
        """
        return parse_protocol(self.protocols_of or self.name, text, self.protocols_folder)

    def find_tasks(self, name: str) -> list[Task]:
        """Return the tasks that a name means, for a bench without a `tasks.yaml`.

        Raises:
            UserError: for a name that means none.
        """
        raise NotImplementedError(f"{self.name} lists its tasks")

    def has_task(self, task: Task, protocol: Protocol) -> bool:
        """Return whether a protocol covers a task; by default what the protocol's card says."""
        return not protocol.tasks or task.name in protocol.tasks

    def has_independent_tasks(self, protocol: Protocol) -> bool:
        """Return whether samples of different tasks are drawn independently of each other.

        By default they may have parts in common, such as a haystack, a document or a needle.
        """
        return False

    def required_files(
        self, task: Task, protocol: Protocol, source: Path | None = None
    ) -> list[str]:
        """Return the names of the files that the samples of a task are built from.

        The harness checks that they are there before it loads a model, and records their hashes.

        Args:
            task: the task.
            protocol: how samples become prompts.
            source: the user's own text, as in `SampleRequest`.

        Returns:
            Names as in `tasks/<bench>/assets.yaml`, such as "longbench/data.zip!/data/trec.jsonl".
        """
        return []

    def files_by_length(self, task: Task, protocol: Protocol) -> Mapping[str, list[str]]:
        """Return the names of further files by the length of their samples, such as "8k".

        By default there are none. Arguments and names are those of `required_files`.
        """
        return {}

    def files_of_length(self, task: Task, protocol: Protocol, length: int) -> list[str]:
        """Return the names of further files, those that samples of one length are built from.

        Raises:
            UserError: for a length that none of the files has.
        """
        files = self.files_by_length(task, protocol)
        if not files:
            return []
        name = self.name_of_length(length)
        if name not in files:
            raise UserError(
                f"{task.full_name}: at length {length}: official files exist for "
                f"{', '.join(files)}; use these --lengths"
            )
        return files[name]

    def name_of_length(self, length: int) -> str:
        """Return a length in tokens as `files_by_length` names it."""
        return f"{length // 1024}k" if length % 1024 == 0 else str(length)

    def user_files(self, task: Task, protocol: Protocol, data_dir: Path | None) -> list[Path]:
        """Return the user's own files that hold ready-made samples of a task.

        The harness records their hashes.
        """
        return []

    def rows(self, task: Task, request: SampleRequest) -> Iterator[Any]:
        """Yield the rows of data files that samples are made of, a `FaultyRow` for a bad one.

        The harness reads them before a run, so that it begins with a warning about bad rows.
        By default there are none.
        """
        return iter(())

    def least_length(self, task: Task, request: SampleRequest) -> int:
        """Return a length that all samples fit into: the request's own, or the least longer one.

        By default any length will do.
        """
        return request.length

    def check_length(self, task: Task, request: SampleRequest) -> None:
        """Refuse a length that one of the samples does not fit into.

        The harness does so before a run, since in it the other samples would have run in vain.

        Raises:
            UserError: with a length that all of them fit into.
        """
        least = self.least_length(task, request)
        if least > request.length:
            raise UserError(
                f"at length {request.length}: too short, it takes at least {least} tokens; "
                "use longer --lengths"
            )

    @abstractmethod
    def samples(self, task: Task, request: SampleRequest) -> Iterator[Sample]:
        """Yield at most `request.limit` samples of a task.

        A smaller limit gives the first samples of a larger one.

        Raises:
            UserError: for a length that the task cannot have, or a file that cannot be read.
        """

    def metrics(self, task: Task, row: SampleRecord) -> dict[str, Any]:
        """Return the metrics of a finished sample that its record stores, by name.

        They are for a bench whose scorer is another program's: its `score` and `estimate` then need
        nothing but the record. By default there are none.
        """
        return {}

    def score(self, task: str, row: SampleRecord, protocol: Protocol) -> float:
        """Return the score of one answer, from 0 to 1.

        Args:
            task: name of the task.
            row: the sample, with `prediction`, `references` and `extras`.
            protocol: how the sample became a prompt, and which scorer is used.
        """
        raise NotImplementedError(f"{self.name} has no answers to score")

    def estimate(self, task: Task, rows: Sequence[SampleRecord], protocol: Protocol) -> Estimate:
        """Return the number of a cell as a function of its samples.

        The harness computes standard errors and intervals, and compares methods, from it. By
        default it is the mean score in percent, with documents as units where samples share them
        (`Estimate.by_document`).

        Args:
            task: the task.
            rows: the samples with their `score`; at least one.
            protocol: the protocol of the run.
        """
        return mean_score(rows)

    def cell_score(self, task: Task, rows: Sequence[SampleRecord], protocol: Protocol) -> CellScore:
        """Return the score of a cell with its standard error, its details and its estimate."""
        return CellScore(
            self.estimate(task, rows, protocol),
            self.details(task, rows, protocol),
            self.detail_estimates(task, rows, protocol),
        )

    def details(
        self, task: Task, rows: Sequence[SampleRecord], protocol: Protocol
    ) -> dict[str, float]:
        """Return more numbers of a cell by name, by default the values of `detail_estimates`."""
        estimates = self.detail_estimates(task, rows, protocol)
        return {name: estimate.value for name, estimate in estimates.items()}

    def detail_estimates(
        self, task: Task, rows: Sequence[SampleRecord], protocol: Protocol
    ) -> dict[str, Estimate]:
        """Return the estimates of details that are scores of samples, such as those at a depth.

        Their numbers of samples and their intervals are computed from it.
        """
        return {}

    def task_averages(self, scores: Mapping[str, Score], protocol: Protocol) -> dict[str, float]:
        """Return the averages over tasks that the benchmark reports at one length, by name.

        Args:
            scores: scores of complete cells by the name of their task.
            protocol: the protocol of the run.
        """
        return {}

    def length_averages(self, averages: Mapping[int, float]) -> dict[str, float]:
        """Return the numbers over lengths that the benchmark reports, by name.

        Args:
            averages: for each length in tokens, the first of its `task_averages`.
        """
        return {}


def mean_score(rows: Sequence[SampleRecord]) -> Estimate:
    """Return the mean score of samples in percent; its units are documents where they share any."""
    return Estimate.mean([100 * row["score"] for row in rows]).by_document(rows)


def mean_scores(rows_by_name: Mapping[str, Sequence[SampleRecord]]) -> dict[str, Estimate]:
    """Return the mean score of each group of samples that has any, by the group's name."""
    return {name: mean_score(rows) for name, rows in rows_by_name.items() if rows}
