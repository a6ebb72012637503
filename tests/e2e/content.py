"""Small files in the schemas of the official ones, for every benchmark that needs files."""

import io
import json
import re
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pyarrow
import yaml
from pyarrow import parquet

from lampe_eval.benches import bench_tasks
from lampe_eval.scoring import babilong_metrics
from lampe_eval.texts import pocket_language
from tests.fixtures import pin
from tests.lampe_eval.ruler import ruler_examples
from tests.upstream import (
    HELMET_CODE,
    INFINITEBENCH_CODE,
    INFINITEBENCH_TEMPLATES,
    LEVAL_CONFIG,
    LEVAL_SCRIPT,
    V2_TEMPLATES,
    llama2_tokenizer,
    longbench_row,
    v2_row,
)

ANSWER = 6
"""Tokens of an answer, few so that the small model finishes soon."""


def shorten_answers(package: Path) -> None:
    """Lower the most tokens of an answer in all cards and benches, except those of needles."""
    for bench in ("babilong", "infinitebench", "ruler", "longbench-v2", "longbench-pro", "oolong"):
        path = package / "tasks" / bench / "tasks.yaml"
        cards: dict[str, dict[str, Any]] = yaml.safe_load(path.read_text(encoding="utf-8"))
        for card in cards.values():
            for key in ("max_new_tokens", "reasoning"):
                if key in card:
                    card[key] = ANSWER
        path.write_text(yaml.safe_dump(cards, sort_keys=False), encoding="utf-8")
    for bench in ("graphwalks", "leval"):
        path = package / "tasks" / bench / "protocols.yaml"
        text = path.read_text(encoding="utf-8")
        path.write_text(re.sub(r"max_new_tokens: \d+", f"max_new_tokens: {ANSWER}", text))


def everything(package: Path) -> None:
    """Write the files of all benchmarks."""
    longbench(package)
    longbench_v2(package)
    leval(package)
    infinitebench(package)
    ruler(package)
    babilong(package)
    graphwalks(package)
    mrcr(package)
    longbench_pro(package)
    oolong(package)
    helmet(package)


def longbench(package: Path) -> None:
    """Write LongBench and LongBench-E: prompts, limits and an archive of all tasks."""
    names = [task.name for task in bench_tasks("longbench")]
    names_e = [task.name for task in bench_tasks("longbench-e")]
    templates = dict.fromkeys(
        names, "Read this.\n\n{context}\n\nNow answer.\n\nQuestion: {input}\nAnswer:"
    )
    pin(package, "longbench", "dataset2prompt.json", json.dumps(templates).encode())
    pin(
        package,
        "longbench",
        "dataset2maxlen.json",
        json.dumps(dict.fromkeys(names, ANSWER)).encode(),
    )
    files = {f"data/{name}.jsonl": name for name in names} | {
        f"data/{name}_e.jsonl": name for name in names_e
    }
    members = {
        file: (longbench_row(name, 0), longbench_row(name, 1)) for file, name in files.items()
    }
    pin(package, "longbench", "data.zip", archive(members))


def archive(members: Mapping[str, Iterable[Mapping[str, Any]]]) -> bytes:
    """Return a zip file of JSON lines."""
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as file:
        for name, rows in members.items():
            file.writestr(name, lines(rows))
    return target.getvalue()


def lines(rows: Iterable[Mapping[str, Any]]) -> bytes:
    """Return JSON objects, one a line."""
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def longbench_v2(package: Path) -> None:
    """Write LongBench v2: templates and two questions."""
    for name, text in V2_TEMPLATES.items():
        pin(package, "longbench-v2", name, text.encode())
    questions = [v2_row(index, context=pocket_language.text(index, 400)) for index in range(2)]
    pin(package, "longbench-v2", "data.json", json.dumps(questions).encode())


def leval(package: Path) -> None:
    """Write L-Eval: prompts and two documents of each task."""
    pin(package, "leval", "LEval_config.py", LEVAL_CONFIG.encode())
    pin(package, "leval", "llama2-chat-test.py", LEVAL_SCRIPT.encode())
    golds = {
        "sci_fi": "True [fact: False]",
        "coursera": "AB",
        "quality": "(B) It is.",
        "gsm100": "The answer is 7",
    }
    for task in bench_tasks("leval"):
        kind = (
            "exam"
            if task.card.metric == "exact match"
            else "f1"
            if task.card.metric == "F1"
            else "rouge"
        )
        row = {
            "input": pocket_language.text(1, 400),
            "instructions": ["Is it so, in the story.", "Is it not, in the story."],
            "outputs": [golds.get(task.name, "It is so.")] * 2,
            "evaluation": kind,
        }
        pin(package, "leval", f"{task.name}.jsonl", lines([row, row | {"evaluation": "LLM"}]))


