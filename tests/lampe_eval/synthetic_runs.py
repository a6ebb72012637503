"""Runs as a model could have produced them: stored by the real store, scored by the real scorers, with known scores."""

import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lampe_eval.benches import BENCHES, find_tasks
from lampe_eval.cards import ModelCard, shipped_card, shipped_names
from lampe_eval.method_specs import parse_methods
from lampe_eval.store import Cell, Store
from tests.lampe_eval.stored_runs import configuration

SAMPLES = 4
REVISION = "0" * 40


def share(cell: Cell) -> float:
    """The share of right answers that a made cell has; of a passage's tokens the loss."""
    return zlib.crc32(repr(cell).encode()) % (SAMPLES + 1) / SAMPLES


def store(folder: Path, cells: list[Cell], protocol: str, **changes: Any) -> Store:
    """A finished run of these cells.

    Args:
        changes: fields of the configuration instead of those that the cells imply.
    """
    made = Store.create(folder, {**_config(cells, protocol), **changes}, {})
    made.save_cells(dict.fromkeys(cells, SAMPLES))
    for cell in cells:
        for index in range(SAMPLES):
            about = {
                "id": f"{index}",
                "length": cell.length,
                "prompt_sha256": "",
                "attention_factor": "none",
                "largest_position": 1.0,
            }
            made.append(cell, {**_sample(cell, index), **about})
    return made


def described(model: str) -> dict[str, Any]:
    """What a run says of a model."""
    card = (
        shipped_card("models", model, ModelCard)
        if model in shipped_names("models")
        else ModelCard(path=model)
    )
    return {
        "fingerprint": f"{card.path}@{REVISION}",
        "dtype": "bfloat16",
        "window": card.window or 4096,
    }


def _config(cells: list[Cell], protocol: str) -> dict[str, Any]:
    models, labels = dict.fromkeys(c.model for c in cells), dict.fromkeys(c.method for c in cells)
    tasks = find_tasks(tuple(dict.fromkeys(f"{c.bench}/{c.task}" for c in cells)))
    protocols = {task.bench: BENCHES[task.bench].protocol(protocol) for task in tasks}
    return configuration(
        models={model: described(model) for model in models},
        methods={label: {model: _settings(label, model) for model in models} for label in labels},
        protocol=protocol,
        protocols={bench: found.model_dump(mode="json") for bench, found in protocols.items()},
        tasks={task.full_name: task.card.model_dump(mode="json") for task in tasks},
        limit=SAMPLES,
        text="pg19-validation sha256:0",
    )


def _settings(label: str, model: str) -> dict[str, Any]:
    card = (
        shipped_card("models", model, ModelCard)
        if model in shipped_names("models")
        else ModelCard(path=model)
    )
    return parse_methods([label])[0].build(card.settings).settings


def _sample(cell: Cell, index: int) -> Mapping[str, Any]:
    if cell.bench == "ppl":
        return {"loss": 16 * share(cell), "scored_tokens": 16, "prompt_tokens": 16}
    label, right, wrong = _labels(cell)
    good = index < share(cell) * SAMPLES
    extras = {"all_classes": [right, wrong], "enough": 1}
    return {
        "prediction": right if good else wrong,
        "references": label,
        "extras": extras,
        "prompt_tokens": 9,
    }


def _labels(cell: Cell) -> tuple[Any, str, str]:
    """What a scorer holds an answer against, an answer that is right and one that is wrong."""
    match cell.bench, cell.task:
        case "infinitebench", "longbook_choice_eng" | "code_debug":
            return ["seven", "B"], "B. seven", "C. eight"
        case "infinitebench", "math_find":
            return 7, "7", "8"
        case "leval", "sci_fi":
            return ["True [fact: False]"], "True [fact: False]", "False [fact: True]"
        case "leval", "gsm100" | "codeU":
            return ["7"], "7", "8"
        case "leval", _:
            return ["B"], "B", "C"
        case "longbench", "passage_retrieval_en":
            return ["Paragraph 7"], "Paragraph 7", "Paragraph 8"
        case "longbench", "passage_retrieval_zh":
            return ["段落7"], "段落7", "段落8"
    return ["7"], "7", "8"
