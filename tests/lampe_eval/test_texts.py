"""The user's texts: JSON, byte order marks, other formats; sentences of any script."""

import gzip
import json
import os
import stat
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from lampe_eval.benches import BENCHES, find_tasks
from lampe_eval.benches import ruler as ruler_bench
from lampe_eval.benches.bench import Prompt, SampleRequest
from lampe_eval.benches.niah import Niah
from lampe_eval.benches.ruler import Ruler
from lampe_eval.cards import TaskCard, read_card
from lampe_eval.errors import UserError
from lampe_eval.prompts.chat_template import Message
from lampe_eval.prompts.prompt_fitting import fit_prompt
from lampe_eval.prompts.tokenization import encode, encode_start, holds_special_token
from lampe_eval.ruler import RulerSample
from lampe_eval.texts import corpora
from lampe_eval.texts import documents as documents_module
from lampe_eval.texts.documents import documents
from lampe_eval.texts.jsonl_rows import read_rows
from lampe_eval.texts.sentence_ends import sentence_starts, split_word
from tests.e2e import content
from tests.fixtures import package, pin
from tests.lampe_eval.ruler import ruler_examples
from tests.upstream import longbench_row, v2_row

ENGLISH = "The lamp is on. It rains outside! Who knows the way? Stay here. "
CHINESE = "河水慢慢流过古老的村庄，孩子们在岸边玩耍。老人坐在门前的石头上看着远处的山！"
JAPANESE = "静かな町の朝は早い。「魚を買いに行こう。」と彼は言った。市場はもう人でいっぱいだ。"
HINDI = "नदी गाँव के पास बहती है। बच्चे किनारे पर खेलते हैं। बूढ़ा आदमी पहाड़ देखता है। "
THAI = "แม่น้ำไหลผ่านหมู่บ้านเก่าแก่อย่างช้าๆเด็กๆเล่นอยู่ริมฝั่ง"
NO_STOPS = "the river runs by the old mill and the children play on the bank all day long "


def _texts(path: Path) -> list[str]:
    return list(documents(path, seed=0, words=10))


@pytest.mark.parametrize("bom", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize(
    ("name", "content", "texts"),
    [
        ("a.json", {"text": "One.\nTwo."}, ["One.\nTwo."]),
        ("a.json", [{"text": "One."}, {"text": "Two."}], ["One.", "Two."]),
        ("a.json", ["One.", "Two."], ["One.", "Two."]),
        ("a.jsonl", {"text": "One."}, ["One."]),
        ("a.txt", {"text": "One.\nTwo."}, ["One.\nTwo."]),
        ("a", [{"text": "One."}], ["One."]),
        ("a.txt", '{"text": "One."}\n{"text": "Two."}\n', ["One.", "Two."]),
        ("a.txt", "One.", ["One."]),
        ("a.txt", "[1] One.", ["[1] One."]),
        ("a.md", "{One}", ["{One}"]),
    ],
)
def test_texts_are_read_from_what_a_file_holds(
    tmp_path: Path, bom: bytes, name: str, content: Any, texts: list[str]
) -> None:
    text = content if isinstance(content, str) else json.dumps(content)
    (tmp_path / name).write_bytes(bom + text.encode())
    assert _texts(tmp_path / name) == texts


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.json", b"{", "not JSON"),
        ("a.json", b'{"content": "x"}', "'text'"),
        ("a.json", b'[{"text": "x"}, 3]', "part 2"),
        ("a.json", b'{"text": ["x"]}', "'text'"),
        ("a.json", b"[" * 100_000, "nested"),
        ("a.txt", b'{"content": "x"}', "'text'"),
        ("a.csv", b"text\nx\n", "csv"),
        ("a.yaml", b"text: x\n", "yaml"),
        ("A.PDF", b"x", "pdf"),
        ("a.txt", b"%PDF-1.7 x", "pdf"),
        ("a.txt", b"<!DOCTYPE html><p>", "doctype"),
        ("a.txt", b"One.\0Two.", "control characters"),
        ("a.jsonl", b"[" * 100_000, "nested"),
    ],
)
def test_other_formats_are_refused_by_name(
    tmp_path: Path, name: str, content: bytes, reason: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=f"{name}.*{reason}"):
        _texts(tmp_path / name)


