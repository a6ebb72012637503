"""HELMET: objects made here have their length and answers, official rows HELMET's own prompts."""

import json
import re
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedTokenizerBase

from lampe_eval.benches import find_tasks
from lampe_eval.benches.bench import Prompt, SampleRequest
from lampe_eval.benches.helmet import Helmet
from lampe_eval.benches.helmet_items import HelmetItem, Kind, items
from lampe_eval.benches.helmet_labels import LabelledFiles
from lampe_eval.benches.helmet_novels import NovelFiles, NovelKind
from lampe_eval.errors import UserError
from lampe_eval.texts.jsonl_rows import FaultyRow
from tests.e2e import content
from tests.fixtures import package
from tests.letters import LLAMA3
from tests.parity.data import DATA
from tests.upstream import HELMET_CODE, llama2_tokenizer

BENCH = Helmet()
FORMATS = DATA / "parity2" / "formats" / "helmet"


@pytest.fixture
def tokenizer(pocket: tuple[object, PreTrainedTokenizerBase]) -> PreTrainedTokenizerBase:
    return pocket[1]


def _samples(
    task: str,
    length: int,
    tokenizer: PreTrainedTokenizerBase,
    limit: int = 3,
    protocol: str = "fair",
) -> list[Prompt]:
    (bench_task,) = find_tasks((f"helmet/{task}",))
    request = SampleRequest(tokenizer, length, limit, BENCH.protocol(protocol))
    return list(BENCH.samples(bench_task, request))


def _check_objects(tokenizer: PreTrainedTokenizerBase, length: int, limit: int) -> None:
    for sample in _samples("json_kv", length, tokenizer, limit):
        assert len(sample.ids) + sample.max_new_tokens == length
        text = str(tokenizer.decode(sample.ids))
        start, end = text.index("{"), text.index("}") + 1
        values = json.loads(text[start:end])
        assert len(values) == sample.meta["entries"]
        assert text[:start].rstrip(".\n").endswith("repeated")
        *examples, asked = re.findall(r'"(\S{36})":', text[end:])
        assert len({*examples, asked}) == 3
        assert all(f'"{key}": "{values[key]}"' in text[end:] for key in examples)
        assert text.endswith(f'"{asked}":')
        assert sample.references == [values[asked]]
        place = 100 * list(values).index(asked) / (len(values) - 1)
        assert abs(place - sample.meta["depth"]) <= 50 / (len(values) - 1)


def test_a_reader_of_the_prompt_finds_the_value(tokenizer: PreTrainedTokenizerBase) -> None:
    for length in (2048, 2049, 2090, 2131):
        _check_objects(tokenizer, length, 24)


@pytest.mark.slow
def test_a_reader_finds_all_values(tokenizer: PreTrainedTokenizerBase) -> None:
    _check_objects(tokenizer, 3000, 2000)


@pytest.mark.parametrize("change", ["chat=none", "plan_length=prompt"])
def test_changes_of_the_protocol_make_a_difference(
    change: str, tokenizer: PreTrainedTokenizerBase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokenizer, "chat_template", LLAMA3)
    (plain,) = _samples("json_kv", 2048, tokenizer, 1)
    (changed,) = _samples("json_kv", 2048, tokenizer, 1, f"fair:{change}")
    assert len(plain.ids) == len(changed.ids) == 2048 - plain.max_new_tokens
    assert (list(plain.ids) != list(changed.ids)) == (change == "chat=none")
    protocols = [BENCH.protocol("fair"), BENCH.protocol(f"fair:{change}")]
    assert protocols[0] != protocols[1]


def test_a_value_counts_with_its_hyphens_alone() -> None:
    protocol = BENCH.protocol("fair")
    row: Any = {"prediction": ' "AB-1c"', "references": ["ab-1c"]}
    assert BENCH.score("json_kv", row, protocol) == 1
    row["prediction"] = "ab1c"
    assert BENCH.score("json_kv", row, protocol) == 0


def test_official_files_exist_for_some_lengths(tokenizer: PreTrainedTokenizerBase) -> None:
    with pytest.raises(UserError, match=r"helmet/nq.* 4096.* 8k.*--lengths"):
        _samples("nq", 4096, tokenizer, protocol="official")