def infinitebench(package: Path) -> None:
    """Write InfiniteBench: templates, the code that fills them, and two rows of each task."""
    plain = {
        task.name: "Read.\n\n{context}\n\n{input}\n\nIt is" for task in bench_tasks("infinitebench")
    }
    templates = f"yarn_mistral_templates = {plain | INFINITEBENCH_TEMPLATES!r}\n"
    pin(package, "infinitebench", "prompt.py", templates.encode())
    pin(package, "infinitebench", "eval_utils.py", INFINITEBENCH_CODE.encode())
    labels: dict[str, Any] = {
        "math_find": 7,
        "code_run": 7,
        "math_calc": [1, 4, 8],
        "kv_retrieval": "71f0",
    }
    questions = {"code_run": "What is func_7(-3)?", "math_find": "The largest of all numbers"}
    for task in bench_tasks("infinitebench"):
        choice = "choice" in task.name or task.name == "code_debug"
        row = {
            "id": 0,
            "context": pocket_language.text(2, 400),
            "input": questions.get(task.name, "What is it?"),
            "answer": labels.get(task.name, ["b" if choice else "ADA"]),
            "options": ["a", "b", "c", "d"] if choice else [],
        }
        pin(package, "infinitebench", f"{task.name}.jsonl", lines([row, row | {"id": 1}]))


def ruler(package: Path) -> None:
    """Write RULER: the corpora of its questions."""
    for name, write in (
        ("dev-v2.0.json", ruler_examples.write_squad),
        ("hotpot_dev_distractor_v1.json", ruler_examples.write_hotpotqa),
    ):
        pin(package, "ruler", name, write(package / "corpus.json").read_bytes())


def babilong(package: Path) -> None:
    """Write BABILong: prompts, and two rows of qa1 and qa7 at the shortest length."""
    parts = {name: f"The {name}." for name in ("instruction", "examples", "post_prompt")}
    prompts = dict.fromkeys(babilong_metrics.LABELS, parts)
    pin(package, "babilong", "prompts.py", f"DEFAULT_PROMPTS = {prompts!r}\n".encode())
    row = {"input": pocket_language.text(3, 100), "question": "How many?", "target": "none"}
    for task in ("qa1", "qa7"):
        pin(package, "babilong", f"0k/{task}.parquet", parquet_file([row, row]))


def graphwalks(package: Path) -> None:
    """Write GraphWalks: rows of both types in both files."""
    rows = [
        {
            "prompt": pocket_language.text(3, 400) + f"\n{letter} -> b\nFinal Answer: [b]",
            "answer_nodes": ["b"],
            "problem_type": problem_type,
        }
        for letter, problem_type in (("a", "parents"), ("c", "bfs"))
    ]
    for name in ("graphwalks_128k_and_shorter", "graphwalks_256k_to_1mil"):
        pin(package, "graphwalks", f"{name}.parquet", parquet_file(rows))


def mrcr(package: Path) -> None:
    """Write MRCR: a chat with two like messages in every file."""
    poems = [pocket_language.text(seed, 150) for seed in (5, 6)]
    messages = []
    for poem in poems:
        messages.append({"role": "user", "content": "Write of rain."})
        messages.append({"role": "assistant", "content": poem})
    messages.append({"role": "user", "content": "Begin with k3V and repeat the second text."})
    row = {
        "prompt": json.dumps(messages),
        "answer": "k3Vrain",
        "random_string_to_prepend": "k3V",
        "n_needles": 2,
    }
    for task in bench_tasks("mrcr"):
        for file in task.card.files:
            pin(package, "mrcr", Path(file).name, parquet_file([row, row]))


