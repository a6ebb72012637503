"""Wordings read from source files of upstream's structure; the sentences here are invented."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lampe_eval.errors import UserError
from lampe_eval.ruler import (
    RulerSample,
    SampleSpec,
    SharedCorpora,
    build_sample,
    ruler_wording,
    sample_spec,
)
from tests.lampe_eval.ruler.ruler_examples import CARDS, shared_corpora

TASKS = {
    "niah": {
        "tokens_to_generate": 128,
        "template": "Some {type_needle_v} are here, answers follow.\n{context}\n"
        "Tell what are all of {query}!",
        "answer_prefix": " The {type_needle_v} of {query} are",
    },
    "variable_tracking": {
        "template": "Mind the lines.\n\n{context}\nWho has {query}?",
        "answer_prefix": " {num_v} have {query}: ",
    },
    "common_words_extraction": {
        "template": "Look.\n{context}\nWhich ten?",
        "answer_prefix": " Ten:",
    },
    "freq_words_extraction": {
        "template": "Look. {context}\nWhich three?",
        "answer_prefix": " Three:",
    },
    "qa": {"template": "Read.\n\n{context}\n\nNow: {query}", "answer_prefix": " So:"},
}
NIAH = """
import json
needle = "Of {type_needle_v}, {key} has {value}."
if args.type_haystack == 'essay':
    haystack = json.load(open(path))['text']
elif args.type_haystack == 'noise':
    haystack = "Hum. Hum hum."
elif args.type_haystack == 'needle':
    haystack = needle
"""
QA = 'DOCUMENT_PROMPT = "Page {i}:\\n{document}"\n'


def write_sources(
    folder: Path, tasks: Any = TASKS, niah: str = NIAH, document: str = QA
) -> tuple[Path, Path, Path]:
    paths = folder / "constants.py", folder / "niah.py", folder / "qa.py"
    for path, source in zip(paths, (f"TASKS = {tasks!r}\n", niah, document), strict=True):
        path.write_text(source, encoding="utf-8")
    return paths


@pytest.fixture(params=[False, True], ids=["official", "2024"])
def upstream(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> SampleSpec:
    wording = ruler_wording.read_upstream_wording(*write_sources(tmp_path), is_2024=request.param)
    monkeypatch.setattr(sample_spec, "load_wording", lambda name, data_dir: wording)
    corpora = SharedCorpora(shared_corpora().tokenizer.tokenizer)
    name: ruler_wording.WordingName = "2024" if request.param else "official"
    return SampleSpec(corpora, 5000, wording_name=name, exact=False)


def test_sentences_are_read_from_the_sources(tmp_path: Path) -> None:
    wording = ruler_wording.read_upstream_wording(*write_sources(tmp_path), is_2024=False)
    niah = wording.templates["niah"]
    assert niah.instruction == "Some {type_needle_v} are here, answers follow.\n"
    assert wording.templates["qa"].question == "\n\nNow: {query}"
    assert wording.needle == "Of {type_needle_v}, {key} has {value}."
    assert wording.filler == "Hum. Hum hum."
    assert wording.document == "Page {i}:\n{document}"
    assert not wording.is_own


def test_one_value_makes_the_template_singular() -> None:
    template = ruler_wording.QuestionTemplate(
        "Some are all answers are", "what are all of", "Some are"
    )
    assert ruler_wording.to_singular(template) == ruler_wording.QuestionTemplate(
        "A is answer is", "what is of", "A is"
    )


def sample(task: str, spec: SampleSpec, index: int = 0) -> RulerSample:
    return build_sample(task, CARDS[task], spec, index)


def test_niah_in_upstreams_wording(upstream: SampleSpec) -> None:
    prompt = sample("niah_single_1", upstream)
    text = str(prompt.text)
    assert text.startswith("A number is here, answer follow.\nHum. Hum hum.\n")
    assert text.count("Hum. Hum hum.\n") == prompt.units
    assert f"\nOf numbers, {text.rpartition(' ')[2][:-1]} has {prompt.outputs[0]}.\n" in text
    assert text.rpartition("\n")[2].startswith("Tell what is of ")
    assert prompt.answer_prefix.startswith(" The number of ")
    several = sample("niah_multikey_2", upstream)
    assert str(several.text).count("Of numbers, ") == several.units + 1


def test_vt_in_upstreams_wording(upstream: SampleSpec) -> None:
    join = " " if upstream.wording_name == "2024" else "\n"
    texts = [str(sample("vt", upstream, index).text) for index in range(2)]
    examples = [text.partition("\n\nMind the lines.")[0] for text in texts]
    assert (examples[0] == examples[1]) == (upstream.wording_name == "2024")
    assert examples[0].startswith("Mind the lines.\n\nHum. Hum hum.")
    assert " 5 have " in examples[0]
    names = examples[0].rpartition(":  ")[2].split()
    assert all(len(name) == 3 for name in names)
    assert f"{join}VAR {names[1]} = VAR {names[0]} {join}Hum" in examples[0]


def test_other_tasks_in_upstreams_wording(upstream: SampleSpec) -> None:
    cwe = str(sample("cwe", upstream).text)
    assert cwe.startswith("Look.\n1. ")
    assert cwe.endswith("\nWhich ten?")
    assert "\nWhich ten? Ten: 1. " in cwe
    assert cwe.count("Look.\n1. ") == 2
    fwe = str(sample("fwe", upstream).text)
    assert fwe.startswith("Look. ")
    assert not fwe.startswith("Look.  ")
    qa = sample("qa_2", upstream)
    assert str(qa.text).startswith("Read.\n\nPage 1:\nTitle ")
    assert str(qa.text).endswith("\n\nNow: Which hill is 0?")
    assert str(qa.text).count("\n\nPage ") == qa.units


@pytest.mark.parametrize(
    "task", ["niah_single_1", "niah_multikey_3", "vt", "cwe", "fwe", "qa_1", "qa_2"]
)
def test_upstreams_wording_fills_a_length_too(upstream: SampleSpec, task: str) -> None:
    prompt = sample(task, replace(upstream, exact=True))
    assert prompt.ids is not None
    assert len(prompt.ids) + len(prompt.after) + CARDS[task].max_new_tokens == upstream.length


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tasks": []}, r"constants\.py: .*'niah'"),
        (
            {"tasks": {**TASKS, "qa": {"template": "no slot", "answer_prefix": ""}}},
            r"constants\.py: .*'qa'",
        ),
        ({"tasks": {**TASKS, "qa": {"template": "{context}"}}}, r"constants\.py: .*'qa'"),
        ({"niah": "needle = 3\n"}, r"niah\.py: 'needle' is 0 texts"),
        ({"niah": NIAH + 'haystack = "Another."\n'}, r"niah\.py: 'haystack' is 2 texts"),
        ({"document": "DOCUMENT_PROMPT = 'no slot'\n"}, r"qa\.py: 'DOCUMENT_PROMPT' is 0 texts"),
    ],
)
def test_sources_of_another_structure_are_refused(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        ruler_wording.read_upstream_wording(*write_sources(tmp_path, **change), is_2024=False)


def test_missing_sources_are_named_with_the_command_that_fetches_them(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"ruler/constants-2024\.py.*lampe-eval data fetch"):
        ruler_wording.load_wording("2024", tmp_path)
