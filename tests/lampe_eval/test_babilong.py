"""BABILong: worlds, own prompts of an exact length, official data, scorers."""

import json
import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lampe_eval.benches import BENCHES, find_tasks, small_worlds
from lampe_eval.benches.babilong import data_name
from lampe_eval.benches.bench import Prompt, SampleRequest
from lampe_eval.errors import UserError
from lampe_eval.scoring import babilong_metrics
from lampe_eval.scoring.prediction_files import score_folder
from lampe_eval.texts import pocket_language
from tests.fixtures import package, pin
from tests.lampe_eval.world_reader import read_answer
from tests.parity.data import DATA

KINDS = ("one_place", "carried", "before", "map", "gift")
FACTS = {
    "one_place": (2, 10),
    "carried": (4, 24),
    "before": (6, 32),
    "map": (2, 2),
    "gift": (6, 24),
}
BENCH = BENCHES["babilong"]


def check_stories(kind: str, seed: int, count: int) -> None:
    least, most = FACTS[kind]
    for index in range(count):
        story = small_worlds.draw_story(kind, seed, index)
        assert read_answer(story.facts, story.question) == story.answer, story
        assert story.answer in story.labels and story.answer not in story.question
        assert least <= len(story.facts) <= most
        # The facts up to the last needed one give the answer, or one that later facts leave.
        known = story.facts[: story.last_needed + 1]
        if kind in ("one_place", "map", "gift"):
            alone = [story.facts[story.last_needed]]
            assert read_answer(alone, story.question) == story.answer
        else:
            assert read_answer(known, story.question) == story.answer


@pytest.mark.parametrize("kind", KINDS)
def test_a_second_reading_gives_the_same_answers(kind: str) -> None:
    check_stories(kind, 0, 100)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_second_reading_of_many_worlds_gives_the_same_answers(kind: str) -> None:
    check_stories(kind, 1, 2000)


def test_the_second_reading_answers_the_worked_examples() -> None:
    path = DATA / "parity2" / "world_examples.json"
    if not path.is_file():
        pytest.skip(f"no worked examples under {DATA}")
    tasks = json.loads(path.read_text(encoding="utf-8"))["tasks"]
    assert tasks.keys() == set(KINDS)
    for examples in tasks.values():
        for example in examples:
            assert read_answer(example["facts"], example["question"]) == example["answer"]


def test_no_name_is_inside_another_or_in_the_built_in_text() -> None:
    names = [name.lower() for name in small_worlds.NAMES]
    for name in names:
        assert [other for other in names if name in other] == [name]
    words = set(re.findall(r"\w+", pocket_language.text(3, 20_000).lower()))
    assert not words & set(names)


def request(
    tokenizer: PreTrainedTokenizerBase, length: int, limit: int, protocol: str = "fair", **more: Any
) -> SampleRequest:
    return SampleRequest(tokenizer, length, limit, BENCH.protocol(protocol), **more)


def draw(name: str, request: SampleRequest) -> list[Prompt]:
    (task,) = find_tasks((f"babilong/{name}",))
    samples = list(BENCH.samples(task, request))
    assert all(isinstance(sample, Prompt) for sample in samples)
    return samples  # type: ignore[return-value]


@pytest.mark.parametrize("kind", KINDS)
def test_prompts_have_their_exact_length_and_hold_their_facts(
    pocket: tuple[PreTrainedModel, PreTrainedTokenizerBase], kind: str
) -> None:
    tokenizer = pocket[1]
    stories = [small_worlds.draw_story(kind, 0, index) for index in range(6)]
    for length in (2000, 4096):
        samples = draw(kind, request(tokenizer, length, 6))
        for story, sample in zip(stories, samples, strict=True):
            assert len(sample.ids) + sample.max_new_tokens == length
            text = str(tokenizer.decode(list(sample.ids)))
            places = [text.find(fact) for fact in story.facts]
            assert -1 not in places
            assert text.endswith(f"Question: {story.question}\nAnswer:")
            found = read_facts(text)
            assert found == list(story.facts)
            assert 0 <= sample.meta["depth"] <= 100
    assert len({sample.document_sha256 for sample in samples}) == 6


def read_facts(text: str) -> list[str]:
    """Return the sentences of a prompt that name somebody or something of a world, in order."""
    names = "|".join(small_worlds.NAMES)
    body = text.partition(" Text:")[2].partition("\n\nQuestion:")[0]
    parts = [part.strip() for part in re.findall(r"[^.\n]+\.", body)]
    return [part for part in parts if re.search(rf"\b({names})\b", part)]


def test_a_limit_gives_the_first_samples_and_a_seed_others(
    pocket: tuple[PreTrainedModel, PreTrainedTokenizerBase],
) -> None:
    tokenizer = pocket[1]
    few = draw("gift", request(tokenizer, 2000, 2))
    assert draw("gift", request(tokenizer, 2000, 4))[:2] == few
    assert draw("gift", request(tokenizer, 2000, 2, seed=1)) != few


