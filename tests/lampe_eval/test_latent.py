"""Latent needles: what a sample holds, its exact length, and who is right."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lampe_eval.benches import BENCHES, find_tasks
from lampe_eval.benches.bench import Prompt, SampleRequest
from lampe_eval.benches.latent import draw_needles, needle_set
from lampe_eval.errors import UserError
from lampe_eval.scoring import latent_metrics

BENCH = BENCHES["latent"]
TASKS = {task.name: task for task in find_tasks(("latent",)) if task.name != "nolima"}
Pocket = tuple[PreTrainedModel, PreTrainedTokenizerBase]


@pytest.mark.parametrize("name", TASKS)
def test_one_sentence_answers_and_the_others_do_not(name: str) -> None:
    card = TASKS[name].card
    content = needle_set()
    seen = set()
    for index in range(300):
        draw = draw_needles(card, 0, index)
        seen.add((draw.needle.id, draw.depths[0]))
        needle, *others = draw.sentences
        assert needle in {
            wording.format(name=draw.name) for wording in (draw.needle.needle, draw.needle.inverted)
        }
        named = [name for name in content.names if any(name in other for other in others)]
        assert len(named) == card.decoys and draw.name not in named
        wordings = [
            (one, wording.partition("{name}"))
            for one in content.needles
            for wording in (one.needle, one.inverted)
        ]
        decoys = [
            one.id
            for other in others[: card.decoys]
            for one, (before, _, after) in wordings
            if other.startswith(before) and other.endswith(after)
        ]
        assert len(decoys) == card.decoys
        assert not {draw.needle.id, *draw.needle.clash} & set(decoys)
        if card.distractor:
            assert draw.needle.topic in draw.sentences[-1]
            assert abs(draw.depths[-1] - draw.depths[0]) >= 20 - 1e-9
    assert len(seen) == 300


def draw(
    name: str, tokenizer: PreTrainedTokenizerBase, length: int, **more: object
) -> list[Prompt]:
    request = SampleRequest(tokenizer, length, 12, BENCH.protocol("fair"), **more)  # type: ignore[arg-type]
    return list(BENCH.samples(TASKS[name], request))  # type: ignore[arg-type]


def test_prompts_have_their_exact_length(pocket: Pocket) -> None:
    tokenizer = pocket[1]
    for length in (2000, 4099):
        for index, sample in enumerate(draw("one_hop_distractor", tokenizer, length)):
            assert len(sample.ids) + sample.max_new_tokens == length
            text = str(tokenizer.decode(list(sample.ids)))
            drawn = draw_needles(TASKS["one_hop_distractor"].card, 0, int(sample.id.split("/")[-1]))
            assert all(sentence in text for sentence in drawn.sentences)
            assert text.endswith(f"Question: {drawn.question}\nAnswer:")
            assert sample.references == [drawn.name]
            assert abs(sample.meta["placed_depth"] - sample.meta["depth"]) < 6, index


def test_tasks_share_their_haystacks(pocket: Pocket) -> None:
    hashes = [[s.document_sha256 for s in draw(name, pocket[1], 2000)] for name in TASKS]
    assert hashes[0] != hashes[2]  # the distractor takes tokens from the haystack
    assert len(set(hashes[0])) == 12


def test_sentences_that_could_answer_are_left_out(pocket: Pocket, tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    words = sorted({word for needle in needle_set().needles for word in needle.avoid})
    lines = [f"There was {word} in it." for word in words]
    text.write_text(" ".join([*lines, "Wilma came too.", "The door was shut.", "It was late."]))
    for sample in draw("two_hop", pocket[1], 1500, source=text):
        body = str(pocket[1].decode(list(sample.ids))).partition(" Text:")[2]
        avoided = next(n for n in needle_set().needles if n.id == sample.extras["needle"]).avoid
        assert not [word for word in avoided if f"There was {word} in it." in body]
        assert "Wilma came too." not in body


def test_a_length_that_is_too_short_names_one_that_serves(pocket: Pocket) -> None:
    with pytest.raises(UserError, match="--lengths") as refused:
        draw("two_hop", pocket[1], 100)
    (least,) = re.findall(r"at least (\d+)", str(refused.value))
    assert len(draw("two_hop", pocket[1], int(least))) == 12


@pytest.mark.parametrize(
    ("prediction", "right"),
    [
        ("Noor", True),
        (" It is Noor.", True),
        ("Noor's bees", True),
        ("Noor or Ulla", False),
        ("Noorina", False),
        ("noor", False),
        ("", False),
    ],
)
def test_own_scorer(prediction: str, right: bool) -> None:
    assert latent_metrics.one_name(prediction, ["Noor"], needle_set().names) == right


NOLIMA_NEEDLE = {
    "id": "0401",
    "needle": "{CHAR} owns a {1}.",
    "system_prompt": "",
    "questions": {"onehop": "Who has a {1}?"},
    "tests": {"T1": {"input_args": ["barge"]}, "T2": {"input_args": ["loom"]}},
    "character_set": ["Ilse", "Otto"],
}


def write_copy(folder: Path, **changes: Any) -> None:
    for name in ("needlesets", "haystack", "evaluation"):
        (folder / name).mkdir()
    needles = json.dumps([NOLIMA_NEEDLE | changes])
    (folder / "needlesets" / "needle_set.json").write_text(needles)
    lines = [f"The {n}th line of a book is short." for n in range(900)]
    (folder / "haystack" / "rand_book_1.txt").write_text("\n".join(lines))
    script = 'T = "Read: {haystack} So: {question}"\n'
    (folder / "evaluation" / "run_tests.py").write_text(script)


def official(pocket: Pocket, folder: Path, limit: int = 60) -> list[Prompt]:
    (task,) = find_tasks(("latent/nolima",))
    request = SampleRequest(pocket[1], 500, limit, BENCH.protocol("official"), data_dir=folder)
    return list(BENCH.samples(task, request))  # type: ignore[arg-type]


def test_a_copy_of_nolima_is_read(pocket: Pocket, tmp_path: Path) -> None:
    write_copy(tmp_path)
    samples = official(pocket, tmp_path)
    assert len({sample.id for sample in samples}) == 52  # 2 tests at 26 depths of one book
    for sample in samples:
        text = str(pocket[1].decode(list(sample.ids)))
        thing = "barge" if "T1" in sample.id else "loom"
        assert f"{sample.references[0]} owns a {thing}." in text
        assert text.rstrip().endswith(f"So: Who has a {thing}?")
        assert sample.references[0] in ("Ilse", "Otto")


def test_a_copy_of_nolima_that_lacks_files_or_fields_says_which(
    pocket: Pocket, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=r"needle_set.json, run_tests.py, rand_book_1.txt"):
        official(pocket, tmp_path)
    write_copy(tmp_path, tests={"T1": {}})
    with pytest.raises(UserError, match=r"needle_set.json: needle 1: has no 'tests.T1.input_args'"):
        official(pocket, tmp_path)
