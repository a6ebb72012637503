"""Corpora, samples of files, and the cache of generated samples."""

import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lampe_eval.errors import UserError
from lampe_eval.ruler import (
    RulerSample,
    SampleSpec,
    build_sample,
    document_questions,
    ruler_files,
    sample_cache,
)
from lampe_eval.texts.jsonl_rows import FaultyRow
from tests.lampe_eval.ruler import ruler_examples

ROW = {"index": 7, "input": "Text. Question?", "outputs": ["a", "b"], "length": 4000}


def write_rows(path: Path, *rows: object) -> Path:
    """Write rows as JSON lines; a string is written as it is."""
    lines = [row if isinstance(row, str) else f"{json.dumps(row)}\n" for row in rows]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(lines), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    "name", ["vt/validation.jsonl", "vt.jsonl", "vt_4096.jsonl", "vt/llama-4096.jsonl"]
)
def test_rows_of_both_formats_are_read(tmp_path: Path, name: str) -> None:
    write_rows(tmp_path / name, {**ROW, "answer_prefix": " So:"}, ROW)
    write_rows(tmp_path / "vtx.jsonl", "broken")
    samples = [good_row(row) for row in ruler_files.read_samples(tmp_path, "vt", 4096)]
    assert [(row.input, row.answer_prefix, row.outputs) for row in samples] == [
        ("Text. Question?", " So:", ["a", "b"]),
        ("Text. Question?", "", ["a", "b"]),
    ]


def good_row(row: ruler_files.FileSample | FaultyRow) -> ruler_files.FileSample:
    assert isinstance(row, ruler_files.FileSample)
    return row


def test_files_are_read_in_the_order_of_their_names(tmp_path: Path) -> None:
    for name in ("vt_b.jsonl", "vt_a.jsonl"):
        write_rows(tmp_path / name, {**ROW, "input": name}, ROW)
    samples = ruler_files.read_samples(tmp_path, "vt", 4096)
    assert [good_row(row).input[:4] for row in samples][::2] == ["vt_a", "vt_b"]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ('{"input": "x", "outp', "vt.jsonl:2: .*JSON"),
        ({"prompt": "x", "outputs": ["a"]}, "vt.jsonl:2: .*'input'"),
        ({"input": "x", "outputs": "a"}, "vt.jsonl:2: .*'outputs'.*list"),
        ([], "vt.jsonl:2: .*JSON object"),
        ({"input": "x", "outputs": []}, "vt.jsonl:2: 'outputs'"),
        ({"input": "x", "outputs": [3]}, "vt.jsonl:2: 'outputs.0'"),
        ({**ROW, "answer_prefix": None}, "vt.jsonl:2: 'answer_prefix'.* None"),
        ({**ROW, "length": 10}, "vt.jsonl:2: .* 10 tokens.* 4096"),
    ],
)
def test_rows_that_are_not_samples_are_faulty(tmp_path: Path, row: object, message: str) -> None:
    write_rows(tmp_path / "vt.jsonl", ROW, row)
    good, faulty = ruler_files.read_samples(tmp_path, "vt", 4096)
    assert good_row(good).input == ROW["input"]
    assert isinstance(faulty, FaultyRow) and re.search(message, str(faulty))


@pytest.mark.parametrize(
    "layout", ["vt/llama3-{}.jsonl", "{}/vt/validation.jsonl", "{}/data/vt/validation.jsonl"]
)
def test_files_of_other_lengths_are_left_out(tmp_path: Path, layout: str) -> None:
    for length in (1024, 4096):
        write_rows(
            tmp_path / layout.format(length), {**ROW, "input": str(length), "length": length - 9}
        )
    for length in (1024, 4096):
        (sample,) = ruler_files.read_samples(tmp_path, "vt", length)
        assert good_row(sample).input == str(length)


def test_rows_of_another_length_are_refused(tmp_path: Path) -> None:
    write_rows(tmp_path / "vt.jsonl", {**ROW, "length": 4000})
    for length in (2048, 8192):
        with pytest.raises(UserError, match=f"vt.jsonl:1: .*4000 tokens.* {length}"):
            list(ruler_files.read_samples(tmp_path, "vt", length))


def test_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"vt for 4096 tokens.*vt/\*\.jsonl"):
        list(ruler_files.read_samples(tmp_path, "vt", 4096))
    with pytest.raises(UserError, match="no such folder"):
        list(ruler_files.read_samples(tmp_path / "none", "vt", 4096))


@pytest.mark.parametrize("dataset", ["squad", "hotpotqa"])
@pytest.mark.parametrize(
    "data", ["{", "[]", "{}", '{"data": [{"paragraphs": 3}]}', '[{"context": [["a"]]}]', "3"]
)
def test_files_that_are_not_corpora_are_refused(tmp_path: Path, dataset: str, data: str) -> None:
    with pytest.raises(UserError, match=str(tmp_path / "corpus.json")):
        document_questions.read_corpus(dataset, write_rows(tmp_path / "corpus.json", data))


