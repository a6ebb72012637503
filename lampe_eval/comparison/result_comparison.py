"""Comparison of two results: pairs of samples, settings, scores, first difference, paired test."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from lampe_eval.comparison.compared_results import ComparedResult, ComparedSample, Group, task_names
from lampe_eval.comparison.file_results import read_files
from lampe_eval.comparison.narrowing import Narrowing
from lampe_eval.comparison.prompt_texts import TextDifference, text_difference
from lampe_eval.comparison.run_results import read_run
from lampe_eval.comparison.sample_pairs import (
    SamplePair,
    count_by,
    pair_samples,
    without_foreign_lengths,
)
from lampe_eval.comparison.score_split import (
    ScoreSplit,
    SharedSamples,
    mean_split,
    split_scores,
)
from lampe_eval.comparison.setting_lines import SettingLine, setting_lines
from lampe_eval.errors import UserError, first_names
from lampe_eval.results.method_differences import readable
from lampe_eval.results.paired_tests import CellSamples, paired_test, unit_differences
from lampe_eval.scoring.estimates import Estimate


@dataclass(frozen=True)
class PairedTestResult:
    """Paired test of the shared samples whose prompts are not known to differ.

    Attributes:
        difference: first minus second, in points, or by how many percent the first's perplexity is
            higher.
        interval: its 95 % interval; None for the perplexity of a single unit.
        p_value: that of no difference, or None.
        n: number of samples.
        scorer: name of the scorer of both results.
        same_prompts: whether all prompts are known to be the same.
    """

    difference: float
    interval: tuple[float, float] | None
    p_value: float | None
    n: int
    scorer: str
    same_prompts: bool


@dataclass(frozen=True)
class ComparedGroup:
    """Comparison of a task's samples at one length.

    Attributes:
        setup: model and method; empty where there is one.
        task: name of the task.
        length: tokens of the cell, if known.
        counts: samples of both results.
        pairs: samples that both have.
        split: both scores and their difference in parts.
        test: paired test, None where prompts differ or no scorer scores both results.
    """

    setup: str
    task: str
    length: int | None
    counts: tuple[int, int]
    pairs: Sequence[SamplePair]
    split: ScoreSplit
    test: PairedTestResult | None


@dataclass(frozen=True)
class ComparedMean:
    """Mean over the compared tasks of a benchmark at one length.

    Attributes:
        setup: model and method; empty where there is one.
        bench: name of the benchmark.
        length: tokens of the cells, if known.
        tasks: number of tasks.
        split: both means and their difference in parts.
    """

    setup: str
    bench: str
    length: int | None
    tasks: int
    split: ScoreSplit


@dataclass(frozen=True)
class PromptDifference:
    """First pair of samples with different prompts, and where they differ.

    Attributes:
        pair: the samples.
        text: the differing characters; None where they are in a part that is not stored.
    """

    pair: SamplePair
    text: TextDifference | None

    @property
    def sample_name(self) -> str:
        """Return the id of the sample's data row, else its number in the first result."""
        row_id = self.pair.first.row_id
        return row_id[1] if row_id else str(self.pair.places[0] + 1)


@dataclass(frozen=True)
class ResultComparison:
    """Comparison of two results.

    Attributes:
        first: the first result.
        second: the second result.
        pairs: samples that both have.
        settings: their settings, those that agree as well.
        groups: scores by task and length.
        prompt: the first different prompt, None if none is known.
    """

    first: ComparedResult
    second: ComparedResult
    pairs: Sequence[SamplePair]
    settings: Sequence[SettingLine]
    groups: Sequence[ComparedGroup]
    prompt: PromptDifference | None

    @property
    def paired_by(self) -> dict[str, int]:
        """Return the number of pairs by what they were paired by."""
        return count_by(self.pairs)

    @cached_property
    def means(self) -> list[ComparedMean]:
        """Return the means of benchmarks of which several tasks are compared."""
        splits: dict[Group, list[ScoreSplit]] = {}
        for group in self.groups:
            bench = group.task.partition("/")[0]
            splits.setdefault((group.setup, bench, group.length), []).append(group.split)
        return [
            ComparedMean(*key, len(of_bench), mean_split(of_bench))
            for key, of_bench in splits.items()
            if len(of_bench) > 1
        ]


def read_result(path: Path, narrowing: Narrowing) -> ComparedResult:
    """Read a run, or files of another program.

    Raises:
        UserError: if it is neither, or has nothing to compare.
    """
    if not path.exists():
        raise UserError(f"{path}: no such file or folder")
    if (path / "run.yaml").exists():
        return read_run(path, narrowing)
    return read_files(path, narrowing)


def compare_results(first: ComparedResult, second: ComparedResult) -> ResultComparison:
    """Compare two results.

    Raises:
        UserError: if they share no sample, or it is open which of several methods to compare.
    """
    first, second = _with_common_setups(first, second)
    samples = (
        without_foreign_lengths(first.samples, second.samples),
        without_foreign_lengths(second.samples, first.samples),
    )
    pairs = pair_samples(*samples)
    if not pairs:
        raise _nothing_shared(first, second)
    return ResultComparison(
        first,
        second,
        pairs,
        setting_lines(first, second, pairs),
        _groups(first, second, samples, pairs),
        _first_prompt_difference(pairs),
    )


