"""Runs on disk without a model: answers to needles, and losses, as a run would have stored them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lampe_eval.benches import BENCHES, find_tasks
from lampe_eval.store import Cell, Store

DEPTHS = (0, 50, 100)


def run(
    folder: Path,
    found: Mapping[str, Mapping[int, Sequence[bool | None]]],
    seed: int = 0,
    **changes: Any,
) -> Store:
    """A run of niah/grid by method and length: whether each sample's needle was found; None for an error.

    Each cell is planned with as many samples as the longest has; those that are not told are missing.

    Args:
        changes: fields of the configuration.
    """
    store = _store(folder, ["niah/grid"], found, seed=seed, **changes)
    samples = max(len(answers) for lengths in found.values() for answers in lengths.values())
    cells = {
        Cell("pocket", method, "niah", "grid", n): samples
        for method, ls in found.items()
        for n in ls
    }
    store.save_cells(cells)
    for cell in cells:
        for index, hit in enumerate(found[cell.method][cell.length]):
            answer = (
                {"error": "RuntimeError: no"}
                if hit is None
                else {"prediction": "4821" if hit else "?"}
            )
            store.append(
                cell,
                _row(
                    cell,
                    index,
                    meta={"depth": DEPTHS[index % 3]},
                    references=["4821"],
                    extras={},
                    **answer,
                ),
            )
    return store


def losses(folder: Path, found: Mapping[str, Mapping[int, Sequence[float]]]) -> Store:
    """A run of ppl/exact by method and length: mean losses of windows of 10 tokens."""
    store = _store(folder, ["ppl/exact"], found)
    cells = {
        Cell("pocket", method, "ppl", "exact", n): len(ls[n])
        for method, ls in found.items()
        for n in ls
    }
    store.save_cells(cells)
    for cell in cells:
        for index, loss in enumerate(found[cell.method][cell.length]):
            store.append(cell, _row(cell, index, loss=10 * loss, scored_tokens=10))
    return store


def _store(folder: Path, names: list[str], methods: Mapping[str, Any], **changes: Any) -> Store:
    tasks = find_tasks(names)
    protocols = {
        task.bench: BENCHES[task.bench].protocol("fair").model_dump(mode="json") for task in tasks
    }
    config = configuration(
        methods={method: {"pocket": {}} for method in methods},
        protocols=protocols,
        tasks={task.full_name: task.card.model_dump(mode="json") for task in tasks},
        limit=3,
    )
    return Store.create(folder, config | changes, {})


def configuration(**changes: Any) -> dict[str, Any]:
    """Return the configuration of a run of the pocket model without methods and tasks, with these changes."""
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