def longbench_pro(package: Path) -> None:
    """Write LongBench Pro: an English question of each kind."""
    text = pocket_language.text(8, 400)
    rows = [
        {
            "id": number,
            "context": text,
            "language": "English",
            "token_length": "8k",
            "secondary_task": f"{task.card.kind} Any Name",
            "contextual_requirement": "Full",
            "question_nonthinking": "Which lines?",
            "answer": ["rain", "hills"],
            "difficulty": "Easy",
        }
        for number, task in enumerate(bench_tasks("longbench-pro"))
    ]
    pin(package, "longbench-pro", "longbench_pro.json", json.dumps(rows).encode())


def oolong(package: Path) -> None:
    """Write OOLONG: a question on lines and one on a transcript."""
    text = pocket_language.text(7, 400)
    row = {"id": "1", "context_window_text": text, "question": "How many?", "answer": "[12]"}
    labels = {
        "context_window_text_with_labels": f"{text} label",
        "answer_type": "ANSWER_TYPE.NUMERIC",
        "task_group": "counting",
    }
    pin(package, "oolong", "oolong-synth.parquet", parquet_file([row | labels] * 2))
    pin(package, "oolong", "dnd.parquet", parquet_file([row | {"answer": "12"}] * 2))


def helmet(package: Path) -> None:
    """Write HELMET: the code with its prompts and the files of its shortest length."""
    pin(package, "helmet", "data.py", HELMET_CODE.encode())
    folder = package / "data" / "helmet"
    passages = [
        {"id": str(n), "title": "Rain", "text": f"It rains {n}.", "label": n} for n in (1, 2)
    ]
    rows = [
        {
            "id": f"q{n}",
            "question": f"Q{n}?",
            "answers": ["rain"],
            "s_pop": 10,
            "qid": f"q{n}",
            "query": f"Q{n}?",
            "ctxs": passages,
        }
        for n in range(4)
    ]
    values = {"context": "A 1.", "query": "a", "type_needle_v": "numbers", "answer": ["1"]}
    pairs = {"context": '{"a": "b"}', "question": "a", "answer": "b", "demos": [["c", "d"]] * 2}
    by_kind = {"json_kv": [pairs] * 2, "needle": [values] * 2, "needles": [values] * 2}
    for task in bench_tasks("helmet"):
        name = task.card.file.partition("!/data/")[2]
        if not name:
            continue
        demos = task.card.demos.partition("!/data/")[2]
        for path in (name.format(k=task.card.sizes[8192]), *filter(None, [demos])):
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(lines(by_kind.get(task.card.kind, rows)))
    labels = [
        {"text": f"Rain {n}.", "label": n % 3, "coarse_label": n % 3, "fine_label": n % 9}
        | {"intent": n % 7, "scenario": 0}
        for n in range(60)
    ]
    for name in ("trec_train", "trec_test", "banking77_train", "banking77_test"):
        pin(package, "helmet", f"{name}.parquet", parquet_file(labels))
    for name in ("clinc_train", "clinc_validation", "nlu_train"):
        pin(package, "helmet", f"{name}.parquet", parquet_file(labels))
    pin(package, "helmet", "tokenizer.json", llama2_tokenizer())


def parquet_file(rows: Iterable[Mapping[str, Any]]) -> bytes:
    """Return a parquet file with a column for each key."""
    target = io.BytesIO()
    parquet.write_table(pyarrow.Table.from_pylist(list(rows)), target)
    return target.getvalue()


def minilongbench(package: Path, files: Iterable[Path]) -> None:
    """Write LongBench with the prompts of MiniLongBench as they are."""
    members, names = {}, []
    for path in files:
        name = path.stem.removeprefix("MiniLongBench_")
        samples = json.loads(path.read_text(encoding="utf-8")).values()
        members[f"data/{name}.jsonl"] = [_mini_row(name, sample) for sample in samples]
        names.append(name)
    pin(
        package,
        "longbench",
        "dataset2prompt.json",
        json.dumps(dict.fromkeys(names, "{context}")).encode(),
    )
    pin(
        package,
        "longbench",
        "dataset2maxlen.json",
        json.dumps(dict.fromkeys(names, ANSWER)).encode(),
    )
    pin(package, "longbench", "data.zip", archive(members))


def _mini_row(name: str, sample: Mapping[str, Any]) -> dict[str, Any]:
    gold = (
        sample["gold"]
        if isinstance(sample["gold"], dict)
        else {"answers": sample["gold"], "all_classes": None}
    )
    return {**longbench_row(name, 0), "context": sample["origin_prompt"], **gold}
