"""Results of any program in one form: samples with their prompts, and settings in words."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lampe_eval.comparison.prompt_texts import PromptText
from lampe_eval.comparison.scorers import Scorer
from lampe_eval.records import SampleRecord

Group = tuple[str, str, int | None]
"""Setup, task and length whose samples have a score together; the length may be unknown."""

SETTINGS = (
    "model",
    "weights",
    "dtype",
    "method",
    "wording",
    "examples in the prompt",
    "chat template",
    "begin of text",
    "line breaks",
    "truncation",
    "max length",
    "max new tokens",
    "stops at",
    "sampling",
    "scorer",
    "number of samples",
    "backend",
    "batch size",
    "seed",
    "versions",
)
"""Settings that results of any program are compared in, by the words of this field."""


@dataclass(frozen=True)
class ComparedSample:
    """Sample of a result.

    Attributes:
        model: name of the model in a run; empty in other programs' files.
        method: label of the method in a run.
        task: "bench/task", or the task's name in its harness where it is no benchmark of ours.
        length: tokens of the cell, if known.
        row: prediction, references and extras as a run stores them.
        prompt_hash: kind of the hash and the prompt's hash; None if there is no prompt.
        prompt: what is stored of the prompt.
        question: the question by itself, empty if it is not stored.
        row_id: name of the data row's id and its value; None if it has none.
        setup: model and method, where results of several of them are compared.
        stored: scores that the harness stored, from 0 to 1.
        record: the sample as another program wrote it.
    """

    task: str
    length: int | None
    row: SampleRecord
    model: str = ""
    method: str = ""
    setup: str = ""
    prompt_hash: tuple[str, str] | None = None
    prompt: PromptText | None = None
    question: str = ""
    row_id: tuple[str, str] | None = None
    stored: Mapping[str, float] = field(default_factory=dict)
    record: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class StatedSettings:
    """Settings that a result states.

    Attributes:
        settings: those of `SETTINGS`.
        fields: every field of its own configuration, which another result of its kind has too.
    """

    settings: Mapping[str, str]
    fields: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class ComparedResult:
    """Result of a run or of another program.

    Attributes:
        name: what the user named it by.
        kind: program that wrote it.
        samples: its scored samples in their order.
        scorers: scorer of each task.
        settings_of: returns what it states of some of its samples.
    """

    name: str
    kind: str
    samples: Sequence[ComparedSample]
    scorers: Mapping[str, Scorer]
    settings_of: Callable[[Sequence[ComparedSample]], StatedSettings]


def task_names(samples: Sequence[ComparedSample]) -> list[str]:
    """Return the names of the tasks of samples, each once."""
    return list(dict.fromkeys(sample.task for sample in samples))


def text_of(value: Any) -> str:
    """Return a setting's value in words."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {text_of(item)}" for name, item in value.items()) or "none"
    if isinstance(value, list | tuple):
        return ", ".join(map(text_of, value)) or "none"
    return str(value) or "empty"


def joined(values: Sequence[Any]) -> str:
    """Return the different values in words, each once; empty if there are none."""
    return "; ".join(dict.fromkeys(text_of(value) for value in values if value is not None))


def flattened(value: Any, name: str) -> dict[str, str]:
    """Return the fields of nested mappings in words, each by its path."""
    if not isinstance(value, Mapping):
        return {name: text_of(value)}
    fields: dict[str, str] = {}
    for key, item in value.items():
        fields |= flattened(item, f"{name}.{key}" if name else str(key))
    return fields
