"""LongBench's prompts: template to the byte, truncation and chat markers of each protocol."""

import json
from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedTokenizerBase

from lampe_eval.benches import find_tasks
from lampe_eval.benches.bench import Prompt, SampleRequest
from lampe_eval.benches.longbench import LongBench, LongBenchE, llama3_template
from lampe_eval.errors import UserError
from tests.e2e import content
from tests.fixtures import package, pin
from tests.letters import LLAMA2, LLAMA3, MISTRAL, Letters
from tests.parity.data import DATA
from tests.upstream import longbench_row


def _prompts(
    task: str,
    protocol: str,
    tokenizer: Letters,
    *,
    length: int = 1 << 20,
    release_prompts: bool = False,
    bench: type[LongBench] = LongBench,
) -> list[Prompt]:
    (bench_task,) = find_tasks((f"{bench.name}/{task}",))
    request = SampleRequest(
        tokenizer, length, 3, bench().protocol(protocol), release_prompts=release_prompts
    )  # type: ignore[arg-type]
    return list(bench().samples(bench_task, request))


def _text(prompt: Prompt) -> str:
    return Letters().decode(list(prompt.ids))


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """LongBench with files of our own."""
    folder = package(tmp_path, monkeypatch)
    content.longbench(folder)
    return folder


def _formatted(row: dict[str, Any]) -> str:
    return f"Read this.\n\n{row['context']}\n\nNow answer.\n\nQuestion: {row['input']}\nAnswer:"


@pytest.mark.parametrize("protocol", ["fair", "official"])
def test_a_prompt_that_fits_is_the_template_filled(files: Path, protocol: str) -> None:
    first, second = _prompts("hotpotqa", protocol, Letters())
    assert _text(first) == "<s>" + _formatted(longbench_row("hotpotqa", 0))
    assert _text(second) == "<s>" + _formatted(longbench_row("hotpotqa", 1))
    assert first.cut_tokens == 0
    assert first.references == ["In the harbor."]
    assert first.extras["_id"] == "hotpotqa-0"


def test_official_cuts_the_middle_before_it_wraps(files: Path) -> None:
    """Length 2048 leaves 2 * 1000 - 500 tokens; BOS is one of them and is not decoded."""
    whole = _formatted(longbench_row("hotpotqa", 0))
    (first, _) = _prompts("hotpotqa", "official", Letters(LLAMA2), length=2048)
    assert _text(first) == f"<s>[INST]{whole[:749]}{whole[-750:]}[/INST]"
    assert first.cut_tokens == len(whole) + 1 - 1500


class MergingLetters(Letters):
    """Tokenizer whose parts have fewer tokens than the whole: two more after line breaks."""

    def __call__(
        self, text: str, add_special_tokens: bool = True, **options: Any
    ) -> dict[str, list[int]]:
        ids = super().__call__(text, add_special_tokens, **options)["input_ids"]
        return {"input_ids": ids + [0, 0] * text.count("\n\nRead")}


def test_a_prompt_whose_parts_fit_is_not_cut(files: Path) -> None:
    """Cutting what fits would put its middle in twice."""
    whole = _prompts("hotpotqa", "fair", MergingLetters(LLAMA3))[0].ids
    (tight, _) = _prompts(
        "hotpotqa", "fair", MergingLetters(LLAMA3), length=len(whole) - 1 + content.ANSWER
    )
    assert tight.cut_tokens == 0
    assert list(tight.ids) == list(whole[:-2])


def test_fair_cuts_ids_so_that_prompt_and_answer_make_the_length(files: Path) -> None:
    whole = _formatted(longbench_row("hotpotqa", 0))
    (first, _) = _prompts("hotpotqa", "fair", Letters(LLAMA3), length=2048)
    assert len(first.ids) + first.max_new_tokens == 2048
    text = _text(first)
    assert text.startswith("<s><|start_header_id|>user<|end_header_id|>\n\nRead this.")
    assert text.endswith("Answer:<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n")
    tokens = len(text) - len(text.replace(whole[:600], "").replace(whole[-600:], ""))
    assert tokens == 1200  # both ends are there


@pytest.mark.parametrize("side", ["left", "right", "none", "skip"])
def test_other_truncations(files: Path, side: str) -> None:
    whole = _formatted(longbench_row("hotpotqa", 0))
    (first, _) = _prompts("hotpotqa", f"fair:truncation={side}", Letters(), length=1024)
    tokens = 1024 - content.ANSWER - 1
    expected = {"left": whole[-tokens:], "right": whole[:tokens], "none": whole, "skip": whole}[
        side
    ]
    assert _text(first) == "<s>" + expected
    assert (first.skip, first.cut_tokens) == (side == "skip", len(whole) - len(expected))


@pytest.mark.parametrize("task", ["trec", "triviaqa", "samsum", "lsht", "lcc", "repobench-p"])
@pytest.mark.parametrize("protocol", ["fair", "official"])
def test_tasks_that_go_on_are_no_chat(files: Path, task: str, protocol: str) -> None:
    assert _text(_prompts(task, protocol, Letters(LLAMA3))[0]) == "<s>" + _formatted(
        longbench_row(task, 0)
    )


def test_only_samsum_ends_with_its_line(files: Path) -> None:
    assert _prompts("samsum", "fair", Letters())[0].stop_token_ids == (ord("\n"),)
    assert _prompts("triviaqa", "fair", Letters())[0].stop_token_ids == ()