@pytest.mark.parametrize(
    "task",
    [
        *("json_kv", "nq", "popqa", "msmarco", "ruler_mk2", "ruler_mv", "trec_fine", "nlu"),
        *("infbench_qa", "infbench_choice"),
    ],
)
def test_official_prompts_end_in_their_cue(
    task: str, tokenizer: PreTrainedTokenizerBase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = package(tmp_path, monkeypatch)
    content.helmet(folder)
    content.infinitebench(folder)
    samples = _samples(task, 8192, tokenizer, protocol="official:chat=none")
    assert samples
    for sample in samples:
        assert sample.extras["lead"] and "{" not in sample.extras["lead"]
        assert str(tokenizer.decode(sample.ids)).endswith(f"\n{sample.extras['lead']}")
        # The pocket model spells most words of the labelled texts.
        assert not sample.cut_tokens or task == "nlu"
        answers = sample.references
        if isinstance(answers, dict):
            answers = " > ".join(sorted(answers, key=answers.__getitem__, reverse=True))
        row: Any = {"references": sample.references, "extras": dict(sample.extras)}
        row["prediction"] = answers if isinstance(answers, str) else f" {answers[0]}"
        assert BENCH.score(task, row, BENCH.protocol("official")) == 1


def test_a_context_is_cut_at_its_end(
    tokenizer: PreTrainedTokenizerBase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = package(tmp_path, monkeypatch)
    content.helmet(folder)
    path = next((folder / "data" / "helmet" / "json_kv").iterdir())
    row = {"context": "first" + " rain" * 9000, "question": "a", "answer": "b", "demos": []}
    path.write_bytes(content.lines([row]))
    (sample,) = _samples("json_kv", 8192, tokenizer, protocol="official:chat=none")
    text = str(tokenizer.decode(sample.ids))
    assert sample.cut_tokens > 0
    assert "first rain" in text and "Look it up." in text and text.endswith("value:")
    assert 8192 - 110 < len(sample.ids) + sample.max_new_tokens <= 8192


@pytest.mark.parametrize(
    ("kind", "data", "demos", "run"),
    [
        ("json_kv", "test_k12_dep3.jsonl", None, "json_kv_v1_*_42.json"),
        ("qa", "qa_k2.jsonl", "qa_demo.jsonl", "kilt_nq_*_42.json"),
        ("rerank", "rerank_k6.jsonl", "rerank_demo.jsonl", "msmarco_*_42.json"),
    ],
)
def test_rows_and_demonstrations_are_those_of_upstreams_program(
    kind: Kind, data: str, demos: str | None, run: str, tmp_path: Path
) -> None:
    if not FORMATS.is_dir():
        pytest.skip(f"no files of HELMET under {FORMATS}")
    code = tmp_path / "data.py"
    code.write_text(HELMET_CODE, encoding="utf-8")
    (stored,) = FORMATS.glob(run)
    rows = json.loads(stored.read_text(encoding="utf-8"))["data"]
    found = list(items(kind, code, FORMATS / data, FORMATS / demos if demos else None))
    assert len(found) == len(rows)
    for item, row in zip(found, rows, strict=True):
        assert isinstance(item, HelmetItem)
        assert item.after.endswith(row["question"])
        # Upstream ran the latter two with one demonstration, the first of these.
        assert row["demos"] in item.before + item.after
        if kind == "rerank":
            assert item.references == {name: int(label) for name, label in row["qrel"]}
        else:
            assert item.references == row["answer"]


def _write_lines(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_bytes(content.lines(rows))
    return path


def _code(folder: Path) -> Path:
    code = folder / "data.py"
    code.write_text(HELMET_CODE, encoding="utf-8")
    return code


def _labelled(count: int, classes: int, start: int = 0) -> list[dict[str, Any]]:
    return [
        {"text": f"Text {start + n}.", "kind": (n * n + n // 3) % classes} for n in range(count)
    ]


@pytest.mark.parametrize(
    ("train", "test", "classes", "shots", "count", "digest"),
    [
        (_labelled(23, 3), _labelled(9, 3, 100), 5, 8, 9, "60d65d4ea11556a7"),
        (_labelled(23, 3), _labelled(1200, 7, 100), 9, 8, 500, "c915564da79ad82c"),
        (_labelled(47, 4), None, 6, 13, 5, "a54d32c5ca19fc2d"),
    ],
    ids=["two files", "many texts", "one file"],
)
def test_labelled_texts_are_those_of_upstreams_draws(
    train: list[dict[str, Any]],
    test: list[dict[str, Any]] | None,
    classes: int,
    shots: int,
    count: int,
    digest: str,
    tmp_path: Path,
) -> None:
    # The digests are of contexts, texts and numbers that upstream's steps gave for these rows, with
    # the draws of datasets 5.2.
    train_file = _write_lines(tmp_path / "train.jsonl", train)
    test_file = _write_lines(tmp_path / "test.jsonl", test) if test else train_file
    files = LabelledFiles(_code(tmp_path), test_file, train_file, "kind", classes)
    found: list[tuple[str, str, Any]] = []
    for item in files.items(shots):
        assert isinstance(item, HelmetItem)
        found.append((item.context, item.id, item.references))
    assert len(found) == count
    assert sha256(json.dumps(found).encode()).hexdigest()[:16] == digest


def test_the_form_of_labels_is_named_once(tmp_path: Path) -> None:
    path = _write_lines(tmp_path / "rows.jsonl", _labelled(20, 2))
    first, *_ = LabelledFiles(_code(tmp_path), path, path, "kind", 2).items(3)
    assert isinstance(first, HelmetItem)
    assert 'Only "label: {label}".' in first.before


def _novel(number: int, words: int) -> dict[str, Any]:
    text = " ".join(f"word{place}" for place in range(words))
    options = [f"option {letter}{number}" for letter in "abcd"]
    return {
        "id": number,
        "context": text,
        "input": f"Q{number}?",
        "answer": options[1:2],
        "options": options,
    }


def _novels(folder: Path, kind: NovelKind, rows: list[dict[str, Any]]) -> NovelFiles:
    tokenizer = folder / "tokenizer.json"
    tokenizer.write_bytes(llama2_tokenizer())
    return NovelFiles(kind, _code(folder), _write_lines(folder / "n.jsonl", rows), tokenizer)


@pytest.mark.parametrize("kind", ["novel_qa", "choice"])
def test_novels_are_cut_and_have_demonstrations(kind: NovelKind, tmp_path: Path) -> None:
    found = list(_novels(tmp_path, kind, [_novel(n, 90 + n) for n in range(7)]).items(95))
    # The order and the demonstrations of datasets 5.2, for rows numbered from 0.
    demos = [(4, 2), (4, 3), (3, 2), (3, 2), (4, 3), (3, 2), (4, 3)]
    for item, number, others in zip(found, (3, 2, 6, 4, 1, 5, 0), demos, strict=True):
        assert isinstance(item, HelmetItem)
        assert item.id == str(number)
        assert re.findall(r"Question: Q(\d)", item.before) == [str(other) for other in others]
        assert item.before.endswith("The story:\n\n") and item.separator == "\n\n"
        if kind == "choice":
            assert item.references == ["B", f"B. option b{number}"]
            assert item.after.endswith(f"\nD. option d{number}")
            assert item.before.count("Answer: B") == 2
        else:
            assert item.references == [f"option b{number}"]
            assert item.after == f"\n\nQuestion: Q{number}?"
            assert f"Answer: option b{others[0]}" in item.before
        words = re.findall(r"word\d+", item.context)
        # " ... [and so on]" has six tokens, and upstream keeps the one after the last that fits.
        assert len(words) == (90 + number if number <= 5 else 90)
        assert item.context.endswith(" ... [and so on]") == (number > 5)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"options": ["a", "b"]}, "'options'"),
        ({"answer": ["other"]}, "'answer'"),
        ({"answer": []}, "'answer'"),
        ({"id": "three"}, "'id'"),
        ({"context": None}, "'context'"),
    ],
)
def test_faulty_novels_are_refused(change: dict[str, Any], named: str, tmp_path: Path) -> None:
    rows = [_novel(0, 5), _novel(1, 5) | change, _novel(2, 5)]
    with pytest.raises(UserError, match=rf"n\.jsonl:2: .*{named}"):
        list(_novels(tmp_path, "choice", rows).items(95))


def test_the_tokenizer_of_novels_is_llama2s(tmp_path: Path) -> None:
    files = _novels(tmp_path, "novel_qa", [_novel(n, 5) for n in range(3)])
    files.tokenizer.write_text("{}", encoding="utf-8")
    with pytest.raises(UserError, match=r"tokenizer\.json"):
        list(files.items(95))
    files.tokenizer.write_bytes(llama2_tokenizer().replace(b'"word7": 7, ', b""))
    with pytest.raises(UserError, match=r"31999.*32000"):
        list(replace(files, tokenizer=files.tokenizer.rename(tmp_path / "b.json")).items(95))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"kind": "HUM"}, "'kind'.* 0 to 2.*'HUM'"),
        ({"kind": 3}, "'kind'.* 0 to 2.*3"),
        ({"kind": True}, "'kind'"),
        ({"text": 5}, "'text'"),
        ({"text": "half \ud83d"}, "surrogate"),
    ],
)
def test_faulty_labelled_texts_are_named(
    change: dict[str, Any], named: str, tmp_path: Path
) -> None:
    rows = _labelled(9, 3)
    good, bad = tmp_path / "good.jsonl", tmp_path / "bad.jsonl"
    _write_lines(good, rows)
    bad.write_text(
        "".join(json.dumps(row) + "\n" for row in [rows[0], rows[1] | change, *rows[2:]])
    )
    code = _code(tmp_path)
    first, *others = LabelledFiles(code, bad, good, "kind", 3).items(4)
    assert isinstance(first, FaultyRow)
    assert re.search(named, first.reason) and first.location.endswith("bad.jsonl:2")
    assert len(others) == 8
    with pytest.raises(UserError, match=r"bad\.jsonl:2: "):
        list(LabelledFiles(code, good, bad, "kind", 3).items(4))