def test_questions_without_an_answer_are_left_out(tmp_path: Path) -> None:
    path = ruler_examples.write_squad(tmp_path / "squad.json")
    corpus = document_questions.read_corpus("squad", path)
    assert (len(corpus.documents), len(corpus.questions)) == (24, 24)
    assert list(corpus.documents) == sorted(corpus.documents)
    first = corpus.questions[0]
    assert "At 0-0 is code00." in corpus.documents[first.gold[0]]
    assert all("At 0-" in corpus.documents[number] for number in first.near)
    assert len(first.near) == 3


KEY: dict[str, str | int | bool] = {"task": "vt", "length": 4096, "seed": 0, "n": 2}


def build_two(exact: bool = True) -> Iterator[RulerSample]:
    spec = SampleSpec(ruler_examples.shared_corpora(), 4096, exact=exact)
    return (build_sample("vt", ruler_examples.CARDS["vt"], spec, index) for index in range(2))


def refuse_to_build() -> list[RulerSample]:
    pytest.fail("samples were built although the cache has them")


def comparable(samples: Iterable[RulerSample]) -> list[Any]:
    """Return all fields of samples, ids as lists."""
    fields = []
    for sample in samples:
        ids = None if sample.ids is None else sample.ids.tolist()
        fields.append((sample.text, ids, sample.outputs, sample.after, sample.meta, sample.units))
    return fields


@pytest.mark.parametrize("exact", [True, False])
def test_the_cache_returns_what_was_built(exact: bool) -> None:
    built = comparable(sample_cache.load_or_build(KEY, lambda: build_two(exact)))
    loaded = sample_cache.load_samples(KEY)
    assert loaded is not None
    assert comparable(loaded) == built == comparable(build_two(exact))
    assert comparable(sample_cache.load_or_build(KEY, refuse_to_build)) == built
    assert sample_cache.load_samples({**KEY, "seed": 1}) is None


@pytest.mark.parametrize("name", ["samples.jsonl", "ids.npy", "manifest.json"])
@pytest.mark.parametrize("damage", ["truncated", "changed", "empty"])
def test_samples_of_damaged_files_are_built_again(name: str, damage: str) -> None:
    built = comparable(sample_cache.load_or_build(KEY, build_two))
    path = sample_cache.cache_folder(KEY) / name
    data = path.read_bytes()
    damaged = {"truncated": data[:-20], "changed": data[:-20] + b"9" * 20, "empty": b""}
    path.write_bytes(damaged[damage])
    assert sample_cache.load_samples(KEY) is None
    assert comparable(sample_cache.load_or_build(KEY, build_two)) == built
    assert path.read_bytes() == data


def test_a_cache_that_cannot_be_written_is_named() -> None:
    (sample_cache.cache_folder(KEY) / "ids.npy").mkdir(parents=True)
    with pytest.raises(UserError, match="LAMPE_EVAL_CACHE"):
        sample_cache.load_or_build(KEY, build_two)


def test_every_tokenizer_has_a_digest_of_its_own() -> None:
    digests: dict[str, str] = {}
    for name in ruler_examples.TOKENIZERS:
        corpora = ruler_examples.shared_corpora(name)
        digests[name] = sample_cache.tokenizer_digest(corpora.tokenizer.tokenizer)
    assert len(set(digests.values())) == 4
    rebuilt = ruler_examples.TOKENIZERS["pocket"]()
    assert sample_cache.tokenizer_digest(rebuilt) == digests["pocket"]


@pytest.mark.parametrize(
    "name", ["a/b/vt/validation.jsonl", "a/4096/x/vt.jsonl", "a/vt_4096.jsonl"]
)
def test_files_are_found_at_any_depth(tmp_path: Path, name: str) -> None:
    write_rows(tmp_path / name, ROW)
    write_rows(tmp_path / "a/1024/vt.jsonl", {**ROW, "input": "of another length"})
    assert [row.input for row in ruler_files.read_samples(tmp_path, "vt", 4096)] == [ROW["input"]]
    assert tmp_path / name in ruler_files.sample_files(tmp_path, "vt")
    write_rows(tmp_path / "other/model/vt.jsonl", ROW)
    with pytest.raises(UserError, match=r"vt: .*a.*other/model"):
        list(ruler_files.read_samples(tmp_path, "vt", 4096))


@pytest.mark.parametrize("name", ["4096/test-00000-of-00001.parquet", "x/4096/test/0000.parquet"])
def test_samples_of_a_mirror(tmp_path: Path, name: str) -> None:
    rows = [
        {
            "context": f"{length} Text. ",
            "question": "Question?",
            "answer_prefix": " So:",
            "answer": ["a", "b"],
            "task": task,
            "max_new_tokens": 30,
        }
        for length, task in ((4096, "vt"), (4096, "cwe"), (1024, "vt"))
    ]
    for path, of_length in ((name, rows[:2]), (name.replace("4096", "1024"), rows[2:])):
        (tmp_path / path).parent.mkdir(parents=True)
        pq.write_table(pa.Table.from_pylist(of_length), tmp_path / path)
    assert list(ruler_files.read_samples(tmp_path, "vt", 4096)) == [
        ruler_files.FileSample(
            input="4096 Text. Question?", answer_prefix=" So:", outputs=["a", "b"]
        )
    ]
    assert tmp_path / name in ruler_files.sample_files(tmp_path, "vt")
