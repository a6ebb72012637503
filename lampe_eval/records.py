"""Records that a run stores, declared once for the engine, the store, scores, reports and the page.

A run's folder has a `RunRecord` in `run.yaml`, one `CellRecord` a line in `cells.jsonl`, and one
`SampleRecord` a line in the files of `samples/`. `SCHEMA` is raised whenever a key changes its
name or its meaning; folders of another schema are refused. A new key that may be left out, such as
`document_sha256`, does not raise it: folders that were written without it are read as before.
"""

import datetime
from collections.abc import Mapping
from typing import Annotated, Any, Literal, NotRequired

from pydantic import ConfigDict, Field, TypeAdapter, with_config

# pydantic reads typing's own TypedDict only from Python 3.12 on
from typing_extensions import TypedDict

SCHEMA = 3

# Strict: a number that stands in a file as text is damage, not a number to be converted. An unknown
# key is refused: scores may depend on what it says, and pydantic would drop it without a word.
EXACT_KEYS = ConfigDict(strict=True, extra="forbid")

# Tables hold them as 64-bit numbers and compute means of them as floats.
Count = Annotated[int, Field(ge=0, le=2**53)]
Length = Annotated[int, Field(ge=1, le=2**31)]


@with_config(EXACT_KEYS)
class Outcome(TypedDict, total=False):
    """Outcome of running a sample: an answer, a loss, an error, or a reason to skip it.

    Attributes:
        prediction: the answer's text.
        answers: both answers where the sample asks a follow-up question.
        answer_tokens: generated tokens, the stop token included.
        stop_reason: "eos" or "length".
        loss: sum of the losses (natural logarithm) of the scored tokens.
        scored_tokens: number of tokens that the loss sums over.
        loglikelihoods: log-likelihood of each of several texts (natural logarithm).
        greedy: of each of them, whether greedy decoding gives its scored tokens.
        skipped: why the sample was left out.
        error: class and message of what went wrong.
        backend: attention backends and the device type.
        batch_size: prompts that ran together.
        seconds: time of the whole batch.
        prefill_seconds: time of the whole batch until its first token.
        decode_seconds: time of the whole batch for all further tokens.
        peak_memory_bytes: most memory in use while the whole batch ran.
        low_memory: whether the prompt was read in small chunks to save memory.
    """

    prediction: str
    answers: list[str]
    answer_tokens: Count
    stop_reason: str
    loss: float
    scored_tokens: Count
    loglikelihoods: list[float]
    greedy: list[bool]
    skipped: str
    error: str
    backend: str
    batch_size: Count
    seconds: float
    prefill_seconds: float
    decode_seconds: float
    peak_memory_bytes: Count
    low_memory: bool


@with_config(EXACT_KEYS)
class SampleRecord(Outcome):
    """Finished sample.

    Attributes:
        id: unique within a task and a length.
        length: tokens of the cell.
        prompt_sha256: hash of the prompt's token ids.
        prompt_tokens: tokens of the prompt.
        prompt_start: the prompt's first tokens as text.
        prompt_end: the prompt's last tokens as text.
        document_sha256: hash of what several samples may share: the document that a question is
            about, or a needle's haystack. Intervals are computed over documents. Left out where no
            two samples share one, and in older runs, whose samples count as independent.
        meta: numbers that tables may group by, such as the depth of a needle.
        references: what the answer is scored against.
        extras: what else the scorer needs.
        cut_tokens: tokens removed from the prompt to make it fit.
        plan_tokens: tokens for which the method planned all questions about the sample's document;
            left out where it planned for this prompt alone.
        largest_position: largest relative position of prompt and answer, in positions of the
            model's own rope. Runs whose protocol has no `plan_length` counted the prompt alone.
        attention_factor: the factor on attention, as text.
        metrics: metrics of a benchmark whose scorer is another program's, by name; the one that
            tables show comes first.
        score: from 0 to 1.
        cell: model, method, bench and task of the sample. The store writes it, so that a file that
            was copied to another cell's place is noticed, and takes it away when it reads.
    """

    id: str
    length: int
    prompt_sha256: str
    prompt_tokens: Count
    prompt_start: NotRequired[str]
    prompt_end: NotRequired[str]
    document_sha256: NotRequired[str]
    meta: NotRequired[Mapping[str, float]]
    references: NotRequired[Any]
    extras: NotRequired[Mapping[str, Any]]
    cut_tokens: NotRequired[Count]
    plan_tokens: NotRequired[Count]
    largest_position: NotRequired[float]
    attention_factor: NotRequired[str]
    metrics: NotRequired[Mapping[str, Any]]
    score: NotRequired[float]
    cell: NotRequired[str]


@with_config(EXACT_KEYS)
class ResolvedSettings(TypedDict):
    """Settings of a method for as many tokens as its cell is long; other prompts may have others.

    Attributes:
        settings: hyper-parameters by name, derived ones included; those that stay unset, and those
            of the attention factor, are left out.
        attention_factor: the factor on attention, as text.
        plan_tokens: tokens for which the method planned all questions about the sample's document;
            left out where it planned for this prompt alone.
        largest_position: largest relative position, in positions of the model's own rope.
        visible_tokens: how many tokens the last one sees, as text; left out where it sees all.
    """

    settings: Mapping[str, int | float | str | bool]
    attention_factor: str
    largest_position: float
    visible_tokens: NotRequired[str]


