"""Shipped suites, prepared without the hub: names exist, and methods encode at all lengths."""

import itertools
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

import pytest
from transformers import LlamaConfig, PreTrainedConfig

from lampe_eval import assets, models
from lampe_eval.benches import find_tasks
from lampe_eval.cards import shipped_card, shipped_names
from lampe_eval.method_specs import find_reference, parse_methods
from lampe_eval.results.published_tables import PublishedNumber, find_table, table_names
from lampe_eval.running.configuration import required_files
from lampe_eval.running.prepared_run import prepare_run
from lampe_eval.running.resolve import resolve_suite
from lampe_eval.suite import Suite

load = cache(find_table)
LLAMA31 = {
    "rope_type": "llama3",
    "rope_theta": 500000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}
KNOWN: Mapping[str, Mapping[str, Any]] = {
    "Llama-2": {"max_position_embeddings": 4096, "rope_theta": 10000.0},
    "Meta-Llama-3-8B": {"max_position_embeddings": 8192, "rope_theta": 500000.0},
    "Qwen2-72B": {"max_position_embeddings": 32768, "rope_theta": 1000000.0},
    "Mistral-7B-Instruct-v0.2": {"max_position_embeddings": 32768, "rope_theta": 1000000.0},
    "Llama-3.1": {"max_position_embeddings": 131072, "rope_parameters": LLAMA31},
    "LLaMA-2-7B-32K": {
        "max_position_embeddings": 32768,
        "rope_parameters": {"rope_type": "linear", "rope_theta": 10000.0, "factor": 8.0},
    },
}
"""What is known of the models' configurations, by a part of their hub ids."""


def _config(path: str, **_: object) -> PreTrainedConfig:
    """Return the fields of a hub model's configuration that methods read."""
    (known,) = [fields for part, fields in KNOWN.items() if part in path]
    fields = dict(known)
    fields.setdefault(
        "rope_parameters", {"rope_type": "default", "rope_theta": fields.pop("rope_theta", None)}
    )
    config = LlamaConfig(hidden_size=4096, num_attention_heads=32, num_key_value_heads=8, **fields)
    config._commit_hash = "0" * 40
    return config


def _written_config(path: str, **_: object) -> tuple[dict[str, object], dict[str, object]]:
    """Return a hub model's configuration as its file would hold it."""
    return _config(path).to_dict(), {}


# Suites of our own begin with these words; all others run a published table.
OWN = ("demo", "pocket", "smollm2")
SUITES = [name for name in shipped_names("suites") if not name.startswith(OWN)]


@pytest.mark.parametrize("name", SUITES)
def test_a_suite_can_be_prepared(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models.AutoConfig, "from_pretrained", _config)
    monkeypatch.setattr(PreTrainedConfig, "get_config_dict", _written_config)
    prepared = prepare_run(resolve_suite(shipped_card("suites", name, Suite)))
    assert prepared.resolved.tasks
    assert prepared.max_batch_tokens is None
    assert all(assets.find(file.partition("!/")[0]) for file in required_files(prepared))


@pytest.mark.parametrize("name", shipped_names("suites"))
def test_lampe_is_the_reference_of_its_tables(name: str) -> None:
    suite = shipped_card("suites", name, Suite)
    labels = [spec.label for spec in parse_methods(suite.method)]
    runs_lampe = any(label.startswith("lampe") for label in labels)
    if name.startswith("lampe-") and runs_lampe:
        assert suite.reference
        assert find_reference(suite.reference, labels).startswith("lampe:variant=reference")
    else:
        assert suite.reference is None


@pytest.mark.parametrize("name", SUITES)
def test_a_suite_runs_only_what_was_published(name: str) -> None:
    """Compare models, methods, tasks and lengths of a suite with those of its tables."""
    suite = shipped_card("suites", name, Suite)
    lengths, pairs, published_tasks = set(), set(), set()
    for number in _numbers_of_suite(name):
        assert number.spec
        pairs.add((number.row.model, number.spec.name))
        for cell in number.cells:
            lengths.add(cell.length)
            published_tasks.add(cell.task)
    methods = {spec.name for spec in parse_methods(suite.method)}
    assert set(itertools.product(suite.model, methods)) & pairs
    assert {*suite.model} <= {model for model, _ in pairs}
    assert methods <= {method for _, method in pairs}
    assert None in lengths or {*suite.lengths} <= lengths
    unpublished = {task.full_name for task in find_tasks(suite.bench)} - published_tasks
    # The protocol "lampe" runs only some tasks of a bench, so the suite may name them all.
    assert not unpublished or suite.protocol == "lampe"


def _numbers_of_suite(name: str) -> Iterator[PublishedNumber]:
    """Yield the published numbers by methods of ours in the tables of a suite."""
    for table in map(load, table_names()):
        if name in table.suites:
            for number in table.numbers():
                if number.spec:
                    yield number
