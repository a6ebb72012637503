"""Runs stored without a model: answers about needles, and losses, as a run would store them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lampe_eval.benches import BENCHES, find_tasks
from lampe_eval.method_specs import method_names, parse_methods
from lampe_eval.store import Cell, Store

DEPTHS = (0, 50, 100)


def run(
    folder: Path,
    answers: Mapping[str, Mapping[int, Sequence[bool | None]]],
    seed: int = 0,
    **changes: Any,
) -> Store:
    """Store a run of niah/grid.

    Each cell is planned with as many samples as the largest one has; the others lack some.

    Args:
        folder: folder of the run.
        answers: by method and length, whether each answer is right; None for a failed sample.
        seed: seed of the run.
        changes: fields of the configuration.
    """
    store = _store(folder, ["niah/grid"], answers, seed=seed, **changes)
    answers_by_cell = _by_cell(answers, "niah", "grid")
    samples = max(map(len, answers_by_cell.values()))
    store.save_cells(dict.fromkeys(answers_by_cell, samples))
    for cell, is_right in answers_by_cell.items():
        for index, right in enumerate(is_right):
            store.append(cell, _needle_row(cell, index, right))
    return store


def _needle_row(cell: Cell, index: int, right: bool | None) -> dict[str, Any]:
    if right is None:
        outcome = {"error": "RuntimeError: no"}
    else:
        outcome = {"prediction": "4821" if right else "?"}
    meta = {"depth": DEPTHS[index % 3]}
    return _row(cell, index, meta=meta, references=["4821"], extras={}, **outcome)


def losses(folder: Path, means: Mapping[str, Mapping[int, Sequence[float]]]) -> Store:
    """Store a run of ppl/exact.

    Args:
        folder: folder of the run.
        means: by method and length, the mean losses of windows of 10 tokens.
    """
    store = _store(folder, ["ppl/exact"], means)
    means_by_cell = _by_cell(means, "ppl", "exact")
    store.save_cells({cell: len(of_cell) for cell, of_cell in means_by_cell.items()})
    for cell, of_cell in means_by_cell.items():
        for index, loss in enumerate(of_cell):
            store.append(cell, _row(cell, index, loss=10 * loss, scored_tokens=10))
    return store


def _by_cell(values: Mapping[str, Mapping[int, Any]], bench: str, task: str) -> dict[Cell, Any]:
    by_cell = {}
    for method, by_length in values.items():
        for length, of_cell in by_length.items():
            by_cell[Cell("pocket", method, bench, task, length)] = of_cell
    return by_cell


def _store(folder: Path, names: list[str], methods: Mapping[str, Any], **changes: Any) -> Store:
    tasks = find_tasks(names)
    protocols = {
        task.bench: BENCHES[task.bench].protocol("fair").model_dump(mode="json") for task in tasks
    }
    config = configuration(
        methods={label: {"pocket": _settings(label)} for label in methods},
        protocols=protocols,
        tasks={task.full_name: task.card.model_dump(mode="json") for task in tasks},
        limit=3,
    )
    return Store.create(folder, config | changes, {})


def _settings(label: str) -> dict[str, Any]:
    (spec,) = parse_methods([label])
    if spec.name.partition("+")[0] not in method_names():  # a name that a test made up
        return {}
    return spec.build({}).settings


def configuration(**changes: Any) -> dict[str, Any]:
    """Return the configuration of a run of the pocket model, with these changes."""
    return {
        "models": {"pocket": {"fingerprint": "sha256:0", "dtype": "float32", "window": 256}},
        "methods": {},
        "protocol": "fair",
        "protocols": {},
        "tasks": {},
        "files": {},
        "user_files": {},
        "lengths": {},
        "limit": None,
        "seed": 0,
        "haystack": None,
        "text": None,
        "attention": "auto",
        "device": "cpu",
        "max_batch_tokens": None,
        **changes,
    }


def _row(cell: Cell, index: int, **more: Any) -> dict[str, Any]:
    about = {
        "length": cell.length,
        "id": f"{index:02d}",
        "prompt_sha256": "",
        "prompt_tokens": 10,
        "attention_factor": "none",
        "largest_position": 9.0,
    }
    return about | more
