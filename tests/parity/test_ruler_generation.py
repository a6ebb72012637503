"""Our RULER samples have the form and the size of those of the official generators.

The wording is read from the official samples themselves, so this file has none of its sentences.
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
"""Units of the official samples of 4096 tokens; for tasks of questions, documents."""


class Words:
    """Tokenizer of the official samples: words and punctuation marks."""

    def __init__(self) -> None:
        self.numbers: dict[str, int] = {}

    def __call__(self, texts: list[str], **_: object) -> dict[str, list[list[int]]]:
        return {"input_ids": [self._encode(text) for text in texts]}

    def _encode(self, text: str) -> list[int]:
        words = re.findall(r"\w+|[^\w\s]", text)
        return [self.numbers.setdefault(word, len(self.numbers)) for word in words]


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


KIND = ("numbers", "{type_needle_v}")
"""Kind of the values of the needle samples, and its slot."""


@cache
def upstream(folder: Path) -> ruler_wording.RulerWording:
    """Return upstream's wording: written to files like upstream's sources, and read from these."""
    cwe, cwe_prefix, cwe_question = _prompt("cwe")
    fwe, fwe_prefix, fwe_question = _prompt("fwe")
    first_words = re.match(r"(.*?\. )\.\.\. ", fwe)
    assert first_words
    fwe_head = fwe[: first_words.end(1)]
    qa_template, document_prompt = _question_template()
    needle, filler = _needle_and_filler()
    tasks = {
        "niah": _niah_template(),
        "variable_tracking": _tracking_template(),
        "common_words_extraction": (
            f"{_first_line(cwe)}\n{{context}}\n{cwe_question}",
            cwe_prefix,
        ),
        "freq_words_extraction": (f"{fwe_head}{{context}}\n{fwe_question}", fwe_prefix),
        "qa": (qa_template, _prompt("qa_1")[1]),
    }
    constants = {}
    for name, (template, answer_prefix) in tasks.items():
        constants[name] = {"template": template, "answer_prefix": answer_prefix}
    source = {
        "constants.py": f"TASKS = {constants!r}\n",
        "niah.py": f"needle = {needle!r}\nhaystack = {filler!r}\n",
        "qa.py": f"DOCUMENT_PROMPT = {document_prompt!r}\n",
    }
    for name, text in source.items():
        (folder / name).write_text(text, encoding="utf-8")
    return ruler_wording.read_upstream_wording(*(folder / name for name in source), is_2024=False)


def _prompt(task: str) -> tuple[str, str, str]:
    """Return the prompt of a task's first sample, its answer prefix and its last line."""
    row = samples(task)[0]
    return row["input"], row["answer_prefix"], row["input"].rpartition("\n")[2]


def _first_line(text: str) -> str:
    return text.partition("\n")[0]


def _niah_template() -> tuple[str, str]:
    """Return template and answer prefix of the needle tasks."""
    text, answer_prefix, question = _prompt("niah_multiquery")
    keys = re.search(r"for (\S+, \S+, \S+, and \S+) ", question)
    assert keys
    slots = (KIND, (keys[1], "{query}"))
    head = slotted(f"{_first_line(text)}\n", KIND)
    return f"{head}{{context}}\n{slotted(question, *slots)}", slotted(answer_prefix, *slots)


def _needle_and_filler() -> tuple[str, str]:
    """Return the needle with slots for its values, and the line of noise around it."""
    row = samples("niah_single_1")[0]
    value = row["outputs"][0]
    lines = row["input"].split("\n")
    needle = next(line for line in lines if value in line)
    key = re.search(r"(\S+-\S+) is", needle) or re.search(r"(\S+-\S+)", needle)
    assert key
    return slotted(needle, KIND, (key[1], "{key}"), (value, "{value}")), lines[1]


def _tracking_template() -> tuple[str, str]:
    """Return template and answer prefix of variable tracking."""
    text, answer_prefix, question = _prompt("vt")
    value = text.rpartition("value ")[2].split()[0]
    template = f"{_first_line(text)}\n\n{{context}}\n{slotted(question, (value, '{query}'))}"
    instruction = text.rpartition("\n\n")[0].rpartition("\n")[2].strip()
    assert instruction in template or instruction == ""
    return template, slotted(answer_prefix, (value, "{query}"), (" 5 ", " {num_v} "))


def _question_template() -> tuple[str, str]:
    """Return the template of question answering and that of one of its documents."""
    text, _, question = _prompt("qa_1")
    heading = re.search(r"^(\w+) 1:\n", text, re.MULTILINE)
    assert heading
    head = text[: heading.start()]
    repeated_instruction = text.rpartition("\n\n")[0].rpartition("\n\n")[2]
    query = re.sub(r"(?<=: ).*", "{query}", question)
    template = f"{head}{{context}}\n\n{repeated_instruction}\n\n{query}"
    return template, heading[1] + " {i}:\n{document}"


