"""Results and samples as lm-evaluation-harness 0.4 writes them.

A results file has one model, so that each model with each method has a folder of its own. A task at
a length is a task here, "ruler_vt_4096", and the averages that a benchmark reports are groups.
Scores are shares from 0 to 1, as in that harness; perplexities are themselves.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

from lampe_eval.export.exported_run import (
    ExportedCell,
    ExportedNumber,
    ExportedResults,
)
from lampe_eval.file_io import safe_name, sha256_of_bytes
from lampe_eval.records import SampleRecord
from lampe_eval.scoring.intervals import CONFIDENCE

FILTER = "none"
"""Filter of answers by which keys of results end; answers are scored as they are."""
NO_STDERR = "N/A"
"""Standard error of a number that has none."""
GENERATION = {"do_sample": False, "temperature": 0.0}
"""How answers are generated: greedily."""
REFERENCE_KEYS = {"ruler": "outputs", "niah": "outputs", "longbench": "answers"}
"""Keys of the references in lm-eval's rows of data, by benchmark; others have "references"."""
PROMPT_GAP = "\n[...]\n"
"""Text between both ends of a prompt, of which runs store no more."""


def files(results: ExportedResults) -> dict[str, str]:
    """Return the results file and a file of samples for each task, by path."""
    folder = f"{safe_name(results.model)}/{safe_name(results.method)}"
    time = results.time.strftime("%Y-%m-%dT%H-%M-%S.%f")
    samples = {cell.name: list(_samples(cell)) for cell in results.cells}
    summary = _summary(results, samples)
    texts = {f"{folder}/results_{time}.json": f"{json.dumps(summary, indent=2)}\n"}
    for name, rows in samples.items():
        lines = [json.dumps(row) + "\n" for row in rows]
        texts[f"{folder}/{safe_name(f'samples_{name}')}_{time}.jsonl"] = "".join(lines)
    return texts


def _summary(
    results: ExportedResults, samples: Mapping[str, list[dict[str, Any]]]
) -> dict[str, Any]:
    """Return the content of a results file."""
    numbers = {cell.name: _numbers(cell, _metric(cell)) for cell in results.cells}
    groups = _groups(results)
    subtasks = {name: _subtasks(results, name) for name in groups}
    return {
        "results": {**numbers, **groups},
        "groups": groups,
        "group_subtasks": subtasks,
        "configs": {cell.name: _task_config(results, cell) for cell in results.cells},
        "versions": {cell.name: cell.version for cell in results.cells},
        "n-shot": {cell.name: 0 for cell in results.cells},
        "higher_is_better": {
            cell.name: {_metric(cell): cell.higher_is_better} for cell in results.cells
        },
        "n-samples": {
            cell.name: {"original": cell.task_samples, "effective": cell.n}
            for cell in results.cells
        },
        "config": _config(results),
        "git_hash": None,
        "date": results.time.timestamp(),
        "transformers_version": results.environment.get("transformers"),
        "task_hashes": {name: _task_hash(rows) for name, rows in samples.items()},
        "model_source": "lampe-eval",
        "model_name": results.hub_id,
        "model_name_sanitized": results.hub_id.replace("/", "__"),
        "lampe_eval": {
            "version": results.version,
            "environment": dict(results.environment),
            "protocol": results.config["protocol"],
            "protocols": dict(results.config["protocols"]),
            "averages": [asdict(average) for average in results.averages],
        },
    }


def _numbers(number: ExportedNumber, metric: str) -> dict[str, Any]:
    """Return a task's entry of `results`."""
    scale = _scale(number)
    stderr = NO_STDERR if number.stderr is None else number.stderr / scale
    return {
        f"{metric},{FILTER}": number.value / scale,
        f"{metric}_stderr,{FILTER}": stderr,
    }


def _groups(results: ExportedResults) -> dict[str, dict[str, Any]]:
    """Return the averages over tasks at a length, a group for each benchmark and length."""
    groups: dict[str, dict[str, Any]] = {}
    for average in results.averages:
        if average.length is not None:
            entry = groups.setdefault(f"{average.bench}_{average.length}", {})
            # A comma ends the name of a metric.
            entry |= _numbers(average, average.name.replace(",", ";"))
    return groups


def _subtasks(results: ExportedResults, group: str) -> list[str]:
    return [cell.name for cell in results.cells if f"{cell.bench}_{cell.cell.length}" == group]


