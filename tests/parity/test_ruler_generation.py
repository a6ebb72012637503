"""Our RULER samples have the form and the size of those that RULER's own generators made.

The wording is taken from the samples themselves: every sentence is upstream's, none of them stands here.
"""

import json
import random
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from statistics import median
from typing import Any

import pytest
from nltk.tokenize.punkt import PunktSentenceTokenizer

from lampe_eval.ruler import (
    RulerSample,
    SampleSpec,
    SharedCorpora,
    build_sample,
    document_questions,
    ruler_needles,
    ruler_wording,
    sample_spec,
    shared_corpora,
    variable_tracking,
)
from tests.lampe_eval.ruler.ruler_examples import CARDS, ESSAY_TASKS
from tests.parity.data import DATA

FIXTURES = DATA / "ruler" / "generated_fixtures"
if not FIXTURES.is_dir():
    pytest.skip(
        f"no samples of RULER under {DATA}; LAMPE_DATA names their folder", allow_module_level=True
    )

UNITS = {
    "niah_single_1": 162,
    "niah_single_2": 3230,
    "niah_single_3": 3224,
    "niah_multikey_1": 3198,
    "niah_multikey_2": 277,
    "niah_multikey_3": 138,
    "niah_multivalue": 3197,
    "niah_multiquery": 3175,
    "vt": 145,
    "cwe": 268,
    "qa_1": 58,
    "qa_2": 99,
}
"""Units that upstream's search found at 4096 tokens; of questions, documents in the samples."""


class Words:
    """The tokenizer that the samples were made with: words and signs."""

    def __init__(self) -> None:
        self.numbers: dict[str, int] = {}

    def __call__(self, texts: list[str], **_: object) -> dict[str, list[list[int]]]:
        split = [re.findall(r"\w+|[^\w\s]", text) for text in texts]
        return {
            "input_ids": [
                [self.numbers.setdefault(word, len(self.numbers)) for word in text]
                for text in split
            ]
        }


@cache
def samples(task: str) -> list[dict[str, Any]]:
    lines = (
        (FIXTURES / f"{task}_regex4096_seed42_n3.jsonl").read_text(encoding="utf-8").splitlines()
    )
    return [json.loads(line) for line in lines]


def slotted(text: str, *slots: tuple[str, str]) -> str:
    for value, slot in slots:
        assert value in text
        text = text.replace(value, slot)
    return text


@cache
def upstream(folder: Path) -> ruler_wording.RulerWording:
    """Upstream's wording, as its source files would say it."""
    several, noise = samples("niah_multiquery")[0], samples("niah_single_1")[0]
    head, _, question = (
        several["input"].partition("\n")[0],
        None,
        several["input"].rpartition("\n")[2],
    )
    keys = re.search(r"for (\S+, \S+, \S+, and \S+) ", question)
    assert keys
    kind = ("numbers", "{type_needle_v}")
    niah_template = (
        slotted(f"{head}\n", kind) + "{context}\n" + slotted(question, kind, (keys[1], "{query}"))
    )
    lines = noise["input"].split("\n")
    needle = next(line for line in lines if noise["outputs"][0] in line)
    key = re.search(r"(\S+-\S+) is", needle) or re.search(r"(\S+-\S+)", needle)
    assert key

    tracked = samples("vt")[0]
    main = tracked["input"].rpartition("\n\n")
    value = tracked["input"].rpartition("value ")[2].split()[0]
    instruction, question = (
        f"{main[0].rpartition(chr(10))[2]}\n\n",
        tracked["input"].rpartition("\n")[2],
    )

    def prompt(task: str) -> tuple[str, str, str]:
        row = samples(task)[0]
        return row["input"], row["answer_prefix"], row["input"].rpartition("\n")[2]

    cwe, cwe_prefix, cwe_question = prompt("cwe")
    fwe, fwe_prefix, fwe_question = prompt("fwe")
    asked, qa_prefix, qa_question = prompt("qa_1")
    heading = re.search(r"^(\w+) 1:\n", asked, re.MULTILINE)
    assert heading
    asked_head = asked[: heading.start()]
    instruction_again = asked.rpartition("\n\n")[0].rpartition("\n\n")[2]
    query = re.sub(r"(?<=: ).*", "{query}", qa_question)
    first_words = re.match(r"(.*?\. )\.\.\. ", fwe)
    assert first_words
    tasks = {
        "niah": (niah_template, slotted(several["answer_prefix"], kind, (keys[1], "{query}"))),
        "variable_tracking": (
            f"{tracked['input'].partition(chr(10))[0]}\n\n{{context}}\n{slotted(question, (value, '{query}'))}",
            slotted(tracked["answer_prefix"], (value, "{query}"), (" 5 ", " {num_v} ")),
        ),
        "common_words_extraction": (
            f"{cwe.partition(chr(10))[0]}\n{{context}}\n{cwe_question}",
            cwe_prefix,
        ),
        "freq_words_extraction": (
            f"{fwe[: first_words.end(1)]}{{context}}\n{fwe_question}",
            fwe_prefix,
        ),
        "qa": (f"{asked_head}{{context}}\n\n{instruction_again}\n\n{query}", qa_prefix),
    }
    assert instruction.strip() in tasks["variable_tracking"][0] or instruction.strip() == ""
    slots = slotted(needle, kind, (key[1], "{key}"), (noise["outputs"][0], "{value}"))
    source = {
        "constants.py": f"TASKS = { {name: {'template': t, 'answer_prefix': p} for name, (t, p) in tasks.items()}!r}\n",
        "niah.py": f"needle = {slots!r}\nhaystack = {lines[1]!r}\n",
        "qa.py": f"DOCUMENT_PROMPT = {heading[1] + ' {i}:' + chr(10) + '{document}'!r}\n",
    }
    for name, text in source.items():
        (folder / name).write_text(text, encoding="utf-8")
    return ruler_wording.read_upstream_wording(*(folder / name for name in source), is_2024=False)


