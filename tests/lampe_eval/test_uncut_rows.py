"""MRCR, LongBench Pro and OOLONG: rows become prompts of their cells, bad ones are named."""

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedTokenizerBase

from lampe_eval.benches import BENCHES, find_tasks
from lampe_eval.benches.bench import Prompt, SampleRequest
from lampe_eval.commands.data import fetch_files, fetch_missing
from lampe_eval.errors import UserError
from tests.e2e import content
from tests.fixtures import package, pin

CHAT = (
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}</>{% endfor %}"
    "{% if add_generation_prompt %}<me>{% endif %}"
)


@pytest.fixture
def tokenizer(pocket: tuple[object, PreTrainedTokenizerBase]) -> PreTrainedTokenizerBase:
    return pocket[1]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return package(tmp_path, monkeypatch)


def _samples(
    name: str, length: int, tokenizer: PreTrainedTokenizerBase, protocol: str = "fair"
) -> list[Prompt]:
    (task,) = find_tasks((name,))
    bench = BENCHES[task.bench]
    return list(bench.samples(task, SampleRequest(tokenizer, length, 9, bench.protocol(protocol))))


def _write_mrcr(folder: Path, rows: list[dict[str, Any]]) -> None:
    for file in ("2needle_0.parquet", "2needle_1.parquet"):
        pin(folder, "mrcr", file, content.parquet_file(rows))


def _chat(words: int, **changes: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": "rain " * words}]
    row = {"prompt": json.dumps(messages), "answer": "abcrain", "random_string_to_prepend": "abc"}
    return row | changes


def test_chats_fill_more_than_half_of_their_cell(
    folder: Path, tokenizer: PreTrainedTokenizerBase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokenizer, "chat_template", CHAT)
    _write_mrcr(folder, [_chat(40), _chat(300), _chat(900)])
    samples = _samples("mrcr/2needle", 512, tokenizer, "official")
    assert samples
    for sample in samples:
        assert 256 < len(sample.ids) + sample.max_new_tokens <= 512
        text = str(tokenizer.decode(sample.ids))
        assert text.startswith("<user>rain") and text.endswith("</><me>")
    with pytest.raises(UserError, match=r" 16.*--lengths"):
        _samples("mrcr/2needle", 16, tokenizer)


def test_official_chats_need_a_template(folder: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    _write_mrcr(folder, [_chat(300)])
    with pytest.raises(UserError, match=r"chat template.*--protocol fair"):
        _samples("mrcr/2needle", 512, tokenizer, "official")
    sample = _samples("mrcr/2needle", 512, tokenizer)[0]
    assert str(tokenizer.decode(sample.ids)).endswith("assistant: ")


@pytest.mark.parametrize("prompt", ["no JSON", "[]", '[{"role": "user"}]'])
def test_a_chat_that_is_none_is_named(
    folder: Path, tokenizer: PreTrainedTokenizerBase, prompt: str
) -> None:
    _write_mrcr(folder, [_chat(300), _chat(300, prompt=prompt)])
    errors = [sample.error for sample in _samples("mrcr/2needle", 512, tokenizer) if sample.error]
    assert len(errors) == 2
    assert all("row 2" in error and "prompt" in error for error in errors)


def test_an_answer_that_is_no_list_is_named(
    folder: Path, tokenizer: PreTrainedTokenizerBase
) -> None:
    row = {
        "id": "1",
        "context_window_text": "rain " * 300,
        "context_window_text_with_labels": "rain: wet " * 100,
        "question": "How many?",
        "answer": "[3]",
        "answer_type": "ANSWER_TYPE.NUMERIC",
        "task_group": "counting",
    }
    rows = [row, row | {"answer": "3 or so"}]
    pin(folder, "oolong", "oolong-synth.parquet", content.parquet_file(rows))
    sound, faulty = _samples("oolong/synth", 512, tokenizer)
    assert sound.references == ["[3]"]
    assert "row 2" in faulty.error and "answer" in faulty.error


@pytest.mark.parametrize(
    ("name", "protocol"),
    [("graphwalks/parents", "official"), ("mrcr/2needle", "fair"), ("oolong/real", "fair")],
)
def test_an_empty_cell_says_which_sizes_its_rows_have(
    name: str, protocol: str, folder: Path, tokenizer: PreTrainedTokenizerBase
) -> None:
    getattr(content, name.partition("/")[0])(folder)
    with pytest.raises(UserError, match=r"length 16: .* 9 to 16 tokens.* (\d+) to (\d+) letters"):
        _samples(name, 16, tokenizer, protocol)


def test_rows_of_longbench_pro_go_to_the_task_of_their_kind(
    folder: Path, tokenizer: PreTrainedTokenizerBase
) -> None:
    content.longbench_pro(folder)
    for name, metric in (("t1.1", "NDCG"), ("t10.1", "SubEM"), ("t11.2", "Accuracy")):
        (sample,) = _samples(f"longbench-pro/{name}", 1400, tokenizer)
        assert sample.extras["metric"] == metric
        assert sample.cut_tokens and len(sample.ids) + sample.max_new_tokens == 1400


def test_files_of_the_users_own_are_named_all_at_once_with_their_sources(tmp_path: Path) -> None:
    names = ["oolong/oolong-synth.parquet", "oolong/dnd.parquet"]
    with pytest.raises(
        UserError, match=r"oolongbench/oolong-synth.*oolong/dnd.*oolongbench/oolong-real"
    ):
        fetch_missing(names, tmp_path)


def test_fetching_a_benchmark_leaves_out_what_is_never_fetched(
    capsys: pytest.CaptureFixture[str],
) -> None:
    fetch_files(["longbench-pro"], None)
    assert "caskcsg/LongBench-Pro" in capsys.readouterr().out
    with pytest.raises(UserError, match="caskcsg/LongBench-Pro"):
        fetch_files(["longbench-pro/longbench_pro.json"], None)
