"""Configuration of a run: what scores depend on, files it needs, and the folder named after it."""

import hashlib
from pathlib import Path
from typing import Any

from lampe_eval import assets
from lampe_eval.benches import BENCHES
from lampe_eval.cards import Card
from lampe_eval.models import ModelSource
from lampe_eval.records import RunConfiguration
from lampe_eval.running.run_plan import RunPlan
from lampe_eval.running.sampling import user_text
from lampe_eval.texts import documents


def required_files(plan: RunPlan) -> list[str]:
    """Return the names of the benchmark files that tasks and texts need, each once."""
    names: list[str] = []
    for task in plan.tasks:
        protocol = plan.protocols[task.bench]
        names += BENCHES[task.bench].required_files(task, protocol, user_text(plan, task))
    names += documents.required_files(plan.suite.haystack)
    names += documents.required_files(plan.suite.text)
    return list(dict.fromkeys(names))


def run_configuration(plan: RunPlan) -> RunConfiguration:
    """Return the configuration that a run's folder records and that a resumed run must match.

    Raises:
        UserError: if a benchmark file is missing or a text cannot be read.
    """
    suite = plan.suite
    data_dir = suite.data_dir
    configuration: RunConfiguration = {
        "models": {source.name: source.described for source in plan.sources},
        "methods": {spec.label: _settings_by_model(plan, spec.label) for spec in plan.specs},
        "protocol": suite.protocol_label,
        "protocols": {bench: _fields(protocol) for bench, protocol in plan.protocols.items()},
        "tasks": {task.full_name: _fields(task.card) for task in plan.tasks},
        "files": {name: f"sha256:{assets.digest(name, data_dir)}" for name in required_files(plan)},
        "user_files": _user_files(plan),
        "lengths": {source.name: _lengths_by_bench(plan, source) for source in plan.sources},
        "limit": suite.limit,
        "seed": suite.seed,
        "haystack": documents.digest(suite.haystack, data_dir) if suite.haystack else None,
        "text": documents.digest(suite.text, data_dir) if suite.text else None,
        "attention": suite.attention,
        # Scores do not depend on which of several GPUs runs a model.
        "device": plan.device.partition(":")[0],
        "max_batch_tokens": plan.max_batch_tokens,
    }
    if plan.plugins:
        configuration["plugins"] = dict(plan.plugins)
    return configuration


def run_folder(plan: RunPlan) -> Path:
    """Return the folder of the results, by default named after models and configuration.

    Raises:
        UserError: as `run_configuration`.
    """
    if plan.suite.output:
        return plan.suite.output
    # With the hash in its name, another command never meets old results.
    digest = hashlib.sha256(repr(run_configuration(plan)).encode()).hexdigest()[:8]
    names = "+".join(source.name.replace("/", "--") for source in plan.sources)
    return Path("results") / f"{names}-{digest}"


def _fields(card: Card) -> dict[str, Any]:
    """Return the fields of a card that scores depend on: a better description is no new run."""
    return card.model_dump(mode="json", exclude={"about", "changes"})


def _settings_by_model(plan: RunPlan, label: str) -> dict[str, dict[str, Any]]:
    """Return the settings that a method has for each model; a model's card may set some."""
    return {source.name: plan.methods[source.name, label].settings for source in plan.sources}


def _lengths_by_bench(plan: RunPlan, source: ModelSource) -> dict[str, list[int]]:
    return {bench: list(plan.lengths(source, bench)) for bench in plan.protocols}


def _user_files(plan: RunPlan) -> dict[str, str]:
    """Return the sha256 of the user's own sample files by task, for tasks that read any."""
    hashes: dict[str, str] = {}
    for task in plan.tasks:
        protocol = plan.protocols[task.bench]
        files = BENCHES[task.bench].user_files(task, protocol, plan.suite.data_dir)
        if files:
            hashes[task.full_name] = documents.digest_of(files)
    return hashes
