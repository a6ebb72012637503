"""Perplexity protocols against losses worked out window by window."""

import gzip
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from hashlib import sha256
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import torch
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lampe_eval.benches import find_tasks
from lampe_eval.benches.bench import Passage, SampleRequest, Task
from lampe_eval.benches.ppl import Ppl, PplCard
from lampe_eval.engine.local_engine import LocalEngine
from lampe_eval.errors import UserError
from lampe_eval.method_specs import parse_methods
from lampe_eval.texts import pocket_language
from lampe_eval.texts.corpora import CORPORA
from lampe_eval.texts.documents import digest, documents, required_files
from tests.fixtures import package, pin

FAIR = Ppl().protocol("fair")

Pocket = tuple[PreTrainedModel, PreTrainedTokenizerBase]


class LettersWithBos:
    """Tokenizer of one token per letter, with or without a BOS."""

    def __init__(self, bos: int | None) -> None:
        self.bos_token_id = bos

    def __call__(
        self, text: str, *, add_special_tokens: bool = True, **_: Any
    ) -> dict[str, list[int]]:
        first = [] if self.bos_token_id is None or not add_special_tokens else [self.bos_token_id]
        return {"input_ids": first + [ord(c) for c in text]}


def _task(name: str, stride: int) -> Task:
    (task,) = find_tasks((f"ppl/{name}",))
    assert isinstance(task.card, PplCard)
    return replace(task, card=task.card.model_copy(update={"stride": stride}))


def _windows(
    protocol: str, texts: list[str], length: int, stride: int, bos: int | None, folder: Path
) -> list[Any]:
    for number, text in enumerate(texts):
        (folder / f"{number}.txt").write_text(text)
    tokenizer: Any = LettersWithBos(bos)
    request = SampleRequest(tokenizer, length, 99, FAIR, source=folder)
    samples = Ppl().samples(_task(protocol, stride), request)
    return [("".join(map(chr, s.ids)), s.scored_tokens) for s in samples]


@pytest.mark.parametrize(
    ("protocol", "documents"),
    [("exact", [0, 0, 1]), ("stride", [0, 0, 0, 0, 1, 1]), ("dense", [0, 0, 0, 0, 1])],
)
def test_a_window_records_its_document(protocol: str, documents: list[int], tmp_path: Path) -> None:
    for number, text in enumerate(["abcdefgh", "ijkl", "x"]):
        (tmp_path / f"{number}.txt").write_text(text)
    tokenizer: Any = LettersWithBos(None)
    request = SampleRequest(tokenizer, 4, 99, FAIR, source=tmp_path)
    samples = Ppl().samples(_task(protocol, 2), request)
    assert [sample.meta["document"] for sample in samples] == documents


def _rows(
    losses: Iterable[float], length: int, documents: Sequence[int] | None = None
) -> list[dict[str, Any]]:
    rows = [
        {"id": f"{length}/{n}", "length": length, "loss": 10 * x, "scored_tokens": 10}
        for n, x in enumerate(losses)
    ]
    return (
        rows
        if documents is None
        else [{**row, "meta": {"document": d}} for row, d in zip(rows, documents, strict=True)]
    )


@pytest.mark.parametrize("protocol", ["exact", "stride"])
def test_errors_are_over_documents_where_there_are_several(protocol: str) -> None:
    """Equal windows of a document count as one; rows of old runs count as windows."""
    task, losses = _task(protocol, 4), [1.0, 1.0, 1.0, 1.4, 1.4, 1.4, 1.8, 1.8, 1.8]
    old, one, several = (
        Ppl().cell_score(task, _rows(losses, 8, documents), FAIR)
        for documents in (None, [0] * 9, [0, 0, 0, 1, 1, 1, 2, 2, 2])
    )
    assert (old.estimate.independent_units, old.estimate.unit) == (9, "window")
    assert one == old
    assert several.value == old.value
    assert (several.estimate.independent_units, several.estimate.unit) == (3, "document")
    assert several.stderr == pytest.approx(2 * old.stderr, rel=0.05)  # root of (9 - 1) / (3 - 1)


def test_windows_that_overlap_have_the_error_of_blocks() -> None:
    """Compare with the spread over 300 streams, less 10 % since neighbouring blocks overlap."""
    task, rng, length = _task("dense", 4), np.random.default_rng(3), 16
    means, errors = [], []
    for _ in range(300):
        stream = rng.normal(2, 1, 4 * 400 + length)
        losses = [stream[begin : begin + length].mean() for begin in range(0, 4 * 400, 4)]
        score = Ppl().cell_score(task, _rows(losses, length), FAIR)
        means.append(score.value)
        errors.append(score.stderr)
    assert (score.estimate.independent_units, score.estimate.unit) == (50, "block")
    assert np.mean(errors) == pytest.approx(0.91 * np.std(means), rel=0.1)