def _link_loop(path: Path) -> None:
    path.symlink_to(path)


def _socket(path: Path) -> None:
    os.mknod(path, stat.S_IFSOCK | 0o600)


@pytest.mark.parametrize("inside", [False, True])
@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (os.mkfifo, "not a file"),
        (_socket, "not a file"),
        (_link_loop, "symbolic links"),
        (lambda path: path.symlink_to("/dev/zero"), "not a file"),
    ],
)
def test_what_is_no_plain_file_is_refused(
    tmp_path: Path, make: Callable[[Path], object], reason: str, inside: bool
) -> None:
    make(tmp_path / "a.txt")
    with pytest.raises(UserError, match=f"a.txt.*{reason}|a.txt: no such file"):
        _texts(tmp_path if inside else tmp_path / "a.txt")


def test_folders_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.txt").write_text("One.")
    (tmp_path / "loop").symlink_to(tmp_path)
    assert _texts(tmp_path) == ["One."]
    (tmp_path / "b.txt").symlink_to(tmp_path / "none")
    with pytest.raises(UserError, match=r"b\.txt"):
        _texts(tmp_path)
    monkeypatch.setattr(documents_module, "MAX_FILES", 1)
    with pytest.raises(UserError, match="more than 1 files"):
        _texts(tmp_path)


@pytest.mark.parametrize("source", ["", "."])
def test_an_empty_path_is_no_text(source: str) -> None:
    with pytest.raises(UserError, match="name a file or folder"):
        _texts(Path(source))


def test_sizes_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with gzip.open(tmp_path / "a.jsonl.gz", "wb") as file:
        file.write(b'{"text": "' + b"0" * 100_000)
    monkeypatch.setattr(corpora, "MAX_LINE_LETTERS", 1000)
    with pytest.raises(UserError, match=r"a\.jsonl\.gz:1: .*line"):
        _texts(tmp_path / "a.jsonl.gz")
    (tmp_path / "b.txt").write_text("One two.")
    monkeypatch.setattr(documents_module, "MAX_TEXT_BYTES", 4)
    with pytest.raises(UserError, match=r"b\.txt.*MiB"):
        _texts(tmp_path / "b.txt")


@pytest.mark.parametrize("tokens", [1, 10, 300])
@pytest.mark.parametrize("text", [ENGLISH, CHINESE, THAI, NO_STOPS, " " * 64 + "a"])
def test_the_start_of_a_long_text_has_the_ids_of_the_whole(
    trained: PreTrainedTokenizerBase,
    tokenizer: PreTrainedTokenizerBase,
    text: str,
    tokens: int,
) -> None:
    for model in (trained, tokenizer):
        whole = encode(model, text * 400, is_data=True)
        assert encode_start(model, text * 400, tokens)[:tokens] == whole[:tokens]
    short = encode_start(tokenizer, "One two.", tokens)
    assert short == encode(tokenizer, "One two.", is_data=True)


def test_a_byte_order_mark_is_no_part_of_rows_and_cards(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"a": "1"}\n')
    assert list(read_rows(path, dict)) == [{"a": "1"}]
    card = tmp_path / "card.yaml"
    card.write_bytes(b"\xef\xbb\xbfsamples: 3\nmetric: m\nabout: a\n")
    assert read_card(card, TaskCard).samples == 3


@pytest.fixture
def tokenizer(pocket: tuple[object, PreTrainedTokenizerBase]) -> PreTrainedTokenizerBase:
    """Tokenizer that spells letters of other scripts in bytes."""
    return pocket[1]


