"""Configuration of a run as far as it is known without torch, so that changes show at once."""

from typing import Any, cast

from lampe_eval.benches import BENCHES
from lampe_eval.cards import Card
from lampe_eval.records import SuiteConfiguration, TaskRecord
from lampe_eval.running.resolve import ResolvedSuite
from lampe_eval.running.stopping_rule import stopping_rule
from lampe_eval.texts import documents


def suite_configuration(resolved: ResolvedSuite) -> SuiteConfiguration:
    """Return what scores depend on besides models, methods, lengths and the machine.

    Raises:
        UserError: if a text or a file of samples cannot be read.
    """
    suite = resolved.suite
    configuration: SuiteConfiguration = {
        "protocol": suite.protocol_label,
        "protocols": {bench: _fields(protocol) for bench, protocol in resolved.protocols.items()},
        "tasks": {task.full_name: cast(TaskRecord, _fields(task.card)) for task in resolved.tasks},
        "user_files": _user_files(resolved),
        "limit": suite.limit,
        "seed": suite.seed,
        "haystack": documents.digest(suite.haystack, suite.data_dir) if suite.haystack else None,
        "text": documents.digest(suite.text, suite.data_dir) if suite.text else None,
        "attention": suite.attention,
    }
    if resolved.plugins:
        configuration["plugins"] = dict(resolved.plugins)
    rule = stopping_rule(suite, resolved.specs)
    if rule:
        configuration["stopping"] = rule
    return configuration


def _fields(card: Card) -> dict[str, Any]:
    """Return the fields of a card that scores depend on: a better description is no new run.

    Whether samples may share a batch is recorded by its effect, `max_batch_tokens`.
    """
    fields = card.model_dump(mode="json", exclude={"about", "changes", "batches"})
    # Runs of before this field are no other runs.
    if fields.get("plan") == "prompt":
        del fields["plan"]
    return fields


def _user_files(resolved: ResolvedSuite) -> dict[str, str]:
    """Return the sha256 of the user's own sample files by task, for tasks that read any.

    Those of a mirror are named as such: their prompts are not the benchmark's own.
    """
    hashes: dict[str, str] = {}
    for task in resolved.tasks:
        protocol = resolved.protocols[task.bench]
        bench = BENCHES[task.bench]
        files = bench.user_files(task, protocol, resolved.suite.data_dir)
        if files:
            is_mirror = bench.mirror and files[0].suffix == ".parquet"
            origin = f"mirror {bench.mirror} " if is_mirror else ""
            hashes[task.full_name] = origin + documents.digest_of(files)
    return hashes
