"""Shipped suites, prepared without the hub: names exist, and methods encode at all lengths."""

from collections.abc import Mapping
from functools import cache
from typing import Any

import pytest
from transformers import LlamaConfig, PreTrainedConfig

from lampe_eval import assets, models
from lampe_eval.benches import find_tasks
from lampe_eval.cards import shipped_card, shipped_names
from lampe_eval.method_specs import parse_methods
from lampe_eval.results.published_tables import find_table, table_names
from lampe_eval.running.configuration import required_files
from lampe_eval.running.resolve import resolve_suite
from lampe_eval.running.run_plan import plan_run
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
    """The shape of a hub model, as far as methods look at it."""
    (known,) = [fields for part, fields in KNOWN.items() if part in path]
    fields = dict(known)
    fields.setdefault(
        "rope_parameters", {"rope_type": "default", "rope_theta": fields.pop("rope_theta", None)}
    )
    config = LlamaConfig(hidden_size=4096, num_attention_heads=32, num_key_value_heads=8, **fields)
    config._commit_hash = "0" * 40
    return config


SUITES = [
    name for name in shipped_names("suites") if name not in ("demo", "pocket", "pocket-ruler")
]


@pytest.mark.parametrize("name", SUITES)
def test_a_suite_can_be_prepared(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models.AutoConfig, "from_pretrained", _config)
    plan = plan_run(resolve_suite(shipped_card("suites", name, Suite)))
    assert plan.tasks
    assert plan.max_batch_tokens is None
    assert all(assets.find(file.partition("!/")[0]) for file in required_files(plan))


@pytest.mark.parametrize("name", SUITES)
def test_a_suite_runs_only_what_was_published(name: str) -> None:
    """A suite has no model, method, task or length that its tables do not have."""
    suite = shipped_card("suites", name, Suite)
    figures = [
        f
        for table in table_names()
        if name in load(table).suites
        for f in load(table).numbers()
        if f.spec
    ]
    lengths = {cell.length for figure in figures for cell in figure.cells}
    pairs = {(figure.row.model, figure.spec.name) for figure in figures if figure.spec}
    assert {
        (model, spec.name) for model in suite.model for spec in parse_methods(suite.method)
    } & pairs
    assert {*suite.model} <= {model for model, _ in pairs}
    assert {spec.name for spec in parse_methods(suite.method)} <= {method for _, method in pairs}
    assert None in lengths or {*suite.lengths} <= lengths
    published = {cell.task for figure in figures for cell in figure.cells}
    others = {task.full_name for task in find_tasks(suite.bench)} - published
    assert not others or suite.protocol == "lampe"  # which has some of a bench's tasks alone
