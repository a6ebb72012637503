"""Bad rows of benchmark data: each is one stored error, and other samples stay what they were."""

import csv
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lampe_eval.benches import BENCHES, find_tasks
from lampe_eval.benches.bench import Prompt, SampleRequest
from lampe_eval.commands.run import run_suite
from lampe_eval.errors import UserError
from lampe_eval.running.resolve import resolve_suite
from lampe_eval.suite import Suite
from lampe_eval.texts import documents
from lampe_eval.texts.jsonl_rows import FaultyRow, read_rows
from tests.fixtures import package, pin
from tests.letters import Letters
from tests.upstream import (
    INFINITEBENCH_TEMPLATES,
    LEVAL_CONFIG,
    LEVAL_SCRIPT,
    V2_TEMPLATES,
    longbench_row,
    v2_row,
)

Row = dict[str, Any]


def _longbench(folder: Path, lines: list[bytes]) -> None:
    for name, value in (("prompt", "{context} {input}"), ("maxlen", 6)):
        pin(folder, "longbench", f"dataset2{name}.json", json.dumps({"trec": value}).encode())
    (folder / "data" / "trec.jsonl").write_bytes(b"\n".join(lines))


def _longbench_v2(folder: Path, lines: list[bytes]) -> None:
    for name, text in V2_TEMPLATES.items():
        pin(folder, "longbench-v2", name, text.encode())
    pin(folder, "longbench-v2", "data.json", b"[" + b",\n".join(lines) + b"]")


def _leval(folder: Path, lines: list[bytes]) -> None:
    pin(folder, "leval", "LEval_config.py", LEVAL_CONFIG.encode())
    pin(folder, "leval", "llama2-chat-test.py", LEVAL_SCRIPT.encode())
    pin(folder, "leval", "quality.jsonl", b"\n".join(lines))


def _infinitebench(folder: Path, lines: list[bytes]) -> None:
    code = f"yarn_mistral_templates = {INFINITEBENCH_TEMPLATES!r}\n"
    pin(folder, "infinitebench", "prompt.py", code.encode())
    pin(folder, "infinitebench", "code_debug.jsonl", b"\n".join(lines))


def _ruler(folder: Path, lines: list[bytes]) -> None:
    (folder / "data" / "vt.jsonl").write_bytes(b"\n".join(lines))


FORMATS: dict[str, tuple[str, Callable[[Path, list[bytes]], None], Row, str, str]] = {
    "longbench/trec": ("fair", _longbench, longbench_row("trec", 0, 9), "context", "answers"),
    "longbench-v2/direct": ("fair", _longbench_v2, v2_row(), "context", ""),
    "leval/quality": (
        "fair",
        _leval,
        {"input": "A.", "instructions": ["B?"], "outputs": ["C"], "evaluation": "exam"},
        "input",
        "outputs",
    ),
    "infinitebench/code_debug": (
        "fair",
        _infinitebench,
        {"id": 0, "context": "A.", "input": "B?", "answer": ["a"], "options": list("abcd")},
        "context",
        "options",
    ),
    "ruler/vt": (
        "fair:prompts=ready",
        _ruler,
        {"input": "A.", "outputs": ["B"]},
        "input",
        "outputs",
    ),
}
"""Protocol, writer, a good row, a field with a text and one with a list, by task."""


def _samples(folder: Path, name: str, lines: list[bytes], tokenizer: Any = None) -> list[Prompt]:
    protocol, write, *_ = FORMATS[name]
    (folder / "data").mkdir(exist_ok=True)
    write(folder, lines)
    (task,) = find_tasks((name,))
    bench = BENCHES[task.bench]
    request = SampleRequest(
        tokenizer or Letters(), 4096, 99, bench.protocol(protocol), data_dir=folder / "data"
    )
    return list(bench.samples(task, request))  # type: ignore[arg-type]


def _bad_line(name: str, fault: str) -> bytes:
    _, _, row, text, texts = FORMATS[name]
    match fault:
        case "surrogate":
            return json.dumps(row | {text: "A \ud83d in a text."}).encode()
        case "surrogate that is a key":
            return json.dumps(row | {"\udc00": 1}).encode()
        case "bytes":
            return json.dumps(row | {text: "A @."}).encode().replace(b"@", b"\xed\xa0\xbd")
        case "type":
            return json.dumps(row | {text: 5}).encode()
        case "null":
            return json.dumps(row | {text: None}).encode()
        case "element":
            return json.dumps(row | {texts: [7]}).encode()
        case "key":
            return json.dumps({key: value for key, value in row.items() if key != text}).encode()
        case "list":
            return b"[]"
    return b'{"input": "A'


