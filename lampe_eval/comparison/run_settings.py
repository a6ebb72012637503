"""Settings of a run of ours: every field of its configuration, and those that others state too."""

from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any

from lampe_eval.comparison.compared_results import (
    ComparedSample,
    StatedSettings,
    flattened,
    joined,
    text_of,
)
from lampe_eval.comparison.scorers import BenchScorer
from lampe_eval.records import RunConfiguration, RunRecord, SampleRecord


def run_settings(
    description: RunRecord, scorers: Sequence[BenchScorer], samples: Sequence[ComparedSample]
) -> StatedSettings:
    """Return the settings of a run's samples.

    Args:
        description: the run's run.yaml.
        scorers: scorers of their tasks, with the tasks' cards and protocols.
        samples: the samples.
    """
    config = description["config"]
    fields: dict[str, str] = {}
    for scorer in scorers:
        fields |= dict(_task_fields(scorer))
    setups = dict.fromkeys((sample.model, sample.method) for sample in samples)
    of_methods = [dict(_method_fields(config, *setup)) for setup in setups]
    for name in dict.fromkeys(chain.from_iterable(of_methods)):
        fields[name] = joined([of_method.get(name) for of_method in of_methods])
    fields |= _other_fields(description) | _measured([sample.row for sample in samples])
    return StatedSettings(_settings(config, scorers, samples), fields)


def _task_fields(scorer: BenchScorer) -> Iterator[tuple[str, str]]:
    """Yield every declared field of a task's protocol and card, with defaults not stored."""
    for name, value in scorer.protocol.model_dump(mode="json").items():
        yield f"protocol of {scorer.task.bench}: {name}", text_of(value)
    for name, value in scorer.task.card.model_dump(mode="json").items():
        yield f"task {scorer.task.full_name}: {name}", text_of(value)


def _other_fields(description: RunRecord) -> dict[str, str]:
    """Return every field of a run's description that is not one of a task, model or method."""
    config: dict[str, Any] = {
        **description["config"],
        "tasks": list(description["config"]["tasks"]),
    }
    for name in ("protocols", "models", "methods", "lengths"):
        del config[name]
    fields = flattened(config, "") | {"date": text_of(description.get("date"))}
    environments = description["environments"]
    for name in dict.fromkeys(chain.from_iterable(environments)):
        values = [environment.get(name) for environment in environments]
        fields[f"version or machine: {name}"] = joined(values) or "none"
    return fields


def _method_fields(config: RunConfiguration, model: str, method: str) -> Iterator[tuple[str, str]]:
    """Yield the fields of a model and of a method's settings for it."""
    yield "model", model
    yield "method", method
    for name, value in config["models"][model].items():
        yield f"model: {name}", text_of(value)
    for name, value in config["methods"][method].get(model, {}).items():
        yield f"method setting {name}", text_of(value)
    for bench, lengths in config["lengths"].get(model, {}).items():
        yield f"lengths of {bench}", text_of(lengths)


def _measured(rows: Sequence[SampleRecord]) -> dict[str, str]:
    """Return what samples say of how they ran."""
    return {
        "backend": joined([row.get("backend") for row in rows]),
        "batch size": joined(sorted({row.get("batch_size", 1) for row in rows})),
        "samples whose prompt was cut": str(sum("cut_tokens" in row for row in rows)),
        "answers cut at their limit": str(sum(row.get("stop_reason") == "length" for row in rows)),
    }


def _settings(
    config: RunConfiguration,
    scorers: Sequence[BenchScorer],
    samples: Sequence[ComparedSample],
) -> dict[str, str]:
    """Return the settings that results of other programs state as well."""
    rows = [sample.row for sample in samples]
    models = {sample.model: config["models"][sample.model] for sample in samples}
    protocols = [scorer.protocol for scorer in scorers]
    has_stop = any(scorer.task.name in scorer.protocol.stop_at_newline for scorer in scorers)
    measured = _measured(rows)
    return {
        "model": joined(list(models)),
        "weights": joined([model["fingerprint"] for model in models.values()]),
        "dtype": joined([model["dtype"] for model in models.values()]),
        "method": joined([sample.method for sample in samples]),
        "wording": joined([f"prompts {protocol.prompts}" for protocol in protocols]),
        "chat template": joined([protocol.chat for protocol in protocols]),
        "truncation": joined([protocol.truncation for protocol in protocols]),
        "max length": joined(sorted({row["length"] for row in rows})),
        "max new tokens": _answer_limit(scorers, rows),
        "stops at": "end of text or line break" if has_stop else "end of text",
        "sampling": "greedy",
        "backend": measured["backend"],
        "batch size": measured["batch size"],
        "seed": str(config["seed"]),
    }


def _answer_limit(scorers: Sequence[BenchScorer], rows: Sequence[SampleRecord]) -> str:
    """Return the tokens that answers may have, or those of an answer that was cut there."""
    stated = []
    for scorer in scorers:
        of_task = getattr(scorer.task.card, "max_new_tokens", None)
        stated.append(of_task or scorer.protocol.max_new_tokens)
    cut = [row.get("answer_tokens") for row in rows if row.get("stop_reason") == "length"]
    return joined(stated) or joined(cut)
