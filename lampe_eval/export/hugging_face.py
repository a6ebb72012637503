"""Evaluation results as model repositories of the Hugging Face hub hold them.

Every benchmark with every method is a file of its own below `.eval_results/`, since a file states
one way of evaluating a model; method and settings are its notes.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from lampe_eval.export.exported_run import ExportedNumber, ExportedResults
from lampe_eval.file_io import safe_name
from lampe_eval.yaml_files import write_yaml

DATASETS = {
    "infinitebench": "xinrongzhang2022/InfiniteBench",
    "longbench": "zai-org/LongBench",
    "longbench-e": "zai-org/LongBench",
    "longbench-v2": "zai-org/LongBench-v2",
}
"""Data sets on the hub by benchmark; generated benchmarks have none, and stand under their name."""


def files(results: ExportedResults) -> dict[str, str]:
    """Return a file for each benchmark, by path."""
    # Imported here: the hub's library takes a while, and the other formats do not need it.
    from huggingface_hub import EvalResultEntry, eval_result_entries_to_yaml

    texts: dict[str, str] = {}
    for bench in results.benches:
        entries = [
            EvalResultEntry(
                dataset_id=DATASETS.get(bench, bench),
                task_id=task,
                value=number.value,
                date=results.time.isoformat(),
                notes="; ".join([*_notes(results, number), *notes]),
            )
            for task, number, notes in _numbers(results)
            if number.bench == bench
        ]
        path = f"{safe_name(results.model)}/.eval_results/{safe_name(f'{bench}_{results.method}')}"
        texts[f"{path}.yaml"] = write_yaml(eval_result_entries_to_yaml(entries))
    return texts


def _numbers(results: ExportedResults) -> Iterator[tuple[str, ExportedNumber, list[str]]]:
    """Yield task, number and notes of its own of each score, then of each average."""
    for cell in results.cells:
        notes = [
            cell.metric,
            f"{cell.cell.length} tokens",
            f"n = {cell.n}",
            f"attention factor {cell.attention_factor}",
            f"{cell.bench}/{cell.cell.task} version {cell.version}",
        ]
        if cell.stopping:
            notes.append(f"stopped by a rule: {cell.stopping}")
        if cell.resolved:
            notes.append(f"settings at this length: {_settings(cell.resolved['settings'])}")
        yield f"{cell.cell.task}_{cell.cell.length}", cell, notes
    for average in results.averages:
        task = average.name.replace(" ", "_")
        if average.length is None:
            yield task, average, [average.name]
        else:
            yield f"{task}_{average.length}", average, [average.name, f"{average.length} tokens"]


def _notes(results: ExportedResults, number: ExportedNumber) -> Iterator[str]:
    """Yield what a reader has to know of any number."""
    model, settings = results.model_record, _settings(results.settings)
    yield f"method {results.method}"
    if settings:
        yield f"settings {settings}"
    yield f"{'higher' if number.higher_is_better else 'lower'} is better"
    if number.ci_low is not None and number.ci_high is not None:
        yield f"95 % interval {number.ci_low:.6g} to {number.ci_high:.6g}"
    yield f"protocol {results.config['protocol']}"
    yield f"window {model['window']}, {model['dtype']}, weights {model['fingerprint']}"
    yield f"lampe-eval {results.version}"


def _settings(settings: Mapping[str, Any]) -> str:
    known = {name: value for name, value in settings.items() if value is not None}
    return ", ".join(f"{name}={value}" for name, value in known.items())
