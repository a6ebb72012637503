"""Small tokenizers, cards and corpora for the tests of RULER's generators."""

import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import yaml
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from lampe_eval.cards import shipped_folder
from lampe_eval.pocket.pocket_tokenizer import build_tokenizer
from lampe_eval.ruler import RulerCard, RulerSample, SharedCorpora, word_lists
from lampe_eval.texts import pocket_language

GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def shipped_cards() -> dict[str, RulerCard]:
    """Return the cards of the shipped tasks by name."""
    tasks = yaml.safe_load(
        (shipped_folder("tasks") / "ruler" / "tasks.yaml").read_text(encoding="utf-8")
    )
    return {name: RulerCard.model_validate(card) for name, card in tasks.items()}


CARDS = shipped_cards()
ESSAY_TASKS = [
    name for name, card in CARDS.items() if getattr(card.parameters, "haystack", "") == "essay"
]


def documents(count: int) -> Iterator[str]:
    """Return texts of the pocket language."""
    return (pocket_language.text(seed, min(count, 20_000)) for seed in range(8))


def training_text() -> list[str]:
    """Return texts without newlines that contain words, numbers and codes."""
    return [
        *" ".join(documents(8_000)).splitlines(),
        " ".join(word_lists.word_pool()),
        " ".join(map(str, range(5_000))),
    ]


@cache
def byte_level(pattern: str) -> PreTrainedTokenizerBase:
    """Return a byte-level BPE with the pattern of a well-known tokenizer."""
    tokenizer = Tokenizer(models.BPE())
    split = pre_tokenizers.Split(Regex(pattern), "isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    # newlines merge with whatever the pattern lets them merge with
    lines = [f"{text}\n{text[:40]}.\n\n" for text in training_text()] + [".\n", "\n\n"] * 500
    tokenizer.train_from_iterator(
        lines, trainers.BpeTrainer(vocab_size=3_000, initial_alphabet=alphabet, show_progress=False)
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer)  # type: ignore[no-untyped-call]


@cache
def metaspace() -> PreTrainedTokenizerBase:
    """Return a BPE like sentencepiece's: a space before the text, bytes for unknown characters."""
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    spelled = [f"<0x{byte:02X}>" for byte in range(256)]
    tokenizer.train_from_iterator(
        training_text(),
        trainers.BpeTrainer(
            vocab_size=3_000, special_tokens=["<unk>", *spelled], show_progress=False
        ),
    )
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer, unk_token="<unk>"
    )


TOKENIZERS = {
    "pocket": build_tokenizer,
    "gpt2": lambda: byte_level(GPT2),
    "llama3": lambda: byte_level(LLAMA3),
    "metaspace": metaspace,
}


@cache
def shared_corpora(name: str = "llama3") -> SharedCorpora:
    """Return the corpora of a tokenizer, the same object at every call."""
    return SharedCorpora(TOKENIZERS[name](), documents)


def write_squad(path: Path) -> Path:
    """Write a file like SQuAD's.

    It has 6 articles of 4 paragraphs with 2 questions each, one of which has no answer.
    """

    def paragraph(article: int, number: int) -> dict[str, object]:
        answers = [{"text": f"code{article}{number}"}, {"text": f"the code{article}{number}"}]
        answerable = {
            "question": f"What is at {article}-{number}?",
            "is_impossible": False,
            "answers": answers,
        }
        unanswerable = {"question": "What is nowhere?", "is_impossible": True, "answers": []}
        fact = f"At {article}-{number} is code{article}{number}."
        context = f"{pocket_language.text(10 * article + number, 60)} {fact}"
        return {"context": " ".join(context.split()), "qas": [unanswerable, answerable]}

    articles: list[object] = []
    for article in range(6):
        paragraphs = [paragraph(article, number) for number in range(4)]
        articles.append({"title": str(article), "paragraphs": paragraphs})
    path.write_text(json.dumps({"version": "v2.0", "data": articles}), encoding="utf-8")
    return path


def write_hotpotqa(path: Path) -> Path:
    """Write a file like HotpotQA's: 6 questions with 5 passages each."""

    def passages(question: int) -> list[object]:
        sentences = [
            " ".join(pocket_language.text(10 * question + i, 30).split()) for i in range(5)
        ]
        return [
            [f"Title {question}-{i}", [sentence, f" Hill {question}."]]
            for i, sentence in enumerate(sentences)
        ]

    rows = [
        {"question": f"Which hill is {q}?", "answer": f"tag{q}", "context": passages(q)}
        for q in range(6)
    ]
    path.write_text(json.dumps(rows), encoding="utf-8")
    return path


def decode_prompt(corpora: SharedCorpora, sample: RulerSample) -> str:
    """Return an exact prompt's text with the start of the answer."""
    assert sample.ids is not None
    tokenizer = corpora.tokenizer.tokenizer
    return str(tokenizer.decode([*sample.before, *sample.ids.tolist(), *sample.after]))