def _with_common_setups(
    first: ComparedResult, second: ComparedResult
) -> tuple[ComparedResult, ComparedResult]:
    """Return results of the models and methods that both have; a single one needs no name.

    Raises:
        UserError: if one has several and the other has none of these.
    """
    setups = [dict.fromkeys(map(_setup, item.samples)) for item in (first, second)]
    if all(len(names) == 1 for names in setups):
        return first, second
    shared = [name for name in setups[0] if name in setups[1]]
    if not shared:
        several = first if len(setups[0]) > 1 else second
        names = dict.fromkeys(map(_setup, several.samples))
        raise UserError(
            f"{several.name}: has {len(names)} models and methods ({first_names(list(names))}); "
            "choose with --method and --model"
        )
    return _with_setups(first, shared), _with_setups(second, shared)


def _setup(sample: ComparedSample) -> str:
    return f"{sample.model} · {sample.method}" if sample.model else ""


def _with_setups(result: ComparedResult, setups: Sequence[str]) -> ComparedResult:
    named = [replace(sample, setup=_setup(sample)) for sample in result.samples]
    return replace(result, samples=[sample for sample in named if sample.setup in setups])


def _nothing_shared(first: ComparedResult, second: ComparedResult) -> UserError:
    """Return the error for results without a common sample, with what keeps them apart."""
    tasks = [task_names(item.samples) for item in (first, second)]
    if not set(tasks[0]) & set(tasks[1]):
        has = " and ".join(
            f"{result.name} has {first_names(names)}"
            for result, names in zip((first, second), tasks, strict=True)
        )
        return UserError(f"the results share no sample: {has}; compare results of one task")
    lines = [line for line in setting_lines(first, second) if line.differs]
    differing = [f"{line.name} {line.first} / {line.second}" for line in lines]
    has_lengths = any(map(_has_several_lengths, (first, second)))
    advice = "give --length" if has_lengths else "compare results of the same data"
    reason = f" ({first_names(differing)})" if differing else ""
    return UserError(
        f"{first.name} and {second.name} share no sample of {first_names(tasks[0])}: neither "
        f"prompts nor questions and references agree{reason}; {advice}"
    )


def _has_several_lengths(result: ComparedResult) -> bool:
    return len({sample.length for sample in result.samples}) > 1


def _group(sample: ComparedSample) -> Group:
    return sample.setup, sample.task, sample.length


def _groups(
    first: ComparedResult,
    second: ComparedResult,
    samples: tuple[Sequence[ComparedSample], Sequence[ComparedSample]],
    pairs: Sequence[SamplePair],
) -> list[ComparedGroup]:
    by_group: dict[Group, list[SamplePair]] = {}
    for pair in pairs:
        by_group.setdefault(_group(pair.first), []).append(pair)
    sides = [_by_group(of_result) for of_result in samples]
    groups: list[ComparedGroup] = []
    for group, members in by_group.items():
        setup, task, length = group
        of_group = [side.get(group, []) for side in sides]
        shared = SharedSamples(members, first.scorers[task], second.scorers[task])
        groups.append(
            ComparedGroup(
                setup=setup,
                task=task,
                length=length,
                counts=(len(of_group[0]), len(of_group[1])),
                pairs=members,
                split=split_scores(shared, *of_group),
                test=_paired_test(shared),
            )
        )
    return groups


def _by_group(samples: Sequence[ComparedSample]) -> dict[Group, list[ComparedSample]]:
    by_group: dict[Group, list[ComparedSample]] = {}
    for sample in samples:
        by_group.setdefault(_group(sample), []).append(sample)
    return by_group


def _paired_test(shared: SharedSamples) -> PairedTestResult | None:
    """Return the paired test of the samples whose prompts are not known to differ, if any."""
    scorer = shared.common_scorer()
    places = [place for place, pair in enumerate(shared.pairs) if pair.same_prompt is not False]
    if scorer is None or not places:
        return None
    first, second = (shared.estimate(side, scorer) for side in (0, 1))
    assert first is not None and second is not None, "a common scorer scores both"
    units = unit_differences(
        _samples(first, places, "first"),
        _samples(second, places, "second"),
        is_perplexity=first.scale != "percent",
    )
    assert units is not None, "both have the samples at these places"
    test = paired_test(units)
    interval = None
    if test:
        low, high = test.interval()
        interval = readable(low, units.is_perplexity), readable(high, units.is_perplexity)
    return PairedTestResult(
        difference=readable(units.difference, units.is_perplexity),
        interval=interval,
        p_value=test.p_value if test else None,
        n=len(places),
        scorer=shared.scorers[scorer].name,
        same_prompts=all(shared.pairs[place].same_prompt for place in places),
    )


def _samples(estimate: Estimate, places: Collection[int], side: str) -> CellSamples:
    """Return samples whose ids are those of the other side at these places alone."""
    ids = [(str(place), "" if place in places else side) for place in range(len(estimate.parts))]
    return CellSamples(ids, estimate)


def _first_prompt_difference(pairs: Sequence[SamplePair]) -> PromptDifference | None:
    """Return the first pair with different prompts, of those whose difference is stored."""
    different = [pair for pair in pairs if pair.same_prompt is False]
    for pair in different:
        if pair.first.prompt is not None and pair.second.prompt is not None:
            text = text_difference(pair.first.prompt, pair.second.prompt)
            if text is not None:
                return PromptDifference(pair, text)
    return PromptDifference(different[0], None) if different else None
