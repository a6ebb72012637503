"""Configuration of a run: what scores depend on, files it needs, and the folder named after it."""

from pathlib import Path
from typing import Any

from lampe_eval import assets
from lampe_eval.benches import BENCHES
from lampe_eval.file_io import short_sha256_of_json, shorten_name
from lampe_eval.models import ModelSource
from lampe_eval.records import RunConfiguration
from lampe_eval.running.prepared_run import PreparedRun
from lampe_eval.running.sampling import user_text
from lampe_eval.running.suite_configuration import suite_configuration
from lampe_eval.texts import documents


def required_files(prepared: PreparedRun) -> list[str]:
    """Return the names of the benchmark files that tasks and texts need, each once."""
    names: list[str] = []
    for task in prepared.resolved.tasks:
        protocol = prepared.resolved.protocols[task.bench]
        bench = BENCHES[task.bench]
        names += bench.required_files(task, protocol, user_text(prepared, task))
        for source in prepared.sources:
            for length in prepared.lengths(source, task.bench):
                names += bench.files_of_length(task, protocol, length)
    names += documents.required_files(prepared.resolved.suite.haystack)
    names += documents.required_files(prepared.resolved.suite.text)
    return list(dict.fromkeys(names))


def run_configuration(prepared: PreparedRun) -> RunConfiguration:
    """Return the configuration that a run's folder records and that later sessions extend.

    It hashes files, so it is computed once per session: the folder is named after the same hashes
    that it records.

    Raises:
        UserError: if a benchmark file is missing or a text cannot be read.
    """
    resolved = prepared.resolved
    return {
        "models": {source.name: source.described for source in prepared.sources},
        "methods": {
            spec.label: _settings_by_model(prepared, spec.label) for spec in resolved.specs
        },
        **suite_configuration(resolved),
        "files": _benchmark_files(prepared),
        "lengths": {
            source.name: _lengths_by_bench(prepared, source) for source in prepared.sources
        },
        # Scores do not depend on which of several GPUs runs a model.
        "device": prepared.device.partition(":")[0],
        "max_batch_tokens": prepared.max_batch_tokens,
    }


def run_folder(configuration: RunConfiguration, output: Path | None) -> Path:
    """Return the folder of the results.

    Args:
        configuration: what the default folder is named after, with the models.
        output: the folder that the user chose, if any.
    """
    if output:
        return output
    names = "+".join(name.replace("/", "--") for name in configuration["models"])
    return Path("results") / f"{shorten_name(names)}-{short_sha256_of_json(configuration)}"


def _settings_by_model(prepared: PreparedRun, label: str) -> dict[str, dict[str, Any]]:
    """Return the settings that a method has for each model; a model's card may set some."""
    return {
        source.name: prepared.methods[source.name, label].settings for source in prepared.sources
    }


def _lengths_by_bench(prepared: PreparedRun, source: ModelSource) -> dict[str, list[int]]:
    return {bench: list(prepared.lengths(source, bench)) for bench in prepared.resolved.protocols}


def _benchmark_files(prepared: PreparedRun) -> dict[str, str]:
    data_dir = prepared.resolved.suite.data_dir
    return {name: f"sha256:{assets.digest(name, data_dir)}" for name in required_files(prepared)}
