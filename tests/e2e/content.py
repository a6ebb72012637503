"""Small files in the schemas of the official ones, with content of our own, for every benchmark that needs files."""

import io
import json
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from lampe_eval import language
from lampe_eval.benches import tasks
from tests.fixtures import pin

ANSWER = 6
"""Tokens of an answer, so that the small model is done soon."""


def short_answers(package: Path) -> None:
    """Lowers the room for answers wherever a task's card has it."""
    for path in (package / "tasks").glob("*/tasks.yaml"):
        cards: dict[str, dict[str, Any]] = yaml.safe_load(path.read_text(encoding="utf-8"))
        if path.parent.name != "niah":
            for card in cards.values():
                card |= {key: ANSWER for key in ("max_new_tokens",) if key in card}
            path.write_text(yaml.safe_dump(cards, sort_keys=False), encoding="utf-8")


def longbench(package: Path) -> None:
    """LongBench and LongBench-E: prompts, limits and an archive of all tasks."""
    names, of_e = ([task.name for task in tasks(bench)] for bench in ("longbench", "longbench-e"))
    templates = dict.fromkeys(names, "Read this.\n\n{context}\n\nNow answer.\n\nQuestion: {input}\nAnswer:")
    pin(package, "longbench", "dataset2prompt.json", json.dumps(templates).encode())
    pin(package, "longbench", "dataset2maxlen.json", json.dumps(dict.fromkeys(names, ANSWER)).encode())
    files = {f"data/{name}.jsonl": name for name in names} | {f"data/{name}_e.jsonl": name for name in of_e}
    members = {file: [longbench_row(name, index) for index in range(2)] for file, name in files.items()}
    pin(package, "longbench", "data.zip", archive(members))


def longbench_row(task: str, index: int, words: int = 400) -> dict[str, Any]:
    """A row in the schema of LongBench."""
    answers = {
        "passage_retrieval_en": "Paragraph 3", "passage_retrieval_zh": "段落3", "passage_count": "7", "trec": "Place",
        "lsht": "Place",
    }  # fmt: skip
    return {
        "input": "Where is the lamp?",
        "context": language.text(index, words),
        "answers": [answers.get(task, "In the harbor.")],
        "length": words,
        "dataset": task,
        "language": "en",
        "all_classes": ["Place", "Thing"] if task in ("trec", "lsht") else None,
        "_id": f"{task}-{index}",
    }


def archive(members: Mapping[str, Iterable[Mapping[str, Any]]]) -> bytes:
    """A zip file of JSON lines."""
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as file:
        for name, rows in members.items():
            file.writestr(name, lines(rows))
    return target.getvalue()


def lines(rows: Iterable[Mapping[str, Any]]) -> bytes:
    """JSON objects, one a line."""
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
