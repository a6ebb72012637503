"""Settings in which runs differ, in words: scores compete only where they agree in all of them."""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any

import pandas as pd

from lampe_eval.benches import BENCHES
from lampe_eval.records import RunConfiguration
from lampe_eval.results.decisions import describe_rule
from lampe_eval.store import Store

COLUMN_SETTINGS = ["model", "window", "protocol", "bench"]
"""Settings that have a column of their own in the scores."""


def setting_differences(runs: Mapping[str, Store], scores: pd.DataFrame) -> list[str]:
    """Return for each row of scores the settings in which its run differs from comparable runs.

    Args:
        runs: runs by name.
        scores: their scores, with a column `run`.

    Returns:
        Texts such as "seed 5, haystack own.txt"; empty where nothing differs.
    """
    settings_of_runs: dict[tuple[Any, ...], dict[str, dict[str, str]]] = defaultdict(dict)
    keys = list(scores[COLUMN_SETTINGS].itertuples(index=False, name=None))
    for run, key in zip(scores["run"], keys, strict=True):
        if run not in settings_of_runs[key]:
            model, *_, bench = key
            settings_of_runs[key][run] = dict(_settings(runs[run].config, model, bench))
    differing = {key: _differing(settings) for key, settings in settings_of_runs.items()}
    return [differing[key][run] for run, key in zip(scores["run"], keys, strict=True)]


def _settings(config: RunConfiguration, model: str, bench: str) -> Iterator[tuple[str, str]]:
    """Yield name and value of every setting that scores depend on and that has no column.

    Device and backend are left out: they only change the rounding.
    """
    model_config = config["models"][model]
    source_option = BENCHES[bench].source_option
    yield "weights", model_config["fingerprint"]
    yield "dtype", model_config["dtype"]
    yield "seed", str(config["seed"])
    yield "limit", str(config["limit"] or "none")
    yield "stopping rule", _rule(config)
    # batches round differently from single prompts
    yield "batch", str(config["max_batch_tokens"] or 1)
    # left out of descriptions where each prompt has a plan
    yield "plan", str(config["protocols"][bench].get("plan", "prompt"))
    if source_option:
        yield source_option, str(config.get(source_option) or "default")
    for task, card in config["tasks"].items():
        if task.startswith(f"{bench}/"):
            yield f"{task} version", str(card["version"])
    yield from config["files"].items()
    yield from config["user_files"].items()


def _rule(config: RunConfiguration) -> str:
    return describe_rule(config["stopping"]) if "stopping" in config else "none"


def _differing(settings_of_runs: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
    """Return by run the settings whose value is not the same in all runs that have them."""
    values: dict[str, set[str]] = defaultdict(set)
    for settings in settings_of_runs.values():
        for name, value in settings.items():
            values[name].add(value)
    texts: dict[str, str] = {}
    for run, settings in settings_of_runs.items():
        differing = [name for name in settings if len(values[name]) > 1]
        words = [f"{name} {_shortened(settings[name], values[name])}" for name in differing]
        texts[run] = ", ".join(words)
    return texts


def _shortened(value: str, values: set[str]) -> str:
    """Return a value without its hash where the name before it is unique among the values."""
    names = {_without_hash(other) for other in values}
    return _without_hash(value) if len(names) == len(values) else value


def _without_hash(value: str) -> str:
    return value.partition(" sha256:")[0]