def _task_config(results: ExportedResults, cell: ExportedCell) -> dict[str, Any]:
    """Return a task's entry of `configs`; `metadata` has what that harness has no key for."""
    scale = _scale(cell)
    return {
        "task": cell.name,
        "dataset_path": cell.bench,
        "dataset_name": cell.cell.task,
        "output_type": _output_type(cell),
        "num_fewshot": 0,
        "repeats": 1,
        "metric_list": [
            {
                "metric": _metric(cell),
                "aggregation": "mean" if cell.has_answers else "weighted_perplexity",
                "higher_is_better": cell.higher_is_better,
            }
        ],
        "generation_kwargs": GENERATION,
        "metadata": {
            "version": cell.version,
            "length": cell.cell.length,
            "protocol": results.config["protocol"],
            "method": results.method,
            "settings": dict(cell.resolved["settings"]) if cell.resolved else None,
            "attention_factor": cell.attention_factor,
            "stopping": cell.stopping or None,
            "ci_low": None if cell.ci_low is None else cell.ci_low / scale,
            "ci_high": None if cell.ci_high is None else cell.ci_high / scale,
            "confidence": CONFIDENCE,
            "independent_units": cell.independent_units,
            "unit": cell.unit,
        },
    }


def _output_type(cell: ExportedCell) -> str:
    """Return what the harness calls the kind of a task's requests."""
    if not cell.has_answers:
        return "loglikelihood_rolling"
    has_choices = any("loglikelihoods" in row for row in cell.rows)
    return "multiple_choice" if has_choices else "generate_until"


def _config(results: ExportedResults) -> dict[str, Any]:
    """Return model and settings; the method is an argument of the model."""
    config, model = results.config, results.model_record
    return {
        "model": "lampe-eval",
        "model_args": {
            "pretrained": results.hub_id,
            "dtype": model["dtype"],
            "method": results.method,
            "method_settings": dict(results.settings),
            "window": model["window"],
            "attention": config["attention"],
        },
        "model_dtype": model["dtype"],
        "model_sha": model["fingerprint"],
        "batch_size": config["max_batch_tokens"] or 1,
        "device": config["device"],
        "limit": config["limit"],
        "random_seed": config["seed"],
    }


def _samples(cell: ExportedCell) -> Iterator[dict[str, Any]]:
    """Yield the lines of a file of samples."""
    metric = _metric(cell)
    for index, row in enumerate(cell.rows):
        document = _document(cell, row)
        target = str(row.get("references"))
        answer, value = _answer_and_value(cell, index)
        prompt = PROMPT_GAP.join([row.get("prompt_start", ""), row.get("prompt_end", "")])
        yield {
            "doc_id": index,
            "doc": document,
            "target": target,
            "arguments": {"gen_args_0": {"arg_0": prompt, "arg_1": GENERATION}},
            "resps": [[answer]],
            "filtered_resps": [answer],
            "filter": FILTER,
            "metrics": [metric],
            "doc_hash": _hash(json.dumps(document, indent=2)),
            "prompt_hash": row["prompt_sha256"],
            "target_hash": _hash(target),
            metric: value,
        }


def _document(cell: ExportedCell, row: SampleRecord) -> dict[str, Any]:
    """Return a row of data, with the keys that lm-eval's own tasks have."""
    document: dict[str, Any] = {
        "id": row["id"],
        "length": row["length"],
        "max_length": cell.cell.length,
        **row.get("extras", {}),
        **row.get("meta", {}),
    }
    if "references" in row:
        document[REFERENCE_KEYS.get(cell.bench, "references")] = row["references"]
    return document


def _answer_and_value(cell: ExportedCell, index: int) -> tuple[str, float | list[float]]:
    """Return the answer of a sample and its score.

    Of a passage they are its log-likelihood, as text, and that with its weight: the perplexity is
    exp of minus the ratio of their sums.
    """
    if cell.has_answers:
        row = cell.rows[index]
        answer = row.get("prediction")
        return str(row["loglikelihoods"]) if answer is None else answer, row["score"]
    loss, *tokens = map(float, cell.parts[index])
    return str(-loss), [-loss, *(tokens or [1.0])]


def _metric(cell: ExportedCell) -> str:
    # A comma ends the name of a metric.
    return cell.metric.replace(" ", "_").replace(",", ";")


def _scale(number: ExportedNumber) -> float:
    return 100 if number.is_percent else 1


def _task_hash(rows: list[dict[str, Any]]) -> str:
    hashes = [row["doc_hash"] + row["prompt_hash"] + row["target_hash"] for row in rows]
    return _hash("".join(hashes))


def _hash(text: str) -> str:
    # A row of data may hold half of a surrogate pair, which UTF-8 cannot encode.
    return sha256_of_bytes(text.encode("utf-8", "backslashreplace"))