@pytest.fixture(autouse=True)
def official(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> ruler_wording.RulerWording:
    """Use upstream's wording, the fixtures' texts, and Punkt without its tables (not available)."""
    wording = upstream(_folder(tmp_path_factory))
    corpora = {
        "ruler/dev-v2.0.json": "mini_squad.json",
        "ruler/hotpot_dev_distractor_v1.json": "mini_hotpotqa.json",
    }
    essays = DATA / "ruler" / "PaulGrahamEssays.json"
    monkeypatch.setattr(sample_spec, "load_wording", lambda name, data_dir: wording)
    monkeypatch.setattr(
        document_questions, "path_of", lambda name, data_dir: FIXTURES / corpora[name]
    )
    monkeypatch.setattr(shared_corpora, "path_of", lambda name, data_dir: essays)
    monkeypatch.setattr(shared_corpora, "punkt", lambda data_dir: PunktSentenceTokenizer())
    return wording


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
    # The units of these tasks differ in size.
    tolerance = 2 if task in ("cwe", "qa_2") else 1
    assert abs(median(units) - UNITS[task]) <= tolerance


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
    # Upstream adds words in steps of up to 128.
    assert all(0 <= mine - other <= 128 for mine, other in zip(words, theirs, strict=True))


def test_the_example_of_variables_has_as_many_lines(official: ruler_wording.RulerWording) -> None:
    answer_start = official.templates["vt"].answer_prefix.partition("{")[0]
    for text in (str(ours("vt", 0).text), samples("vt")[0]["input"]):
        example = text.partition(answer_start)[0]
        assert example.count(official.filler) == 17


def shape(task: str, text: str, official: ruler_wording.RulerWording) -> str:
    """Return a sample with placeholders for all that is drawn, and repetitions reduced to one."""
    if task in ESSAY_TASKS:
        head, _, rest = text.partition("\n")
        text = f"{head}\n#\n{rest.rpartition(chr(10))[2]}"
    for pattern, placeholder in [
        (re.escape(official.filler), "#"),
        (r"[0-9a-f]{8}-[0-9a-f-]{27}", "UUID"),
        (r"\b(?!VAR\b)[A-Z]{3}(?:[A-Z]{2})?\b", "NAME"),
        (r"\b\d{5,7}\b", "N"),
        (r"(?<=for )\S.*?-.*?(?= is: | mentioned )", "KEY"),
        (r"\b\d+\. [a-z][a-z '-]*?(?=$| \d+\. |\n)", "ITEM"),
        (
            r"(?<= )(?:\.\.\.|[a-z]{6})(?= (?:\.\.\. |[a-z]{6} )*(?:\.\.\.|[a-z]{6})\n)"
            r"|(?<=\.\.\. )[a-z]{6}\b",
            "WORD",
        ),
        (r"(?<=WORD )(?:\.\.\.|[a-z]{6})(?=\n)", "WORD"),
        (r"^(\w+) \d+:\n(?s:.*?)\n\n", r"\1\n\n"),
        (r"\bsite \d+-\d+|hill \d+", "PLACE"),
    ]:
        text = re.sub(pattern, placeholder, text, flags=re.MULTILINE)
    while True:
        shorter = re.sub(r"(?<!\w)([^\n ]*(?:[^\n]*\n+|[ ]))\1+", r"\1", text)
        if shorter == text:
            return text
        text = shorter


@pytest.mark.parametrize("task", CARDS)
def test_samples_have_the_same_shape(task: str, official: ruler_wording.RulerWording) -> None:
    theirs = {shape(task, row["input"] + "\n", official) for row in samples(task)}
    mine = {shape(task, f"{ours(task, index).text}\n", official) for index in range(3)}
    if task in ("niah_single_1", "vt"):
        # A needle may be in the first line, before all filler.
        theirs = {text.replace("#\n", "") for text in theirs}
        mine = {text.replace("#\n", "") for text in mine}
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
    """Random generator that draws these places."""

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
    assert not set(_sentences(ruler_wording.OWN)) & set(_sentences(official))
    package = Path(ruler_wording.__file__).parent
    source = " ".join(
        " ".join(path.read_text(encoding="utf-8").split()) for path in package.glob("*.py")
    )
    assert not [sentence for sentence in _sentences(official) if sentence in source]


def _sentences(wording: ruler_wording.RulerWording) -> Iterator[str]:
    """Yield the sentences of a wording that have more than three words."""
    texts = [wording.needle, wording.filler, wording.document]
    for item in wording.templates.values():
        texts += [item.instruction, item.question, item.answer_prefix]
    for part in re.split(r"[.?!:\n]", "\n".join(texts)):
        if len(part.split()) > 3:
            yield part.strip()
