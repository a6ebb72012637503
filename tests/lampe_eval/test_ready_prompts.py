"""Mirrors with ready prompts: rows are prompts as they stand, scored by the scorer of the bench."""

from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedTokenizerBase

from lampe_eval.benches import BENCHES, find_tasks
from lampe_eval.benches.bench import SampleRequest
from lampe_eval.errors import UserError
from tests.e2e import content

ROW = {"context": "Read. It rains. ", "question": "Does it?", "answer_prefix": "\nAnswer:"}
CASES: list[tuple[str, str, str, dict[str, Any]]] = [
    (
        "longbench/hotpotqa",
        "hotpotqa/test-00000-of-00001.parquet",
        "yes",
        {"answers": ["yes"], "length": 3, "all_classes": None, "_id": "x"},
    ),
    (
        "longbench-v2/direct",
        "LongBench-v2/0shot/test-00000-of-00001.parquet",
        "The correct answer is (B)",
        {"answer": "B", "_id": "x", "domain": "d", "difficulty": "easy", "length": "short"},
    ),
    ("infinitebench/passkey", "passkey.parquet", "71432", {"answer": ["71432"]}),
]


def _request(task: str, folder: Path, tokenizer: PreTrainedTokenizerBase) -> SampleRequest:
    protocol = BENCHES[task.partition("/")[0]].protocol("fair:prompts=ready")
    return SampleRequest(tokenizer, 256, 2, protocol, data_dir=folder)


@pytest.mark.parametrize(("name", "file", "answer", "columns"), CASES)
def test_rows_are_prompts(
    name: str,
    file: str,
    answer: str,
    columns: dict[str, Any],
    tmp_path: Path,
    pocket: tuple[object, PreTrainedTokenizerBase],
) -> None:
    path = tmp_path / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.parquet_file([ROW | {"max_new_tokens": 9} | columns] * 3))
    (task,) = find_tasks((name,))
    bench, request = BENCHES[task.bench], _request(name, tmp_path, pocket[1])
    assert not bench.required_files(task, request.protocol)
    assert bench.user_files(task, request.protocol, tmp_path) == [path]
    samples = list(bench.samples(task, request))
    assert len(samples) == len(list(bench.rows(task, request))) == 2
    sample = samples[0]
    assert str(pocket[1].decode(sample.ids)).endswith("Read. It rains. Does it?\nAnswer:")
    assert sample.max_new_tokens == 9
    row: Any = {"prediction": answer, "references": sample.references, "extras": sample.extras}
    assert bench.score(task.name, row, request.protocol) == 1


@pytest.mark.parametrize("name", [case[0] for case in CASES])
def test_missing_files_are_named_with_their_mirror(
    name: str, tmp_path: Path, pocket: tuple[object, PreTrainedTokenizerBase]
) -> None:
    (task,) = find_tasks((name,))
    request = _request(name, tmp_path, pocket[1])
    with pytest.raises(UserError, match=f"--data-dir.*{BENCHES[task.bench].mirror}"):
        list(BENCHES[task.bench].samples(task, request))