def test_sentences_of_a_source_that_name_somebody_are_left_out(
    pocket: tuple[PreTrainedModel, PreTrainedTokenizerBase], tmp_path: Path
) -> None:
    text = tmp_path / "text.txt"
    text.write_text("The sea is calm. Ingrid's attic is dusty. A boat goes out. The attics burn.\n")
    (sample,) = draw("map", request(pocket[1], 1500, 1, source=text))
    shown = str(pocket[1].decode(list(sample.ids)))
    assert "The sea is calm." in shown and "A boat goes out." in shown
    assert "dusty" not in shown and "burn" not in shown
    text.write_text("Ingrid is in the attic. Amara sings.")
    with pytest.raises(UserError, match="--haystack"):
        draw("map", request(pocket[1], 1400, 1, source=text))


PROMPTS = {
    "DEFAULT_PROMPTS": {
        task: {"instruction": f"Read {task}.", "examples": "Like so.", "post_prompt": "One word."}
        for task in babilong_metrics.LABELS
    }
}
ROW = {"input": " Nora went to the cellar. \n", "question": "Where is Nora? ", "target": "cellar"}


@pytest.fixture
def official(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = package(tmp_path, monkeypatch)
    source = "\n".join(f"{name} = {value!r}" for name, value in PROMPTS.items())
    pin(folder, "babilong", "prompts.py", source.encode())
    return folder / "data"


@pytest.mark.parametrize("layout", ["8k/qa1-00000-of-00001.parquet", "qa1/8k.json"])
def test_official_data_are_read_in_both_layouts(
    official: Path, pocket: tuple[PreTrainedModel, PreTrainedTokenizerBase], layout: str
) -> None:
    path = official / layout
    path.parent.mkdir(parents=True)
    rows = [ROW, ROW | {"target": 7}]
    if path.suffix == ".json":
        path.write_text(json.dumps(rows))
    else:
        pq.write_table(pa.Table.from_pylist([ROW, ROW]), path)
    first, second = draw("qa1", request(pocket[1], 8192, 5, "official"))
    assert pocket[1].decode(list(first.ids)).strip() == (
        "Read qa1.\n\nLike so.\n\nOne word.\n\n<context>\nNora went to the cellar.\n</context>\n\n"
        "Question: Where is Nora?"
    )
    assert (first.references, first.max_new_tokens) == (["cellar"], 20)
    assert ("'target'" in second.error) == (path.suffix == ".json")
    (bare,) = draw("qa1", request(pocket[1], 8192, 1, "official:prompts=bare"))
    assert pocket[1].decode(list(bare.ids)).strip().startswith("<context>")
    (short,) = draw("qa1", request(pocket[1], 8192, 1, "official:prompts=no-examples"))
    assert "Read qa1.\n\n\n\nOne word." in pocket[1].decode(list(short.ids))


def test_a_file_of_another_length_is_not_taken(
    official: Path, pocket: tuple[PreTrainedModel, PreTrainedTokenizerBase]
) -> None:
    pq.write_table(pa.Table.from_pylist([ROW]), official / "qa1-00000-of-00001.parquet")
    with pytest.raises(UserError, match="called 16k"):
        draw("qa1", request(pocket[1], 16384, 1, "official"))


def test_long_data_of_100_samples_are_read(
    official: Path, pocket: tuple[PreTrainedModel, PreTrainedTokenizerBase]
) -> None:
    path = official / "data" / "qa2" / "256k.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps([ROW]))
    (sample,) = draw("qa2", request(pocket[1], 262_144, 1, "official"))
    assert sample.references == ["cellar"]


def test_a_file_of_another_task_is_not_taken(
    official: Path, pocket: tuple[PreTrainedModel, PreTrainedTokenizerBase]
) -> None:
    (official / "256k.json").write_text(json.dumps([ROW]))
    with pytest.raises(UserError, match="called qa1"):
        draw("qa1", request(pocket[1], 262_144, 1, "official"))


@pytest.mark.parametrize(
    ("length", "name"),
    [(256, "0k"), (1024, "1k"), (8000, "8k"), (8192, "8k"), (131072, "128k"), (128000, "128k")],
)
def test_names_of_lengths(length: int, name: str) -> None:
    assert data_name(length) == name


@pytest.mark.parametrize(
    ("prediction", "right"),
    [
        ("attic", True),
        (" The attic.\n", True),
        ("Attic. Or the pantry.", True),
        ("attic\npantry", True),
        ("attic or pantry", False),
        ("atticked", False),
        ("", False),
        ("The violin is in the attic", True),
    ],
)
def test_own_scorer(prediction: str, right: bool) -> None:
    arguments = ("attic", "In which room is the violin now?", small_worlds.ROOMS)
    assert babilong_metrics.labels_alone(prediction, *arguments) == right


def test_predictions_are_texts_whatever_pandas_makes_of_them(tmp_path: Path) -> None:
    path = tmp_path / "qa7_0k_instruction_yes_examples_yes_post_prompt_yes.csv"
    path.write_text(
        ',target,output,question\n0,none,None,How many?\n1,one,"one,\ntwo. three",How many?\n'
        "2,two,,How many?\n3,two\n"
    )
    result = score_folder("babilong", tmp_path)["qa7"]
    assert (result.n, result.skipped, result.nulls) == (3, 1, 1)
    # "one" is inside of "none", so the leaderboard's scorer never grants it.
    assert result.scores == {"babilong": 0.0, "babilong_2024": pytest.approx(200 / 3)}
