"""Runs with known scores: answers as of a model, stored by the real store for the real scorers."""

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
    """Return a cell's share of right answers; for passages, the loss of each token."""
    return zlib.crc32(repr(cell).encode()) % (SAMPLES + 1) / SAMPLES


def store(folder: Path, cells: list[Cell], protocol: str, **changes: Any) -> Store:
    """Store a finished run of these cells.

    Args:
        folder: folder of the run.
        cells: cells of the run.
        protocol: name of the protocol.
        changes: fields of the configuration instead of those that the cells imply.
    """
    run = Store.create(folder, {**_config(cells, protocol), **changes}, {})
    run.save_cells(dict.fromkeys(cells, SAMPLES))
    for cell in cells:
        for index in range(SAMPLES):
            about = {
                "id": f"{index}",
                "length": cell.length,
                "prompt_sha256": "",
                "attention_factor": "none",
                "largest_position": 1.0,
            }
            run.append(cell, {**_sample(cell, index), **about})
    return run


def model_description(model: str) -> dict[str, Any]:
    """Return the entry of a model in a run's configuration."""
    card = _model_card(model)
    return {
        "fingerprint": f"{card.path}@{REVISION}",
        "dtype": "bfloat16",
        "window": card.window or 4096,
    }


def _config(cells: list[Cell], protocol: str) -> dict[str, Any]:
    models = list(dict.fromkeys(cell.model for cell in cells))
    tasks = find_tasks(tuple(dict.fromkeys(f"{cell.bench}/{cell.task}" for cell in cells)))
    protocols = {task.bench: BENCHES[task.bench].protocol(protocol) for task in tasks}
    methods = {}
    for label in dict.fromkeys(cell.method for cell in cells):
        methods[label] = {model: _settings(label, model) for model in models}
    return configuration(
        models={model: model_description(model) for model in models},
        methods=methods,
        protocol=protocol,
        protocols={bench: fields.model_dump(mode="json") for bench, fields in protocols.items()},
        tasks={task.full_name: task.card.model_dump(mode="json") for task in tasks},
        limit=SAMPLES,
        text="pg19-validation sha256:0",
    )


def _settings(label: str, model: str) -> dict[str, Any]:
    return parse_methods([label])[0].build(_model_card(model).settings).settings


def _model_card(model: str) -> ModelCard:
    if model in shipped_names("models"):
        return shipped_card("models", model, ModelCard)
    return ModelCard(path=model)


def _sample(cell: Cell, index: int) -> Mapping[str, Any]:
    if cell.bench == "ppl":
        return {"loss": 16 * share(cell), "scored_tokens": 16, "prompt_tokens": 16}
    label, right, wrong = _labels(cell)
    good = index < share(cell) * SAMPLES
    extras = {"all_classes": [right, wrong], "enough": 1, **_extras(cell, index)}
    return {
        "prediction": right if good else wrong,
        "references": label,
        "extras": extras,
        "prompt_tokens": 9,
        "meta": {"depth": 0.5},
    }


def _extras(cell: Cell, index: int) -> dict[str, Any]:
    """Return what else the cell's scorer and its details read."""
    match cell.bench:
        case "longbench-e":
            return {"length": 3000 * (1 + index)}
        case "longbench-v2":
            return {"difficulty": ("easy", "hard")[index % 2], "length": "short"}
        case "babilong":
            return {"question": "Where?", "labels": ["seven", "eight"]}
    return {"row": index}


def _labels(cell: Cell) -> tuple[Any, str, str]:
    """Return a reference as the cell's scorer expects it, a right answer and a wrong one."""
    match cell.bench, cell.task:
        case "babilong", _:
            return ["seven"], "seven", "eight"
        case "infinitebench", "kv_retrieval":
            return "7", "7", "8"
        case "infinitebench", "longbook_choice_eng" | "code_debug":
            return ["seven", "B"], "B. seven", "C. eight"
        case "infinitebench", "math_find":
            return 7, "7", "8"
        case "longbench-v2", _:
            return ["B"], "The correct answer is (B)", "The correct answer is (C)"
        case "leval", "sci_fi":
            return ["True [fact: False]"], "True [fact: False]", "False [fact: True]"
        case "leval", "gsm100" | "codeU":
            return ["7"], "7", "8"
        case "leval", _:
            return ["B"], "B", "C"
        case "longbench" | "longbench-e", "passage_retrieval_en":
            return ["Paragraph 7"], "Paragraph 7", "Paragraph 8"
        case "longbench", "passage_retrieval_zh":
            return ["段落7"], "段落7", "段落8"
    return ["7"], "7", "8"