@pytest.fixture(scope="module")
def trained() -> PreTrainedTokenizerBase:
    """Tokenizer with tokens of several letters for every script, and special tokens."""
    model = Tokenizer(models.BPE())
    model.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    model.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=900,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=["<s>", "<|im_start|>", "<|im_end|>"],
        show_progress=False,
    )
    model.train_from_iterator([ENGLISH, CHINESE, JAPANESE, HINDI, THAI, NO_STOPS] * 9, trainer)
    chat = (
        "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n"
        "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=model, bos_token="<s>")  # type: ignore[no-untyped-call]
    tokenizer.chat_template = chat
    return tokenizer


def _niah(tokenizer: PreTrainedTokenizerBase, source: Path, length: int) -> list[Prompt]:
    (task,) = find_tasks(("niah/grid",))
    bench = Niah()
    request = SampleRequest(tokenizer, length, 11, bench.protocol("fair:chat=none"), source=source)
    return list(bench.samples(task, request))


@pytest.mark.parametrize(
    "text", [CHINESE, JAPANESE, HINDI, THAI, NO_STOPS, NO_STOPS.replace(" ", "")]
)
@pytest.mark.parametrize("vocabulary", ["pocket", "trained"])
def test_needles_lie_at_their_depth_in_any_script(
    tmp_path: Path,
    tokenizer: PreTrainedTokenizerBase,
    trained: PreTrainedTokenizerBase,
    text: str,
    vocabulary: str,
) -> None:
    model = tokenizer if vocabulary == "pocket" else trained
    source = tmp_path / "a.txt"
    source.write_text("Title.\n" + text * 200, encoding="utf-8")
    for sample in _niah(model, source, 2048):
        assert len(sample.ids) + sample.max_new_tokens == 2048
        assert sample.meta["placed_depth"] == pytest.approx(sample.meta["depth"], abs=12)
        prompt = str(model.decode(list(sample.ids)))
        # No letter is torn apart, except for the one that the end of the haystack cuts.
        assert prompt.count("\ufffd") <= 3
        code = sample.references[0]
        place = 100 * len(prompt[: prompt.index(code)].encode()) / len(prompt.encode())
        assert place == pytest.approx(sample.meta["placed_depth"], abs=9)


@pytest.mark.parametrize(("text", "mark"), [(CHINESE, "。！"), (JAPANESE, "。」"), (HINDI, "।")])
def test_needles_follow_the_ends_of_sentences(
    tmp_path: Path, trained: PreTrainedTokenizerBase, text: str, mark: str
) -> None:
    source = tmp_path / "a.txt"
    source.write_text(text * 100, encoding="utf-8")
    for sample in _niah(trained, source, 1024)[1:]:
        before = str(trained.decode(list(sample.ids))).partition(" The code")[0].rstrip()
        assert before.endswith(tuple(mark))


def test_english_depths_are_those_of_its_sentences(
    tmp_path: Path, trained: PreTrainedTokenizerBase
) -> None:
    source = tmp_path / "a.txt"
    source.write_text(ENGLISH * 100, encoding="utf-8")
    for sample in _niah(trained, source, 1024):
        before = str(trained.decode(list(sample.ids))).partition(" The code")[0].rstrip()
        assert before == "" or before.endswith((".", "!", "?"))
        assert sample.meta["placed_depth"] <= sample.meta["depth"]


@pytest.mark.parametrize("text", [CHINESE, THAI, NO_STOPS, NO_STOPS.replace(" ", "")])
@pytest.mark.parametrize("length", [1024, 2048])
def test_ruler_takes_texts_without_spaces_and_stops(
    tmp_path: Path, trained: PreTrainedTokenizerBase, text: str, length: int
) -> None:
    source = tmp_path / "a.txt"
    source.write_text(text * 300, encoding="utf-8")
    (task,) = find_tasks(("ruler/niah_single_2",))
    bench = Ruler()
    request = SampleRequest(trained, length, 8, bench.protocol("fair:chat=none"), source=source)
    depths = set()
    for sample in bench.samples(task, request):
        assert len(sample.ids) + sample.max_new_tokens == length
        assert sample.meta["placed_depth"] == pytest.approx(sample.meta["depth"], abs=12)
        depths.add(sample.meta["placed_depth"])
    assert len(depths) > 3


@pytest.mark.parametrize(
    ("word", "parts"),
    [
        ("harbour.", ["harbour."]),
        ("https://example.org/" + "a" * 200, ["https://example.org/" + "a" * 200]),
        ("-" * 300, ["-" * 32] * 9 + ["-" * 12]),
        ("一。二！」三", ["一。", "二！」", "三"]),
        ("字" * 40, ["字" * 32, "字" * 8]),
    ],
)
def test_words_of_scripts_without_spaces_are_split(word: str, parts: list[str]) -> None:
    assert split_word(word) == parts
    assert "".join(parts) == word


def test_sentences_of_words() -> None:
    assert sentence_starts("One two. Three 四。 「五。」 six".split()) == [0, 2, 4, 5]
    assert sentence_starts(["x"] * 100) == list(range(100))
    prose = ["One", "two."] * 200
    run_on = sentence_starts([*prose, *["x"] * 300])
    assert run_on == [*range(0, 400, 2), *range(400, 700)]


SPECIAL = "A turn ends in <|im_end|> and begins with <|im_start|>user\nlike that <s>."


def test_special_tokens_in_data_stay_text(tmp_path: Path, trained: PreTrainedTokenizerBase) -> None:
    special: set[int] = set()
    for token in ("<s>", "<|im_start|>", "<|im_end|>"):
        special.update(encode(trained, token))
    assert len(special) == 3
    ids = encode(trained, SPECIAL, is_data=True)
    assert not special & set(ids)
    assert trained.decode(ids) == SPECIAL
    assert special <= set(encode(trained, SPECIAL))
    protocol = Niah().protocol("fair")
    plain, marked = (
        fit_prompt(trained, protocol, Message(text), length=4096, answer_tokens=8).ids
        for text in ("A turn ends.", SPECIAL)
    )
    # Two turns begin and one ends: those of the template, whatever the text says.
    for token in special:
        assert marked.count(token) == plain.count(token)
    cut = fit_prompt(trained, protocol, Message(SPECIAL * 50), length=256, answer_tokens=8)
    for token in special:
        assert cut.ids.count(token) == plain.count(token)
    source = tmp_path / "a.txt"
    source.write_text(SPECIAL * 100, encoding="utf-8")
    for sample in _niah(trained, source, 1024):
        assert not special & set(sample.ids)


def _write_marked_data(folder: Path, text: str) -> None:
    """Write benchmark files with a text in every field that becomes part of a prompt."""
    content.everything(folder)
    rows = [longbench_row("trec", 0) | {"context": text * 40, "input": text}]
    members = {"data/trec.jsonl": rows, "data/narrativeqa.jsonl": rows}
    pin(folder, "longbench", "data.zip", content.archive(members))
    choices = {f"choice_{letter}": text for letter in "ABCD"}
    question = v2_row(context=text * 40, question=text, **choices)
    pin(folder, "longbench-v2", "data.json", json.dumps([question]).encode())
    asked = {"input": text * 40, "instructions": [text], "outputs": ["a"], "evaluation": "exam"}
    for task in ("quality", "sci_fi", "gsm100"):
        pin(folder, "leval", f"{task}.jsonl", content.lines([asked]))
    keys = {"id": 0, "context": text * 40, "input": text, "answer": ["a"]}
    pin(folder, "infinitebench", "passkey.jsonl", content.lines([keys]))
    squad = folder / "squad.json"
    corpus = ruler_examples.write_squad(squad).read_text(encoding="utf-8")
    marked = corpus.replace("What is at", f"{json.dumps(text)[1:-1]} What is at")
    marked = marked.replace("is code", f"{json.dumps(text)[1:-1]} is code")
    pin(folder, "ruler", "dev-v2.0.json", marked.encode())
    (folder / "text.txt").write_text(text * 400, encoding="utf-8")


MARKED_TASKS = {
    "ppl/exact": (2048,),
    "ppl/dense": (2048,),
    "niah/single": (1024, 16384),
    "ruler/niah_single_2": (1024, 16384),
    "ruler/qa_1": (1024, 16384),
    "longbench/trec": (2048, 16384),
    "longbench/narrativeqa": (2048, 16384),
    "longbench-v2/direct": (16384,),
    "longbench-v2/cot": (16384,),
    "leval/quality": (2048, 16384),
    "leval/sci_fi": (2048, 16384),
    "leval/gsm100": (2048, 16384),
    "infinitebench/passkey": (2048, 16384),
}
"""Lengths by task: a short one, at which prompts are truncated, and a long one."""


def _special_counts(
    folder: Path, tokenizer: PreTrainedTokenizerBase, text: str
) -> dict[str, list[list[int]]]:
    """Return how often each prompt has each special token, where all data are one text."""
    special = [encode(tokenizer, token)[0] for token in ("<s>", "<|im_start|>", "<|im_end|>")]
    counts = {}
    for name, lengths in MARKED_TASKS.items():
        (task,) = find_tasks((name,))
        bench = BENCHES[task.bench]
        has_files = task.bench not in ("ppl", "niah", "ruler")
        source = None if has_files or name == "ruler/qa_1" else folder / "text.txt"
        for protocol in ("fair", "official") if has_files else ("fair",):
            for length in lengths:
                request = SampleRequest(
                    tokenizer, length, 1, bench.protocol(protocol), source=source
                )
                (sample,) = bench.samples(task, request)
                ids = list(sample.ids)
                if isinstance(sample, Prompt) and sample.follow_up:
                    ids += sample.follow_up.make_prompt(text).ids
                counts[f"{name} {protocol} {length}"] = [ids.count(token) for token in special]
    return counts


def test_no_bench_takes_data_for_special_tokens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trained: PreTrainedTokenizerBase
) -> None:
    """Special tokens are those of the chat template, whatever the data says."""
    counts = []
    for text in ("A turn ends here. ", f"{SPECIAL} "):
        folder = package(tmp_path / str(len(text)), monkeypatch)
        _write_marked_data(folder, text)
        counts.append(_special_counts(folder, trained, text))
    plain, marked = counts
    assert marked == plain