def test_lampe_cuts_its_own_prompts_of_narrativeqa_alone(files: Path) -> None:
    for task, cut in (("narrativeqa", True), ("hotpotqa", False)):
        (first, _) = _prompts(task, "lampe", Letters(LLAMA3), length=1024, release_prompts=True)
        assert (first.cut_tokens > 0) is cut
        assert _text(first).count("<|start_header_id|>") == 3
    (first, _) = _prompts(
        "narrativeqa", "lampe", Letters(LLAMA3), length=1024, release_prompts=True
    )
    assert _text(first).startswith(
        "<s><s><|begin_of_text|>"
    )  # special tokens survive the cut, and one more is added


def test_lampe_cuts_every_prompt_of_other_methods(files: Path) -> None:
    (first, _) = _prompts("hotpotqa", "lampe", Letters(LLAMA3), length=1024)
    assert first.cut_tokens > 0
    assert _text(first).startswith("<s><|begin_of_text|>")
    assert len(first.ids) == 1024  # one token less was decoded, one was added


def test_lampe_wraps_mistral_and_closes_it(files: Path) -> None:
    (first, _) = _prompts("hotpotqa", "lampe", Letters(MISTRAL), release_prompts=True)
    assert _text(first).startswith("<s><s>[INST] Read this.")
    assert _text(first).endswith("Answer: [/INST]</s>")


def test_longbench_e_has_the_scores_of_three_bands(files: Path) -> None:
    (task,) = find_tasks(("longbench-e/qasper",))
    rows = [
        {"score": score, "extras": {"length": n}}
        for score, n in ((1, 3999), (0, 4000), (1, 7999), (1, 8000))
    ]
    score = LongBenchE().cell_score(task, rows, LongBenchE().protocol("fair"))
    assert score.value == 75
    assert list(score.details.values()) == [100, 50, 100]
    assert len(_prompts("qasper", "fair", Letters(), bench=LongBenchE)) == 2


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"{", r"hotpotqa.jsonl:1: is not JSON"),
        (b"[1]\n", r"hotpotqa.jsonl:1: is not a JSON object"),
        (b'{"input": "a"}\n', r"hotpotqa.jsonl:1: has no 'context'"),
        (
            json.dumps(longbench_row("x", 0) | {"answers": "a"}).encode(),
            "'answers': .*list",
        ),
        (b"\n", r"hotpotqa.jsonl: has no rows"),
        (b"\xff\xfe", r"hotpotqa.jsonl:1: is not JSON"),
    ],
)
def test_broken_data_is_reported(files: Path, line: bytes, message: str) -> None:
    (files / "data" / "hotpotqa.jsonl").write_bytes(line)
    with pytest.raises(UserError, match=message):
        _prompts("hotpotqa", "fair", Letters())


def test_prompts_of_another_file_are_reported(files: Path) -> None:
    pin(files, "longbench", "dataset2prompt.json", b"{}")
    with pytest.raises(UserError, match=r"dataset2prompt\.json: .*'hotpotqa'"):
        _prompts("hotpotqa", "fair", Letters())


@pytest.fixture
def official() -> Path:
    """Return the folder with the official prompt files and the data of three tasks."""
    folder = DATA / "longbench"
    if not folder.exists():
        pytest.skip(f"no LongBench files under {DATA}; LAMPE_DATA names their folder")
    return folder


def test_lampes_templates_are_its_authors_file(official: Path) -> None:
    """Built from the official file they hash like theirs (scar-on/LaMPE at 4e3c91f)."""
    templates = json.loads(
        (official / "config" / "dataset2prompt.json").read_text(encoding="utf-8")
    )
    built = {task: llama3_template(task, template) for task, template in templates.items()}
    written = json.dumps(built, ensure_ascii=False, indent=4)
    assert (
        sha256(written.encode()).hexdigest()
        == "c72db214ea719b48aba95c6d3fdfcfe5ae92fb0c033a64237ae5d8b00c264938"
    )


@pytest.mark.parametrize("task", ["multi_news", "multifieldqa_zh", "passage_retrieval_zh"])
@pytest.mark.parametrize("protocol", ["fair", "official", "lampe"])
def test_real_prompts_are_the_template_filled(
    official: Path, tmp_path: Path, task: str, protocol: str
) -> None:
    template = json.loads(
        (official / "config" / "dataset2prompt.json").read_text(encoding="utf-8")
    )[task]
    with (official / "raw" / f"{task}.jsonl").open(encoding="utf-8") as lines:
        rows = [json.loads(line) for line in islice(lines, 200)]
    for name in ("config/dataset2prompt.json", "config/dataset2maxlen.json", f"raw/{task}.jsonl"):
        (tmp_path / Path(name).name).symlink_to(official / name)
    (bench_task,) = find_tasks((f"longbench/{task}",))
    request = SampleRequest(
        Letters(), 1 << 30, 200, LongBench().protocol(protocol), data_dir=tmp_path
    )  # type: ignore[arg-type]
    prompts = list(LongBench().samples(bench_task, request))
    assert len(prompts) == 200
    for prompt, row in zip(prompts, rows, strict=True):
        assert Letters().decode(list(prompt.ids)[1:]) == template.format(**row)
        assert prompt.references == row["answers"]


def test_a_real_tokenizer_is_cut_to_the_length(
    files: Path, pocket: tuple[object, PreTrainedTokenizerBase]
) -> None:
    (bench_task,) = find_tasks(("longbench/hotpotqa",))
    for prompt in LongBench().samples(
        bench_task, SampleRequest(pocket[1], 300, 2, LongBench().protocol("fair"))
    ):
        assert len(prompt.ids) + prompt.max_new_tokens == 300


def test_a_prompt_has_the_hash_of_its_context(files: Path) -> None:
    for index, prompt in enumerate(_prompts("hotpotqa", "fair", Letters())):
        context = longbench_row("hotpotqa", index)["context"]
        assert prompt.document_sha256 == sha256(context.encode()).hexdigest()
