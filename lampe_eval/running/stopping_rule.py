"""Stopping rule of a run, `--precision` or `--decide`: checked, and as it is stored."""

from collections.abc import Mapping, Sequence

from lampe_eval.benches import BENCHES
from lampe_eval.benches.bench import Task
from lampe_eval.errors import UserError
from lampe_eval.method_specs import MethodSpec, choose_reference, find_reference
from lampe_eval.prompts.protocol import Protocol
from lampe_eval.records import StoppingRecord
from lampe_eval.suite import Suite

DEFAULT_MARGIN = 5.0
"""Points within which a method counts as equivalent to the reference."""


def stopping_rule(suite: Suite, specs: Sequence[MethodSpec]) -> StoppingRecord:
    """Return the rule by which a suite's cells stop, as a run stores it; empty if they do not."""
    if suite.precision is not None:
        return {"precision": suite.precision}
    if suite.decide:
        margin = DEFAULT_MARGIN if suite.margin is None else suite.margin
        return {"reference": reference_method(suite, specs), "margin": margin}
    return {}


def reference_method(suite: Suite, specs: Sequence[MethodSpec]) -> str:
    """Return the label of the method that others are compared with.

    Raises:
        UserError: if the suite states a method that is none of these.
    """
    labels = [spec.label for spec in specs]
    stated = find_reference(suite.reference, labels) if suite.reference else None
    return choose_reference(stated, labels)


def check_stopping(
    suite: Suite,
    specs: Sequence[MethodSpec],
    tasks: Sequence[Task],
    protocols: Mapping[str, Protocol],
) -> None:
    """Refuse a stopping rule that means nothing for the methods and tasks of a suite.

    Raises:
        UserError: for the first reason.
    """
    if suite.margin is not None and not suite.decide:
        raise UserError(f"--margin {suite.margin:g} is for --decide; add it, or leave it out")
    if suite.precision is not None and suite.decide:
        raise UserError("--precision and --decide are two rules to stop by; give one of them")
    if suite.precision is None and not suite.decide:
        return
    option = "--decide" if suite.decide else "--precision"
    for task in tasks:
        if not BENCHES[task.bench].averages_scores:
            raise UserError(
                f"{option}: the number of {task.full_name} is no mean of scores from 0 to 1, "
                "which the rule needs; leave it out of --bench, or run it without the rule"
            )
    if suite.decide:
        _check_comparisons(suite, specs, tasks, protocols)


def _check_comparisons(
    suite: Suite,
    specs: Sequence[MethodSpec],
    tasks: Sequence[Task],
    protocols: Mapping[str, Protocol],
) -> None:
    """Refuse methods that cannot be compared with the reference on the same prompts."""
    labels = [spec.label for spec in specs]
    reference = reference_method(suite, specs)
    if len(labels) < 2:
        raise UserError(
            f"--decide: {reference} is the only method; give --method two or more to compare"
        )
    for spec in specs:
        if not spec.build({}).has_release_prompts:
            continue
        for task in tasks:
            if protocols[task.bench].release_prompts:
                raise UserError(
                    f"--decide: protocol {suite.protocol_label!r} gives {spec.label} prompts of "
                    "its own, and methods are compared on the same; use another --protocol"
                )
