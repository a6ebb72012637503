"""Settings in which runs differ, in words: numbers compete only where all agree that they depend on."""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any

import pandas as pd

from lampe_eval.benches import BENCHES
from lampe_eval.store import Store

ALIKE = ["model", "window", "protocol", "bench"]
"""Columns of scores that tell themselves what numbers depend on."""


def setting_differences(runs: Mapping[str, Store], scores: pd.DataFrame) -> list[str]:
    """Of each row of scores, such as "seed 5, text own.txt", what of it is otherwise in another run's rows like it."""
    alike: dict[tuple[Any, ...], dict[str, dict[str, str]]] = defaultdict(dict)
    keys = list(scores[ALIKE].itertuples(index=False, name=None))
    for run, key in zip(scores["run"], keys, strict=True):
        if run not in alike[key]:
            alike[key][run] = dict(_settings(runs[run].config, model=key[0], bench=key[-1]))
    told = {key: _told(found) for key, found in alike.items()}
    return [told[key][run] for run, key in zip(scores["run"], keys, strict=True)]


def _settings(config: Mapping[str, Any], model: str, bench: str) -> Iterator[tuple[str, str]]:
    """All that a bench's numbers depend on and no column tells; rounding, as of devices and backends, is left out."""
    described, option = config["models"][model], BENCHES[bench].source_option
    yield "weights", str(described.get("fingerprint"))
    yield "dtype", str(described.get("dtype"))
    yield "seed", str(config["seed"])
    yield "limit", str(config["limit"] or "none")
    yield "batch", str(config.get("max_batch_tokens") or 1)
    if option:
        yield option, str(config.get(option) or "default")
    for task, card in config["tasks"].items():
        if task.startswith(f"{bench}/"):
            yield f"{task} version", str(card["version"])
    for files in ("files", "user_files"):
        yield from (config.get(files) or {}).items()


def _told(runs: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
    """The settings that are not the same in all runs that have them, by run."""
    values: dict[str, set[str]] = defaultdict(set)
    for found in runs.values():
        for name, value in found.items():
            values[name].add(value)
    return {
        run: ", ".join(
            f"{name} {_short(value, values[name])}"
            for name, value in found.items()
            if len(values[name]) > 1
        )
        for run, found in runs.items()
    }


def _short(value: str, values: set[str]) -> str:
    """A value, without its digest where its name tells it from the others."""
    name = value.partition(" sha256:")[0]
    return (
        name if len({other.partition(" sha256:")[0] for other in values}) == len(values) else value
    )
