"""Questions among documents: those that answer it, others of the same article, and any others up to the length.

Sources: arXiv 2404.06654, section 3; ``scripts/data/synthetic/qa.py`` of NVIDIA/RULER at c3f5e3b. The documents are
those of SQuAD 2.0 (dev) and HotpotQA (dev, distractor). Where a length takes more than there are, they come again;
unlike upstream's, ours never lose those that answer.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain, count
from pathlib import Path
from typing import Any

import numpy as np

from lampe_eval.assets import path_of
from lampe_eval.errors import UserError
from lampe_eval.ruler.length_fitting import PromptLayout, ScalableSample
from lampe_eval.ruler.piecewise_tokenizer import PiecewiseTokenizer
from lampe_eval.ruler.ruler_cards import QaParameters
from lampe_eval.ruler.sample_spec import SampleDraw
from lampe_eval.ruler.seeded_random import Order, permutation

ASSETS = {"squad": "ruler/dev-v2.0.json", "hotpotqa": "ruler/hotpot_dev_distractor_v1.json"}
GAP = "\n\n"
STEP = 64


@dataclass(frozen=True)
class Question:
    """A question with its answers.

    Attributes:
        gold: numbers of the documents that it comes with.
        near: numbers of other documents of the same article.
    """

    text: str
    answers: tuple[str, ...]
    gold: tuple[int, ...]
    near: tuple[int, ...] = ()


@dataclass(frozen=True)
class Corpus:
    """Different documents in the order of the alphabet, and questions on them."""

    documents: tuple[str, ...]
    questions: tuple[Question, ...]


def puzzle(parameters: QaParameters, draw: SampleDraw) -> ScalableSample:
    """A sample before its length is chosen; questions come in the order of their file, again after the last."""
    coder, wording = draw.shelf.coder, draw.wording
    data = corpus(parameters.dataset, path_of(ASSETS[parameters.dataset], draw.shelf.data_dir))
    question = data.questions[draw.index % len(data.questions)]
    template = wording.templates["qa"].filled(query=question.text)
    tail = template.tail.removeprefix(GAP)
    order = ranked(question, permutation(draw.rng("documents"), len(data.documents)))
    fixed = len(coder.first(template.head)) + coder.count(tail)

    def document(number: int) -> str:
        return data.documents[order[number % len(order)]] + GAP

    def heading(number: int) -> str:
        return wording.document.partition("{document}")[0].replace("{i}", str(number + 1))

    least = max(1, len(question.gold))
    costs = _costs(coder, lambda i: (heading(i), document(i)), least, draw.budget - fixed)

    def lay(units: int) -> PromptLayout:
        shuffled = permutation(draw.rng("shuffle", units), units).tolist()
        pieces = chain.from_iterable(
            (heading(i), document(number)) for i, number in enumerate(shuffled)
        )
        more = chain.from_iterable((heading(i), document(i)) for i in count(units))
        return PromptLayout([template.head, *pieces], [tail], more, close=GAP)

    return ScalableSample(
        question.answers,
        template.prefix,
        least,
        len(costs) - 1,
        lambda units: fixed + int(costs[units]),
        lay,
    )


def ranked(question: Question, order: Order) -> list[int]:
    """All documents in the order in which a prompt takes them; each group as it is in a random order."""
    numbers = order.tolist()
    near = set(question.near) - set(question.gold)
    known = near | set(question.gold)
    return [
        *question.gold,
        *(number for number in numbers if number in near),
        *(number for number in numbers if number not in known),
    ]


def _costs(
    coder: PiecewiseTokenizer, pieces: Callable[[int], tuple[str, str]], least: int, budget: int
) -> Order:
    """Tokens of the first n documents, for every n up to the first that is over the budget."""
    costs = np.zeros(1, dtype=np.int64)
    for first in range(0, least + max(0, budget) + 1, STEP):
        step = chain.from_iterable(pieces(i) for i in range(first, first + STEP))
        sizes = (
            np.fromiter(map(len, coder.many(list(step))), dtype=np.int64)
            .reshape(STEP, 2)
            .sum(axis=1)
        )
        costs = np.concatenate([costs, costs[-1] + np.cumsum(sizes)])
        if len(costs) > least and costs[-1] > budget:
            break
    return costs


@lru_cache(maxsize=2)
def corpus(dataset: str, path: Path) -> Corpus:
    """Documents and questions of a file.

    Raises:
        UserError: for a file that is not the dataset's; it names file and entry.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read as JSON ({error})") from None
    read = _squad if dataset == "squad" else _hotpotqa
    try:
        found = read(data)
    except (LookupError, TypeError, AttributeError, ValueError) as error:
        raise UserError(
            f"{path}: not a file of {dataset} as expected ({type(error).__name__}: {error})"
        ) from None
    if not found.questions:
        raise UserError(f"{path}: has no question with an answer")
    return found


def _squad(data: Any) -> Corpus:
    """Paragraphs, and the questions that can be answered; all paragraphs of an article are near each other."""
    articles = [article["paragraphs"] for article in data["data"]]
    documents = sorted({paragraph["context"] for article in articles for paragraph in article})
    number = {text: i for i, text in enumerate(documents)}
    return Corpus(
        tuple(documents),
        tuple(
            Question(
                qa["question"],
                tuple(answer["text"] for answer in qa["answers"]),
                gold=(number[paragraph["context"]],),
                near=tuple(number[other["context"]] for other in article if other is not paragraph),
            )
            for article in articles
            for paragraph in article
            for qa in paragraph["qas"]
            if not qa["is_impossible"]
        ),
    )


def _hotpotqa(data: Any) -> Corpus:
    """Passages with their titles; a question comes with all of its own."""
    passages = [
        [f"{title}\n{''.join(sentences)}" for title, sentences in entry["context"]]
        for entry in data
    ]
    documents = sorted({passage for own in passages for passage in own})
    number = {text: i for i, text in enumerate(documents)}
    return Corpus(
        tuple(documents),
        tuple(
            Question(
                entry["question"],
                (entry["answer"],),
                tuple(dict.fromkeys(number[passage] for passage in own)),
            )
            for entry, own in zip(data, passages, strict=True)
        ),
    )