FAULTS = {
    "surrogate": "surrogate",
    "surrogate that is a key": "surrogate",
    "bytes": "UTF-8",
    "type": "'{text}': .*5",
    "null": "'{text}': .*None",
    "element": "'{texts}[.'].*7",
    "key": "'{text}'",
    "list": "JSON object",
    "half": "JSON",
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return package(tmp_path, monkeypatch)


@pytest.mark.parametrize("name", FORMATS)
def test_bad_rows_are_errors_among_the_same_samples(folder: Path, name: str) -> None:
    _, _, row, text, texts = FORMATS[name]
    # Where an array is broken there are no further rows, and the schema of this one has no list.
    left_out = ("half", "element") if name == "longbench-v2/direct" else ()
    faults = [fault for fault in FAULTS if fault not in left_out]
    lines = [json.dumps(row).encode()] * (2 * len(faults))
    good = _samples(folder, name, lines)
    lines[::2] = [_bad_line(name, fault) for fault in faults]
    samples = _samples(folder, name, lines)
    assert [sample.id for sample in samples] == [sample.id for sample in good]
    assert samples[1::2] == good[1::2]
    for number, fault in enumerate(faults):
        faulty = samples[2 * number]
        where = rf"(jsonl:{2 * number + 1}|json: row {2 * number + 1}): "
        assert re.search(where + ".*" + FAULTS[fault].format(text=text, texts=texts), faulty.error)
        assert "\n" not in faulty.error and not faulty.ids


@pytest.mark.parametrize("name", FORMATS)
def test_a_file_without_a_good_row_is_refused(folder: Path, name: str) -> None:
    with pytest.raises(UserError, match=r"(jsonl:1|json: row 1): "):
        _samples(folder, name, [_bad_line(name, fault) for fault in ("key", "type")])


@pytest.mark.parametrize(
    ("bad", "number"),
    [
        ({"input": 5}, 5),
        ({"outputs": ["one"]}, 5),
        ({"instructions": None}, 5),
        ({"instructions": None, "outputs": None}, 3),
    ],
)
def test_questions_of_a_bad_row_are_counted(folder: Path, bad: Row, number: int) -> None:
    """Count them because a question's number is its id, and decides which topic is asked for."""
    row = FORMATS["leval/quality"][2]
    two = row | {"instructions": ["B?", "C?"], "outputs": ["D", "E"]}
    three = row | {"instructions": ["B?"] * 3, "outputs": ["D"] * 3}
    lines = [json.dumps(line).encode() for line in (two, three | bad, row)]
    samples = _samples(folder, "leval/quality", lines)
    assert [sample.id for sample in samples] == ["0000", "0001", "0002", f"{number:04d}"]
    assert [bool(sample.error) for sample in samples] == [False, False, True, False]


def test_a_valid_pair_of_surrogates_is_a_letter(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"a": "\\ud83d\\ude00 \\\\ud83d"}\n{"a": "\\uD83D"}\n', encoding="utf-8")
    good, bad = read_rows(path, dict)
    assert good == {"a": "😀 \\ud83d"}
    assert isinstance(bad, FaultyRow)


def test_a_run_scores_the_good_rows_and_names_the_bad_ones_before(
    folder: Path,
    tmp_path: Path,
    pocket: tuple[PreTrainedModel, PreTrainedTokenizerBase],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("lampe_eval.models.load_model", lambda *_: pocket)
    (folder / "data").mkdir()
    lines = [json.dumps(FORMATS["ruler/vt"][2]).encode()] * 4
    lines[0], lines[2] = _bad_line("ruler/vt", "surrogate"), _bad_line("ruler/vt", "type")
    _ruler(folder, lines)
    options: dict[str, Any] = {
        "method": ["original", "yarn:factor=4"],
        "bench": "ruler/vt",
        "protocol": "fair:prompts=ready",
        "data_dir": folder / "data",
        "lengths": "512",
        "output": tmp_path / "run",
    }
    assert run_suite(resolve_suite(Suite.from_options({**options, "fail_on_error": "no"}))) == 0
    printed = capsys.readouterr()
    (warning,) = [line for line in printed.err.splitlines() if "vt.jsonl:1" in line]
    assert "1 more" in warning
    scores = list(csv.DictReader((tmp_path / "run" / "scores.csv").read_text().splitlines()))
    assert [(row["n"], row["errors"], row["missing"]) for row in scores] == [("2", "2", "0")] * 2
    stored = [
        json.loads(line)
        for path in (tmp_path / "run" / "samples").rglob("*.jsonl")
        for line in path.read_text(encoding="utf-8").splitlines()
    ]
    faulty = {row["id"]: row["error"] for row in stored if "error" in row}
    assert "vt.jsonl:1: " in faulty["512/0000"] and "vt.jsonl:3: " in faulty["512/0002"]
    assert {row["id"] for row in stored if "score" in row} == {"512/0001", "512/0003"}


@pytest.mark.parametrize(
    ("name", "content", "where"),
    [
        ("a.jsonl", '{"text": "A."}\n{"text": "\\ud83d"}\n', r"a\.jsonl:2: "),
        ("a.jsonl", '{"text": "A."}\n{"text": 5}\n', r"a\.jsonl:2: "),
        ("a.json", '["A.", "\\udc00"]', r"a\.json: part 2: "),
        ("a.txt", '{"text": "A."}\n{"text": "\\ud83d"}\n', r"a\.txt:2: "),
    ],
)
def test_bad_texts_are_found_before_a_run_that_might_not_reach_them(
    tmp_path: Path, name: str, content: str, where: str
) -> None:
    path = tmp_path / name
    path.write_text(content, encoding="utf-8")
    assert next(documents.documents(path, seed=0, words=1)) == "A."
    with pytest.raises(UserError, match=where):
        documents.check_texts(path)
