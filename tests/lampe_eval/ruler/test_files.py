"""Corpora, ready-made samples, and the cache of generated ones."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

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
from tests.lampe_eval.ruler import kit

ROW = {"index": 7, "input": "Text. Question?", "outputs": ["a", "b"], "length": 4000}


def put(path: Path, *rows: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        "".join(row if isinstance(row, str) else f"{json.dumps(row)}\n" for row in rows),
        encoding="utf-8",
    )
    return path


@pytest.mark.parametrize(
    "name", ["vt/validation.jsonl", "vt.jsonl", "vt_4096.jsonl", "vt/llama-4096.jsonl"]
)
def test_readymade_samples_of_both_formats(tmp_path: Path, name: str) -> None:
    put(tmp_path / name, {**ROW, "answer_prefix": " So:"}, ROW)
    put(tmp_path / "vtx.jsonl", "broken")
    assert list(ruler_files.read(tmp_path, "vt", 4096)) == [
        ruler_files.FileSample(0, "Text. Question?", " So:", ("a", "b")),
        ruler_files.FileSample(1, "Text. Question?", "", ("a", "b")),
    ]


def test_readymade_samples_of_several_files_are_counted_on(tmp_path: Path) -> None:
    for name in ("vt_b.jsonl", "vt_a.jsonl"):
        put(tmp_path / name, {**ROW, "input": name}, ROW)
    assert [(row.id, row.input[:4]) for row in ruler_files.read(tmp_path, "vt", 4096)][::2] == [
        (0, "vt_a"),
        (2, "vt_b"),
    ]


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ('{"input": "x", "outp', "vt.jsonl:2: is not JSON"),
        ({"prompt": "x", "outputs": ["a"]}, "vt.jsonl:2: has no 'input'"),
        ({"input": "x", "outputs": "a"}, "vt.jsonl:2: 'outputs' is str"),
        ([], "vt.jsonl:2: is not a JSON object"),
        ({"input": "x", "outputs": []}, "vt.jsonl: row 2: 'outputs'"),
        ({"input": "x", "outputs": [3]}, "vt.jsonl: row 2: 'outputs'"),
        ({**ROW, "answer_prefix": None}, "vt.jsonl: row 2: 'answer_prefix' is NoneType"),
    ],
)
def test_rows_that_are_none_are_told(tmp_path: Path, row: object, told: str) -> None:
    put(tmp_path / "vt.jsonl", ROW, row)
    with pytest.raises(UserError, match=told):
        list(ruler_files.read(tmp_path, "vt", 4096))


@pytest.mark.parametrize(
    "layout", ["vt/llama3-{}.jsonl", "{}/vt/validation.jsonl", "{}/data/vt/validation.jsonl"]
)
def test_readymade_samples_of_other_lengths_are_left_out(tmp_path: Path, layout: str) -> None:
    for length in (1024, 4096):
        put(tmp_path / layout.format(length), {**ROW, "input": str(length), "length": length - 9})
    for length in (1024, 4096):
        assert [row.input for row in ruler_files.read(tmp_path, "vt", length)] == [str(length)]


def test_readymade_samples_of_another_length_are_refused(tmp_path: Path) -> None:
    put(tmp_path / "vt.jsonl", {**ROW, "length": 4000})
    for length in (2048, 8192):
        with pytest.raises(
            UserError, match=f"vt.jsonl: row 1: is of 4000 tokens, not for a length of {length}"
        ):
            list(ruler_files.read(tmp_path, "vt", length))


def test_files_that_are_missing_are_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no file of vt for 4096 tokens; expected vt/\*\.jsonl"):
        list(ruler_files.read(tmp_path, "vt", 4096))
    with pytest.raises(UserError, match="no such folder"):
        list(ruler_files.read(tmp_path / "none", "vt", 4096))


@pytest.mark.parametrize("dataset", ["squad", "hotpotqa"])
@pytest.mark.parametrize(
    "data", ["{", "[]", "{}", '{"data": [{"paragraphs": 3}]}', '[{"context": [["a"]]}]', "3"]
)
def test_corpora_that_are_none_are_told(tmp_path: Path, dataset: str, data: str) -> None:
    with pytest.raises(UserError, match=str(tmp_path / "corpus.json")):
        document_questions.corpus(dataset, put(tmp_path / "corpus.json", data))


def test_questions_without_an_answer_are_left_out(tmp_path: Path) -> None:
    found = document_questions.corpus("squad", kit.squad(tmp_path / "squad.json"))
    assert (len(found.documents), len(found.questions)) == (24, 24)
    assert list(found.documents) == sorted(found.documents)
    first = found.questions[0]
    assert "At 0-0 is code00." in found.documents[first.gold[0]]
    assert all("At 0-" in found.documents[number] for number in first.near)
    assert len(first.near) == 3


KEY: dict[str, str | int | bool] = {"task": "vt", "length": 4096, "seed": 0, "n": 2}


def make(task: str = "vt", exact: bool = True) -> Iterator[RulerSample]:
    recipe = SampleSpec(kit.shelf(), 4096, exact=exact)
    return (build_sample(task, kit.CARDS[task], recipe, index) for index in range(2))


def plain(samples: list[RulerSample]) -> list[Any]:
    return [
        (s.text, s.ids if s.ids is None else s.ids.tolist(), s.outputs, s.after, s.meta, s.units)
        for s in samples
    ]


@pytest.mark.parametrize("exact", [True, False])
def test_the_cache_gives_back_what_was_made(exact: bool) -> None:
    made = sample_cache.cached(KEY, lambda: make(exact=exact))
    found = sample_cache.load(KEY)
    assert found is not None
    assert plain(found) == plain(made) == plain(list(make(exact=exact)))
    assert plain(sample_cache.cached(KEY, lambda: pytest.fail("made again"))) == plain(made)
    assert sample_cache.load({**KEY, "seed": 1}) is None


@pytest.mark.parametrize("name", ["samples.jsonl", "ids.npy", "manifest.json"])
@pytest.mark.parametrize("damage", ["torn", "changed", "gone"])
def test_torn_files_are_made_anew(name: str, damage: str) -> None:
    made = plain(sample_cache.cached(KEY, make))
    path = sample_cache.folder(KEY) / name
    data = path.read_bytes()
    path.write_bytes({"torn": data[:-20], "changed": data[:-20] + b"9" * 20, "gone": b""}[damage])
    assert sample_cache.load(KEY) is None
    assert plain(sample_cache.cached(KEY, make)) == made
    assert path.read_bytes() == data


def test_a_tokenizer_is_told_from_others() -> None:
    digests = {sample_cache.digest(kit.shelf(name).coder.tokenizer) for name in kit.TOKENIZERS}
    assert len(digests) == 4
    assert sample_cache.digest(kit.TOKENIZERS["pocket"]()) == sample_cache.digest(
        kit.shelf("pocket").coder.tokenizer
    )