@with_config(EXACT_KEYS)
class CellRecord(TypedDict):
    """Cell (model x method x task x length) and its number of samples.

    Attributes:
        at_most: samples that the cell could have had, where a stopping rule ended it before.
        resolved: the method's settings at this length; older runs have none.
    """

    model: str
    method: str
    bench: str
    task: str
    length: Length
    samples: Count
    at_most: NotRequired[Count]
    resolved: NotRequired[ResolvedSettings]


@with_config(EXACT_KEYS)
class ModelRecord(TypedDict):
    """Properties of a model that scores depend on.

    Attributes:
        fingerprint: the hub's commit, or a hash of a folder's files.
        dtype: data type of the weights.
        window: tokens of pretraining.
    """

    fingerprint: str
    dtype: str
    window: Length


@with_config(ConfigDict(extra="allow"))
class TaskRecord(TypedDict):
    """Fields of a task's card that all benchmarks have; the others are those of its benchmark.

    Attributes:
        version: raised when a change of the task changes its scores.
        samples: number of samples of a cell, unless limited.
    """

    version: int
    samples: Count


@with_config(EXACT_KEYS)
class StoppingRecord(TypedDict, total=False):
    """Rule by which cells stop before they have all their samples.

    Attributes:
        precision: half-width in points that a cell's interval gets below before the cell stops.
        reference: method that others are compared with until each comparison is decided.
        margin: points within which a method counts as equivalent to the reference.
    """

    precision: float
    reference: str
    margin: float


@with_config(EXACT_KEYS)
class SuiteConfiguration(TypedDict):
    """Part of a run's configuration that is known before models are described.

    Attributes:
        protocol: as the user wrote it.
        protocols: the protocol's fields by benchmark, `plan` only where it is not "prompt".
        tasks: the card of each task by "bench/task".
        user_files: sha256 of the user's own sample files by "bench/task".
        limit: most samples of a cell; None for as many as each task has.
        seed: seed of everything that is drawn at random.
        haystack: name and hash of the text for needles; None for the pocket language.
        text: name and hash of the text for perplexity; None for the pocket language.
        attention: backend that was asked for.
        plugins: sha256 of plug-in files by file name, and versions of packages whose methods or
            benchmarks the run uses by name; left out where there are none.
        stopping: rule by which cells stop early; left out where all samples run.
    """

    protocol: str
    protocols: Mapping[str, Mapping[str, Any]]
    tasks: Mapping[str, TaskRecord]
    user_files: Mapping[str, str]
    limit: int | None
    seed: int
    haystack: str | None
    text: str | None
    attention: str
    plugins: NotRequired[Mapping[str, str]]
    stopping: NotRequired[StoppingRecord]


@with_config(EXACT_KEYS)
class RunConfiguration(SuiteConfiguration):
    """Everything that the scores of a run depend on.

    Attributes:
        models: by name.
        methods: settings by the method's label and the model's name.
        files: sha256 of the benchmark files by name.
        lengths: tokens of the cells, longest first, by model and benchmark.
        device: type of the device.
        max_batch_tokens: most tokens of a batch; "measured" where free memory sets it, None where
            samples run alone.
    """

    models: Mapping[str, ModelRecord]
    methods: Mapping[str, Mapping[str, Mapping[str, Any]]]
    files: Mapping[str, str]
    lengths: Mapping[str, Mapping[str, list[int]]]
    device: str
    max_batch_tokens: int | Literal["measured"] | None


@with_config(EXACT_KEYS)
class ExtensionRecord(TypedDict):
    """Session that began a run, or added to it.

    Attributes:
        time: when it began, with the time zone.
        options: options of its command by name; those that were not given are left out.
        added: models, methods, tasks and lengths of the cells that it added, how many these are,
            and the limit where it set another.
    """

    time: datetime.datetime
    options: Mapping[str, Any]
    added: Mapping[str, Any]


@with_config(EXACT_KEYS)
class RunRecord(TypedDict):
    """Description of a run.

    Attributes:
        schema: version of the records in this folder.
        date: today's date to chat templates that write it; left out in older runs.
        config: what scores depend on.
        reference: label of the method that others are compared with; left out in older runs.
        history: sessions that began the run or added to it, oldest first; left out in older runs.
        environments: versions and hardware of every session that ran samples, oldest first.
    """

    schema: int
    date: NotRequired[datetime.date]
    config: RunConfiguration
    reference: NotRequired[str]
    history: NotRequired[list[ExtensionRecord]]
    environments: list[Mapping[str, Any]]


RUN = TypeAdapter(RunRecord)
CELL = TypeAdapter(CellRecord)
SAMPLE = TypeAdapter(SampleRecord)