def test_blocks_may_be_documents_but_not_shorter() -> None:
    task = _task("dense", 4)
    long = [n // 16 for n in range(64)]
    short = [n // 2 for n in range(64)]
    assert Ppl().cell_score(task, _rows([1.0] * 64, 16, long), FAIR).estimate.unit == "document"
    assert Ppl().cell_score(task, _rows([1.0] * 64, 16, short), FAIR).estimate.unit == "block"
    both_of_one_block = _rows([1.0, 2.0], 16)
    assert math.isnan(Ppl().cell_score(task, both_of_one_block, FAIR).stderr)


def test_exact_windows_follow_each_other_in_each_text(tmp_path: Path) -> None:
    assert _windows("exact", ["abcdefgh", "xyz", "ijkl"], 4, 9, None, tmp_path) == [
        ("abcd", 3),
        ("efgh", 3),
        ("ijkl", 3),
    ]


def test_exact_windows_with_a_bos_hold_one_token_less(tmp_path: Path) -> None:
    assert _windows("exact", ["abcdefg"], 4, 9, ord("<"), tmp_path) == [("<abc", 3), ("<def", 3)]


def test_stride_counts_only_what_was_not_reached(tmp_path: Path) -> None:
    """YaRN's script: length 5 with a BOS leaves 4 tokens; windows begin at 0, 2 and 4."""
    assert _windows("stride", ["abcdefg"], 5, 2, ord("<"), tmp_path) == [
        ("<abcd", 4),
        ("<cdef", 2),
        ("<efg", 1),
    ]


def test_dense_slides_over_one_stream_and_drops_the_last_start(tmp_path: Path) -> None:
    """LongLoRA's script: starts 0, 2, 4, ... below the stream's length minus the window's."""
    assert _windows("dense", ["abcde", "fghi"], 4, 2, None, tmp_path) == [
        ("abcd", 3),
        ("cdef", 3),
        ("efgh", 3),
    ]
    assert _windows("dense", ["abcde", "fghi"], 2, 3, None, tmp_path) == [
        ("ab", 1),
        ("de", 1),
        ("gh", 1),
    ]


def _losses(model: PreTrainedModel, ids: list[int]) -> list[float]:
    tensor = torch.tensor([ids])
    with torch.no_grad():
        logits = model(tensor).logits[0, :-1].double()
    return cross_entropy(logits, tensor[0, 1:], reduction="none").tolist()


def _run(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, task: Task, length: int
) -> tuple[Any, list[Any]]:
    engine, bench = LocalEngine(model, tokenizer), Ppl()
    samples = list(bench.samples(task, SampleRequest(tokenizer, length, 3, FAIR, seed=3)))
    (spec,) = parse_methods(["original"])
    with engine.patched(spec.build({}), 256, "blockwise"):
        rows = [
            {
                "id": sample.id,
                "length": length,
                "loss": engine.loss(sample),
                "scored_tokens": sample.scored_tokens,
            }
            for sample in samples
        ]
    return bench.cell_score(task, rows, FAIR), samples


@pytest.mark.parametrize("protocol", ["exact", "stride", "dense"])
def test_protocols_equal_losses_worked_out_by_hand(pocket: Pocket, protocol: str) -> None:
    model, tokenizer = pocket
    score, samples = _run(model, tokenizer, _task(protocol, 32), 200)
    counted = [_losses(model, list(sample.ids))[-sample.scored_tokens :] for sample in samples]
    means = [math.fsum(window) / len(window) for window in counted]
    expected = {
        "exact": math.exp(math.fsum(chain(*counted)) / sum(map(len, counted))),
        "stride": math.exp(math.fsum(means) / len(means)),
        "dense": 2.71828 ** (math.fsum(means) / len(means)),
    }
    assert score.value == pytest.approx(expected[protocol], rel=1e-5)
    assert score.n == 3


def test_losses_in_chunks_equal_losses_at_once(
    pocket: Pocket, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, tokenizer = pocket
    ids = tokenizer(pocket_language.text(5, 300), add_special_tokens=False)["input_ids"][:250]
    engine = LocalEngine(model, tokenizer)
    (spec,) = parse_methods(["original"])
    expected = _losses(model, ids)
    for chunk in (7, 64, 249, 1000):
        monkeypatch.setattr("lampe_eval.engine.local_engine.PASSAGE_CHUNK", chunk)
        with engine.patched(spec.build({}), 256, "blockwise"):
            for scored in (1, 100, 249):
                ours = engine.loss(Passage("x", ids, scored))
                assert ours == pytest.approx(math.fsum(expected[-scored:]), rel=1e-5, abs=1e-5)


def test_too_little_text_is_reported(tmp_path: Path, pocket: Pocket) -> None:
    (tmp_path / "a.txt").write_text("The lamp is here.")
    with pytest.raises(UserError, match=r"ppl at length 512: .*--lengths"):
        list(
            Ppl().samples(
                _task("exact", 1), SampleRequest(pocket[1], 512, 1, FAIR, source=tmp_path)
            )
        )
    with pytest.raises(UserError, match="at least 2 tokens"):
        list(Ppl().samples(_task("exact", 1), SampleRequest(pocket[1], 1, 1, FAIR)))


def _lines(*rows: object) -> bytes:
    return gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode(), mtime=0)


def _parquet(path: Path, **columns: list[Any]) -> bytes:
    pyarrow.parquet.write_table(pyarrow.table(columns), path)
    return path.read_bytes()


def _documents(source: Path) -> list[str]:
    return list(documents(source, seed=0, words=9))


@pytest.mark.parametrize("name", ["pg19-test", "pg19-validation", "proof-pile"])
def test_a_corpus_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """Fields beside the text may differ from row to row; empty texts are left out."""
    folder, asset = package(tmp_path, monkeypatch), CORPORA[name]
    content = (
        _lines(
            {"text": "Ab cd.", "meta": {"x": 1}}, {"text": " "}, {"text": "Ef\u2028gh", "meta": "y"}
        )
        if name == "proof-pile"
        else _parquet(tmp_path / "t.parquet", text=["Ab cd.", " ", "Ef\u2028gh"], meta=[1, 2, 3])
    )
    (folder / "data").mkdir()
    with pytest.raises(UserError, match=rf"{asset}: .*lampe-eval data fetch {asset}"):
        _documents(Path(name))
    pin(folder, "ppl", asset.partition("/")[2], content)
    assert _documents(Path(name)) == ["Ab cd.", "Ef\u2028gh"]
    assert required_files(Path(name)) == [asset]
    assert digest(Path(name)) == f"{name} sha256:{sha256(content).hexdigest()[:16]}"
    Path(name).write_text("A file of that name comes first.")
    assert _documents(Path(name)) == ["A file of that name comes first."]
    assert required_files(Path(name)) == []
    assert capfd.readouterr() == ("", "")


def test_the_windows_of_a_corpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = package(tmp_path, monkeypatch)
    pin(
        folder,
        "ppl",
        "pg19-validation.parquet",
        _parquet(tmp_path / "t.parquet", text=["abcdefgh", "ijkl"]),
    )
    monkeypatch.delenv("LAMPE_EVAL_DATA")
    source = Path("pg19-validation")
    request = SampleRequest(
        LettersWithBos(None), 4, 9, FAIR, source=source, data_dir=folder / "data"
    )  # type: ignore[arg-type]
    texts = ["".join(map(chr, sample.ids)) for sample in Ppl().samples(_task("exact", 1), request)]
    assert texts == ["abcd", "efgh", "ijkl"]


def test_tables_and_texts_of_a_folder_in_the_order_of_their_names(tmp_path: Path) -> None:
    folder = tmp_path / "texts [1]*"
    (folder / "inner").mkdir(parents=True)
    (folder / "d.txt").write_text("four")
    (folder / "a.jsonl.gz").write_bytes(_lines({"text": "one"}))
    (folder / "b.jsonl").write_text('{"text": "two"}\n\n{"text": "three", "more": []}\n')
    (folder / "ignored.csv").write_text("text\nno")
    _parquet(folder / "inner" / "e.parquet", text=["five"])
    (folder / "c.jsonl").write_text("")
    assert _documents(folder) == ["one", "two", "three", "four", "five"]
    before = digest(folder)
    (folder / "b.jsonl").write_text('{"text": "2"}\n')
    assert digest(folder) != before


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", b'{"text": "fine"}\n{"text": ', r"a.jsonl:2: is not JSON"),
        ("a.jsonl", b'{"words": "x"}\n', r"a.jsonl:1: .*'text'"),
        ("a.jsonl", b'["x"]\n', r"a.jsonl:1: .*'text'"),
        ("a.jsonl", b"\xff\xfe{}\n", r"a.jsonl: cannot be read"),
        ("a.jsonl", b"\n", r"a.jsonl: no text"),
        ("a.jsonl.gz", b"not zipped", r"a.jsonl.gz: cannot be read .Not a gzipped file"),
        ("a.jsonl.gz", _lines({"text": "x" * 999})[:-9], r"a.jsonl.gz: cannot be read"),
        ("a.jsonl.gz", _lines({"text": "y"})[:12] + b"\x00" * 20, r"a.jsonl.gz: cannot be read"),
        ("a.parquet", b"PAR1 and no more", r"a.parquet: cannot be read"),
        ("a.parquet", b"", r"a.parquet: no text"),
    ],
)
def test_broken_tables_are_reported_in_one_line(
    tmp_path: Path, name: str, content: bytes, message: str, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        _documents(tmp_path / name)
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("columns", [{"words": ["x"]}, {"text": ["x", None]}, {"text": [1]}])
def test_a_table_without_texts_is_reported(tmp_path: Path, columns: dict[str, list[Any]]) -> None:
    _parquet(tmp_path / "a.parquet", **columns)
    with pytest.raises(UserError, match=r"a.parquet: (row \d: .*'text'|cannot be read)"):
        _documents(tmp_path / "a.parquet")


def test_an_unknown_source_lists_the_known_ones() -> None:
    with pytest.raises(UserError, match=r"pg18: .*pg19-test, "):
        _documents(Path("pg18"))
