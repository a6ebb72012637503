"""HELMET: objects made here have their length and answers, official rows HELMET's own prompts."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedTokenizerBase

from lampe_eval.benches import find_tasks
from lampe_eval.benches.bench import Prompt, SampleRequest
from lampe_eval.benches.helmet import Helmet
from lampe_eval.benches.helmet_items import HelmetItem, Kind, items
from lampe_eval.errors import UserError
from tests.e2e import content
from tests.fixtures import package
from tests.letters import LLAMA3
from tests.parity.data import DATA
from tests.upstream import HELMET_CODE

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
    with pytest.raises(UserError, match=r"helmet/nq.* 4096.*8192.*--lengths"):
        _samples("nq", 4096, tokenizer, protocol="official")


@pytest.mark.parametrize("task", ["json_kv", "nq", "popqa", "msmarco"])
def test_official_prompts_end_in_their_cue(
    task: str, tokenizer: PreTrainedTokenizerBase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content.helmet(package(tmp_path, monkeypatch))
    for sample in _samples(task, 8192, tokenizer, protocol="official:chat=none"):
        assert sample.extras["lead"].endswith(":")
        assert str(tokenizer.decode(sample.ids)).endswith(f"\n{sample.extras['lead']}")
        assert not sample.cut_tokens


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