def test_a_missing_label_is_named(tmp_path: Path) -> None:
    path = _write_lines(tmp_path / "rows.jsonl", _labelled(9, 3))
    with pytest.raises(UserError, match=r"rows\.jsonl:1: has no 'intent'"):
        list(LabelledFiles(_code(tmp_path), path, path, "intent", 3).items(4))


def test_a_file_of_one_split_has_rows_for_both(tmp_path: Path) -> None:
    path = _write_lines(tmp_path / "rows.jsonl", _labelled(1, 1))
    with pytest.raises(UserError, match=r"rows\.jsonl: .*few"):
        list(LabelledFiles(_code(tmp_path), path, path, "kind", 3).items(4))


@pytest.mark.parametrize("kind", ["qa", "rerank"])
def test_faulty_demonstrations_are_refused(kind: Kind, tmp_path: Path) -> None:
    passages = [{"id": "1", "title": "T", "text": "X.", "label": 1}]
    row = {"id": "a", "question": "Q?", "answers": ["x"], "qid": "a", "query": "Q?"}
    rows = [row | {"ctxs": passages}, row | {"ctxs": []}]
    data = _write_lines(tmp_path / "data.jsonl", rows[:1])
    demos = _write_lines(tmp_path / "demos.jsonl", rows)
    with pytest.raises(UserError, match=r"demos\.jsonl:2: 'ctxs'"):
        list(items(kind, _code(tmp_path), data, demos))


def test_another_data_py_is_refused(tmp_path: Path) -> None:
    path = _write_lines(tmp_path / "rows.jsonl", _labelled(9, 3))
    files = LabelledFiles(tmp_path / "data.py", path, path, "kind", 3)
    files.code.write_text(HELMET_CODE.replace("{question}", "{asked}"), encoding="utf-8")
    with pytest.raises(UserError, match=r"data\.py: load_icl .*'asked'"):
        list(files.items(4))