@pytest.mark.parametrize("protocol", ["official", "lampe"])
def test_rulers_prompts_made_as_text_keep_special_tokens_of_data_as_text(
    trained: PreTrainedTokenizerBase, protocol: str
) -> None:
    request = SampleRequest(trained, 4096, 1, Ruler().protocol(protocol))
    plain, marked = (
        list(ruler_bench._prompt_ids(request, RulerSample(text, None, " So:", ("a",), 1)))
        for text in ("A turn ends.", SPECIAL)
    )
    for token in ("<s>", "<|im_start|>", "<|im_end|>"):
        (special,) = encode(trained, token)
        assert marked.count(special) == plain.count(special)
    assert SPECIAL in str(trained.decode(marked))


@pytest.mark.parametrize("text", [ENGLISH, CHINESE, "<|im_en|> < s > <|", "", "\n\n a"])
@pytest.mark.parametrize("continuation", [False, True])
def test_texts_without_special_tokens_have_the_same_ids(
    trained: PreTrainedTokenizerBase,
    tokenizer: PreTrainedTokenizerBase,
    text: str,
    continuation: bool,
) -> None:
    for model in (trained, tokenizer):
        assert not holds_special_token(model, text)
        as_data = encode(model, text, continuation=continuation, is_data=True)
        assert as_data == encode(model, text, continuation=continuation)


def test_the_documentation_of_python_is_a_corpus(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Versions of Python have other texts, so it is known by its hash; nothing is fetched."""
    source = Path(corpora.PYTHON_DOCS)
    (text,) = documents(source, seed=0, words=10)
    assert len(text) > 300_000
    assert text.startswith('The "assert" statement')
    name, digest = documents_module.digest(source).split()
    assert (name, documents_module.required_files(source)) == ("python-docs", [])
    monkeypatch.setattr("pydoc_data.topics.topics", {"b": "Two.\n", "a": "\nOne."})
    assert list(documents(source, seed=0, words=10)) == ["One.\n\nTwo.\n"]
    assert documents_module.digest(source) != f"{name} {digest}"
    source.write_text("A file of that name comes first.")
    assert list(documents(source, seed=0, words=10)) == ["A file of that name comes first."]


def test_a_python_without_its_documentation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pydoc_data.topics", None)
    with pytest.raises(UserError, match="python-docs"):
        _texts(Path("python-docs"))
