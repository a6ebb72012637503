"""Question answering: a question among documents that answer it and documents that do not.

Sources: arXiv 2404.06654, section 3; ``scripts/data/synthetic/qa.py`` of NVIDIA/RULER at c3f5e3b.
The documents are those of SQuAD 2.0 (dev) and HotpotQA (dev, distractor). Where a length needs more
documents than there are, they repeat; unlike upstream's prompts, ours never lose the documents that
answer the question.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain, count
from pathlib import Path
from typing import Any

import numpy as np

from lampe_eval.assets import path_of
from lampe_eval.errors import UserError
from lampe_eval.file_io import read_json, sha256_of_text
from lampe_eval.ruler.length_fitting import PromptLayout, ScalableSample
from lampe_eval.ruler.piecewise_tokenizer import PiecewiseTokenizer
from lampe_eval.ruler.ruler_cards import QaParameters
from lampe_eval.ruler.sample_spec import SampleDraw
from lampe_eval.ruler.seeded_random import Indices, permutation

ASSETS = {"squad": "ruler/dev-v2.0.json", "hotpotqa": "ruler/hotpot_dev_distractor_v1.json"}
SEPARATOR = "\n\n"
DOCUMENTS_PER_BATCH = 64
"""Documents that are encoded together while the tokens of a prompt are counted."""


@dataclass(frozen=True)
class DocumentQuestion:
    """Question about documents, with its answers.

    Attributes:
        text: the question.
        answers: texts, any of which answers it.
        gold: numbers of the documents that answer it or come with it.
        near: numbers of other documents of the same article.
    """

    text: str
    answers: tuple[str, ...]
    gold: tuple[int, ...]
    near: tuple[int, ...] = ()


@dataclass(frozen=True)
class QuestionCorpus:
    """Different documents in alphabetical order, and questions about them.

    Attributes:
        documents: the documents.
        questions: the questions in the order of their file.
    """

    documents: tuple[str, ...]
    questions: tuple[DocumentQuestion, ...]


def document_question_sample(parameters: QaParameters, draw: SampleDraw) -> ScalableSample:
    """Return a sample; its units are documents.

    Questions come in the order of their file, and again from the first after the last.
    """
    tokenizer, wording = draw.corpora.tokenizer, draw.wording
    path = path_of(ASSETS[parameters.dataset], draw.corpora.data_dir)
    corpus = read_corpus(parameters.dataset, path)
    question = corpus.questions[draw.index % len(corpus.questions)]
    template = wording.templates["qa"].fill(query=question.text)
    ending = template.question.removeprefix(SEPARATOR)  # documents end with the separator
    order = rank_documents(question, permutation(draw.rng("documents"), len(corpus.documents)))
    fixed_tokens = len(tokenizer.encode_beginning(template.instruction))
    fixed_tokens += tokenizer.count_tokens(ending)
    heading_template = wording.document.partition("{document}")[0]

    def heading(place: int) -> str:
        return heading_template.replace("{i}", str(place + 1))

    def document(number: int) -> str:
        return corpus.documents[order[number % len(order)]] + SEPARATOR

    min_units = max(1, len(question.gold))
    costs = _count_document_tokens(
        tokenizer,
        lambda number: (heading(number), document(number)),
        min_units,
        draw.max_prompt_tokens - fixed_tokens,
    )

    def continuation(units: int) -> Iterator[str]:
        for number in count(units):
            yield heading(number)
            yield document(number)

    def layout(units: int) -> PromptLayout:
        # documents that answer are among the first units, and shuffled with the others
        shuffled = permutation(draw.rng("shuffle", units), units).tolist()
        pieces = [template.instruction]
        for place, number in enumerate(shuffled):
            pieces += [heading(place), document(number)]
        return PromptLayout(pieces, [ending], continuation(units), closing=SEPARATOR)

    return ScalableSample(
        outputs=question.answers,
        answer_prefix=template.answer_prefix,
        min_units=min_units,
        max_units=len(costs) - 1,
        estimate_tokens=lambda units: fixed_tokens + int(costs[units]),
        layout=layout,
        document_sha256=sha256_of_text(
            SEPARATOR.join(corpus.documents[number] for number in question.gold)
        ),
    )


def rank_documents(question: DocumentQuestion, order: Indices) -> list[int]:
    """Return the numbers of all documents in the order in which a prompt takes them.

    Those that answer the question come first, then those of the same article, then all others. The
    last two groups keep the random order.
    """
    gold = set(question.gold)
    near = set(question.near) - gold
    known = near | gold
    numbers = order.tolist()
    return [
        *question.gold,
        *(number for number in numbers if number in near),
        *(number for number in numbers if number not in known),
    ]


def _count_document_tokens(
    tokenizer: PiecewiseTokenizer,
    pieces: Callable[[int], tuple[str, str]],
    min_units: int,
    budget: int,
) -> Indices:
    """Return an array whose element n is the number of tokens of the first n documents."""
    # every document has one token at least, which limits how many can be needed
    costs = np.zeros(1, dtype=np.int64)
    # Documents are counted in batches until they exceed the budget, as encoding a whole corpus
    # takes longer than encoding what a prompt needs.
    for first in range(0, min_units + max(0, budget) + 1, DOCUMENTS_PER_BATCH):
        batch: list[str] = []
        for number in range(first, first + DOCUMENTS_PER_BATCH):
            batch += pieces(number)
        sizes = np.fromiter(map(len, tokenizer.encode_pieces(batch)), dtype=np.int64)
        document_sizes = sizes.reshape(DOCUMENTS_PER_BATCH, 2).sum(axis=1)  # heading and document
        costs = np.concatenate([costs, costs[-1] + np.cumsum(document_sizes)])
        if len(costs) > min_units and costs[-1] > budget:
            break
    return costs


@lru_cache(maxsize=2)
def read_corpus(dataset: str, path: Path) -> QuestionCorpus:
    """Return the documents and questions of a file.

    Args:
        dataset: "squad" or "hotpotqa".
        path: the dataset's JSON file.

    Raises:
        UserError: if the file is not the dataset's; the message names file and entry.
    """
    data = read_json(path)
    read = _read_squad if dataset == "squad" else _read_hotpotqa
    try:
        corpus = read(data)
    except (LookupError, TypeError, AttributeError, ValueError) as error:
        raise UserError(
            f"{path}: not a file of {dataset} as expected ({type(error).__name__}: {error})"
        ) from None
    if not corpus.questions:
        raise UserError(f"{path}: has no question with an answer")
    return corpus


def _read_squad(data: Any) -> QuestionCorpus:
    """Return the paragraphs, and the questions that can be answered.

    All paragraphs of an article are near each other.
    """
    articles = [article["paragraphs"] for article in data["data"]]
    contexts: set[str] = set()
    for article in articles:
        contexts.update(paragraph["context"] for paragraph in article)
    documents = sorted(contexts)
    numbers = {text: number for number, text in enumerate(documents)}
    questions: list[DocumentQuestion] = []
    for article in articles:
        for paragraph in article:
            questions += _squad_questions(article, paragraph, numbers)
    return QuestionCorpus(tuple(documents), tuple(questions))


def _squad_questions(
    article: Any, paragraph: Any, numbers: dict[str, int]
) -> Iterator[DocumentQuestion]:
    """Yield the questions about a paragraph that can be answered.

    Args:
        article: all paragraphs of the article.
        paragraph: the paragraph.
        numbers: numbers of documents by their text.
    """
    others = [other for other in article if other is not paragraph]
    near = tuple(numbers[other["context"]] for other in others)
    for entry in paragraph["qas"]:
        if not entry["is_impossible"]:
            answers = tuple(answer["text"] for answer in entry["answers"])
            gold = (numbers[paragraph["context"]],)
            yield DocumentQuestion(entry["question"], answers, gold, near)


def _read_hotpotqa(data: Any) -> QuestionCorpus:
    """Return the passages with their titles; a question comes with all of its own passages."""
    passages = [_hotpotqa_passages(entry) for entry in data]
    documents = sorted(set(chain.from_iterable(passages)))
    numbers = {text: number for number, text in enumerate(documents)}
    questions: list[DocumentQuestion] = []
    for entry, texts in zip(data, passages, strict=True):
        gold = tuple(dict.fromkeys(numbers[text] for text in texts))
        questions.append(DocumentQuestion(entry["question"], (entry["answer"],), gold))
    return QuestionCorpus(tuple(documents), tuple(questions))


def _hotpotqa_passages(entry: Any) -> list[str]:
    return [f"{title}\n{''.join(sentences)}" for title, sentences in entry["context"]]