@pytest.fixture(autouse=True)
def official(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> ruler_wording.RulerWording:
    """Upstream's wording, texts of the fixtures, and Punkt without its tables, which are not here."""
    found = upstream(_folder(tmp_path_factory))
    corpora = {
        "ruler/dev-v2.0.json": "mini_squad.json",
        "ruler/hotpot_dev_distractor_v1.json": "mini_hotpotqa.json",
    }
    essays = DATA / "ruler" / "PaulGrahamEssays.json"
    monkeypatch.setattr(sample_spec, "load_wording", lambda name, data_dir: found)
    monkeypatch.setattr(
        document_questions, "path_of", lambda name, data_dir: FIXTURES / corpora[name]
    )
    monkeypatch.setattr(shared_corpora, "path_of", lambda name, data_dir: essays)
    monkeypatch.setattr(shared_corpora, "punkt", lambda data_dir: PunktSentenceTokenizer())
    return found


_FOLDERS: list[Path] = []


def _folder(factory: pytest.TempPathFactory) -> Path:
    if not _FOLDERS:
        _FOLDERS.append(factory.mktemp("upstream"))
    return _FOLDERS[0]


CORPORA = SharedCorpora(Words())  # type: ignore[arg-type]


@cache
def ours(task: str, index: int) -> RulerSample:
    return build_sample(
        task, CARDS[task], SampleSpec(CORPORA, 4096, wording_name="official", exact=False), index
    )


@pytest.mark.parametrize("task", UNITS)
def test_as_many_units_fit(task: str) -> None:
    units = [ours(task, index).units for index in range(9)]
    assert abs(median(units) - UNITS[task]) <= (
        2 if task in ("cwe", "qa_2") else 1
    )  # their units differ in size


@pytest.mark.parametrize("task", CARDS)
def test_no_sample_is_longer_than_the_length(task: str) -> None:
    for index in range(9):
        built = ours(task, index)
        tokens = (
            len(CORPORA.tokenizer.encode_beginning(f"{built.text}{built.answer_prefix}"))
            + CARDS[task].max_new_tokens
        )
        assert 4096 - 130 <= tokens <= 4096
        assert tokens >= max(row["length"] for row in samples(task)) - 130


def test_the_invented_text_is_as_long() -> None:
    words = [len(str(ours("fwe", index).text).split()) for index in range(3)]
    theirs = [len(row["input"].split()) for row in samples("fwe")]
    assert all(
        0 <= mine - other <= 128 for mine, other in zip(words, theirs, strict=True)
    )  # upstream's step


def test_the_example_of_variables_has_as_many_lines(official: ruler_wording.RulerWording) -> None:
    for text in (str(ours("vt", 0).text), samples("vt")[0]["input"]):
        assert (
            text.partition(official.templates["vt"].answer_prefix.partition("{")[0])[0].count(
                official.filler
            )
            == 17
        )


def shape(task: str, text: str, official: ruler_wording.RulerWording) -> str:
    """A sample with all that is drawn taken out, and runs of the same made one."""
    if task in ESSAY_TASKS:
        head, _, rest = text.partition("\n")
        text = f"{head}\n#\n{rest.rpartition(chr(10))[2]}"
    for pattern, put in [
        (re.escape(official.filler), "#"),
        (r"[0-9a-f]{8}-[0-9a-f-]{27}", "UUID"),
        (r"\b(?!VAR\b)[A-Z]{3}(?:[A-Z]{2})?\b", "NAME"),
        (r"\b\d{5,7}\b", "N"),
        (r"(?<=for )\S.*?-.*?(?= is: | mentioned )", "KEY"),
        (r"\b\d+\. [a-z][a-z '-]*?(?=$| \d+\. |\n)", "ITEM"),
        (
            r"(?<= )(?:\.\.\.|[a-z]{6})(?= (?:\.\.\. |[a-z]{6} )*(?:\.\.\.|[a-z]{6})\n)|(?<=\.\.\. )[a-z]{6}\b",
            "WORD",
        ),
        (r"(?<=WORD )(?:\.\.\.|[a-z]{6})(?=\n)", "WORD"),
        (r"^(\w+) \d+:\n(?s:.*?)\n\n", r"\1\n\n"),
        (r"\bsite \d+-\d+|hill \d+", "PLACE"),
    ]:
        text = re.sub(pattern, put, text, flags=re.MULTILINE)
    while (shorter := re.sub(r"(?<!\w)([^\n ]*(?:[^\n]*\n+|[ ]))\1+", r"\1", text)) != text:
        text = shorter
    return text


@pytest.mark.parametrize("task", CARDS)
def test_samples_have_the_same_shape(task: str, official: ruler_wording.RulerWording) -> None:
    theirs = {shape(task, row["input"] + "\n", official) for row in samples(task)}
    mine = {shape(task, f"{ours(task, index).text}\n", official) for index in range(3)}
    if task in ("niah_single_1", "vt"):  # a needle may stand in the first line
        theirs, mine = ({text.replace("#\n", "") for text in texts} for texts in (theirs, mine))
    assert mine == theirs
    assert {shape("vt", row["answer_prefix"], official) for row in samples(task)} == {
        shape("vt", ours(task, index).answer_prefix, official) for index in range(3)
    }


@pytest.mark.parametrize("task", ESSAY_TASKS)
def test_needles_in_essays_come_out_the_same_to_the_byte(
    task: str, official: ruler_wording.RulerWording
) -> None:
    essays = CORPORA.essays(3800, from_documents=False, repeat=True)
    sentence = re.escape(official.needle)
    for slot in ("type_needle_v", "key", "value"):
        sentence = sentence.replace(re.escape(f"{{{slot}}}"), r"\S+")
    for row in samples(task):
        context = row["input"].partition("\n")[2].rpartition("\n")[0]
        needles = re.findall(sentence, context)
        assert len(needles) == max(1, len(row["outputs"]), 4 if task == "niah_multikey_1" else 1)
        places = [len(part.split()) for part in re.split(sentence, context)]
        units = essays.piece_counts.tolist().index(sum(places))
        sentences = [
            *essays.sentence_starts[essays.sentence_starts < sum(places)].tolist(),
            sum(places),
        ]
        spots = [sentences.index(sum(places[: i + 1])) for i in range(len(needles))]
        at = {int((len(sentences) - 1) * depth / 100): depth for depth in ruler_needles.DEPTHS}
        depths = [at[spot] for spot in spots]
        parts = list(
            ruler_needles.insert_in_essays(essays, units, depths, needles, join_empty=True)
        )
        assert CORPORA.tokenizer.join_text(parts) == context


class Placed(random.Random):
    """Random places that are known."""

    def __init__(self, places: list[int]) -> None:
        super().__init__(0)
        self.places = places

    def sample(self, population: Any, k: int, **_: Any) -> list[int]:
        assert k == len(self.places)
        return self.places


def test_chains_come_out_the_same_to_the_byte(official: ruler_wording.RulerWording) -> None:
    filler = CORPORA.tokenizer.build_table([f"{official.filler}\n"])
    for row in samples("vt"):
        prompt = row["input"].rpartition(official.templates["vt"].instruction)[2]
        lines = prompt.split("\n")[:-1]
        at = [i for i, line in enumerate(lines) if line != official.filler]
        number = lines[at[0]].rpartition(" ")[2]
        prompt_of_chain = variable_tracking.TrackingPrompt.from_chains(
            variable_tracking.VariableChains((tuple(row["outputs"]),), (number,)), official
        )
        parts = prompt_of_chain.parts(
            Placed([place - i for i, place in enumerate(at)]), filler, len(lines) - len(at)
        )
        assert CORPORA.tokenizer.join_text(parts) == official.templates["vt"].instruction + prompt
        assert prompt_of_chain.template.answer_prefix == row["answer_prefix"]


def test_our_own_sentences_are_not_upstreams(official: ruler_wording.RulerWording) -> None:
    def sentences(of: ruler_wording.RulerWording) -> Iterator[str]:
        texts = [of.needle, of.filler, of.document]
        texts += [
            text
            for item in of.templates.values()
            for text in (item.instruction, item.question, item.answer_prefix)
        ]
        return (
            part.strip()
            for text in texts
            for part in re.split(r"[.?!:\n]", text)
            if len(part.split()) > 3
        )

    assert not set(sentences(ruler_wording.OWN)) & set(sentences(official))
    package = Path(ruler_wording.__file__).parent
    source = " ".join(
        " ".join(path.read_text(encoding="utf-8").split()) for path in package.glob("*.py")
    )
    assert not [sentence for sentence in sentences(official) if sentence in source]
