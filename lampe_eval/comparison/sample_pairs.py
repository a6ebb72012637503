"""Pairs of samples that two results share: by prompt hash, else by question and reference."""

import json
from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial

from lampe_eval.comparison.compared_results import ComparedSample
from lampe_eval.comparison.prompt_texts import normalized, text_difference

Samples = Mapping[int, ComparedSample]
"""Samples that are not paired yet, by their place."""
Key = Callable[[ComparedSample], Hashable | None]


@dataclass(frozen=True)
class SamplePair:
    """Sample that both results have.

    Attributes:
        first: the sample in the first result.
        second: the sample in the second result.
        by: what they were paired by.
        places: places of both in their results.
    """

    first: ComparedSample
    second: ComparedSample
    by: str
    places: tuple[int, int]

    @cached_property
    def same_prompt(self) -> bool | None:
        """Return whether both have the same prompt; None where what is stored does not show it."""
        hashes = self.first.prompt_hash, self.second.prompt_hash
        if hashes[0] and hashes[1] and hashes[0][0] == hashes[1][0]:
            return hashes[0] == hashes[1]
        if self.first.prompt is None or self.second.prompt is None:
            return None
        return False if text_difference(self.first.prompt, self.second.prompt) else None


def pair_samples(
    first: Sequence[ComparedSample], second: Sequence[ComparedSample]
) -> list[SamplePair]:
    """Return the samples that both results have, in the order of the first one.

    Samples that cannot be told apart, of which one result has more than the other, are left out.
    """
    left = dict(enumerate(first)), dict(enumerate(second))
    pairs: list[SamplePair] = []
    for by, matches in MATCHES:
        for places in matches(*left):
            one, other = places
            pairs.append(SamplePair(left[0].pop(one), left[1].pop(other), by, places))
    return sorted(pairs, key=lambda pair: pair.places)


def without_foreign_lengths(
    samples: Sequence[ComparedSample], others: Sequence[ComparedSample]
) -> list[ComparedSample]:
    """Return samples, without lengths in the tasks for which the others state none of these."""
    own, foreign = _lengths(samples), _lengths(others)
    shared = {task for task in own if own[task] & foreign.get(task, set())}
    aligned = []
    for sample in samples:
        is_shared = (sample.setup, sample.task) in shared
        aligned.append(sample if is_shared else replace(sample, length=None))
    return aligned


def _lengths(samples: Sequence[ComparedSample]) -> dict[tuple[str, str], set[int | None]]:
    lengths: dict[tuple[str, str], set[int | None]] = {}
    for sample in samples:
        lengths.setdefault((sample.setup, sample.task), set()).add(sample.length)
    return lengths


def _by_key(
    first: Samples, second: Samples, key: Key, *, is_prompt: bool = False
) -> list[tuple[int, int]]:
    """Return places of samples with equal keys."""
    groups, others = _places_by_key(first, key), _places_by_key(second, key)
    places: list[tuple[int, int]] = []
    for value, own in groups.items():
        other = others.get(value, [])
        # Equal prompts are the same question; of equal references alone one may be another's.
        if is_prompt or len(own) == len(other):
            places += zip(own, other, strict=False)
    return places


def _places_by_key(samples: Samples, key: Key) -> dict[Hashable, list[int]]:
    """Return places of samples by their key within setup, task and length."""
    places: dict[Hashable, list[int]] = {}
    for place, sample in samples.items():
        value = key(sample)
        if value is not None:
            whole = (sample.setup, sample.task, sample.length, value)
            places.setdefault(whole, []).append(place)
    return places


def _by_question_in_prompt(first: Samples, second: Samples) -> list[tuple[int, int]]:
    """Return places of samples of one reference where the prompt of one has the other's question.

    Runs of ours store both ends of a prompt, and no question by itself.
    """
    others = _places_by_key(second, _reference)
    taken: set[int] = set()
    places: list[tuple[int, int]] = []
    for value, own in _places_by_key(first, _reference).items():
        for one in own:
            for other in others.get(value, []):
                if other not in taken and _asks_the_same(first[one], second[other]):
                    taken.add(other)
                    places.append((one, other))
                    break
    return places


def _asks_the_same(first: ComparedSample, second: ComparedSample) -> bool:
    """Return whether the question of one sample stands in the prompt of the other."""
    for asked, read in ((first, second), (second, first)):
        question = normalized(asked.question)
        if question and read.prompt is not None:
            texts = (read.prompt.start, read.prompt.end)
            if any(question in normalized(text) for text in texts):
                return True
    return False


def _references(sample: ComparedSample) -> str:
    value = sample.row.get("references")
    listed = value if isinstance(value, list | tuple) else [value]
    return json.dumps([str(item) for item in listed])


def _question(sample: ComparedSample) -> Hashable | None:
    question = normalized(sample.question)
    return (question, _references(sample)) if question else None


def _row_id(sample: ComparedSample) -> Hashable | None:
    return (sample.row_id, _references(sample)) if sample.row_id else None


def _reference_and_length(sample: ComparedSample) -> Hashable | None:
    length = sample.row.get("extras", {}).get("length")
    return (_references(sample), str(length)) if length and _has_reference(sample) else None


def _reference(sample: ComparedSample) -> Hashable | None:
    return _references(sample) if _has_reference(sample) else None


def _has_reference(sample: ComparedSample) -> bool:
    return bool(sample.row.get("references"))


PROMPT_HASH = "prompt hash"
QUESTION = "question and reference"
MATCHES: tuple[tuple[str, Callable[[Samples, Samples], list[tuple[int, int]]]], ...] = (
    (PROMPT_HASH, partial(_by_key, key=lambda sample: sample.prompt_hash, is_prompt=True)),
    (QUESTION, partial(_by_key, key=_question)),
    (QUESTION, _by_question_in_prompt),
    ("id of the data row and reference", partial(_by_key, key=_row_id)),
    ("reference and length of the text", partial(_by_key, key=_reference_and_length)),
    ("reference", partial(_by_key, key=_reference)),
)
"""What samples are paired by, the surest first."""


def count_by(pairs: Sequence[SamplePair]) -> dict[str, int]:
    """Return the number of pairs by what they were paired by."""
    return dict(Counter(pair.by for pair in pairs))
