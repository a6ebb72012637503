"""RULER: needles, chains of variables, frequent words and questions among documents, generated to any length.

Source: arXiv 2404.06654; the generators are ``lampe_eval.ruler``. Under ``prompts: ready`` samples are read from files
that RULER wrote, in ``--data-dir`` (``lampe_eval.ruler.readymade``).
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache, partial
from itertools import islice
from pathlib import Path
from typing import ClassVar

from transformers import PreTrainedTokenizerBase

from lampe_eval import assets
from lampe_eval.benches.base import Bench, Draw, Prompt, Row, Score, Task
from lampe_eval.cards import TaskCard
from lampe_eval.errors import UserError
from lampe_eval.prompts.chat import Message, envelope, family
from lampe_eval.prompts.fit import frame
from lampe_eval.prompts.protocol import Protocol
from lampe_eval.prompts.tokens import encode, encode_whole
from lampe_eval.ruler import Built, Recipe, RulerCard, Shelf, build, cache, readymade, wording
from lampe_eval.ruler.cards import CweParameters, NiahParameters, QaParameters
from lampe_eval.scoring import ruler
from lampe_eval.texts import documents


class Ruler(Bench):
    """Share of the expected strings that are in the answer, in percent; of questions any one counts."""

    name: ClassVar[str] = "ruler"
    card: ClassVar[type[TaskCard]] = RulerCard
    source_option: ClassVar[str | None] = "haystack"

    def needs(self, task: Task, protocol: Protocol, source: Path | None = None) -> list[str]:
        if protocol.prompts == "ready":
            return []
        if source and protocol.prompts != "own":
            raise UserError(
                f"--haystack: ruler's prompts {protocol.prompts!r} bring their own; leave it out"
            )
        return [*wording.ASSETS[_words(protocol)], *_texts(task.card, protocol)]

    def files(self, task: Task, protocol: Protocol, data_dir: Path | None) -> list[Path]:
        if protocol.prompts != "ready":
            return []
        folder = _ready_folder(data_dir)
        return sorted(
            path for path in folder.rglob("*.jsonl") if task.name in str(path.relative_to(folder))
        )

    def samples(self, task: Task, draw: Draw) -> Iterator[Prompt]:
        make = _ready if draw.protocol.prompts == "ready" else _made
        for index, (ids, outputs, meta) in enumerate(make(task, draw)):
            room, decoding = task.card.max_new_tokens, draw.protocol.decoding
            yield Prompt(
                f"{draw.length}/{index:04d}", ids, room, list(outputs), meta=meta, decoding=decoding
            )

    def score(self, task: str, row: Row, protocol: Protocol) -> float:
        return ruler.score(task, row["prediction"], row["references"], {})

    def averages(self, scores: Mapping[str, Score], protocol: Protocol) -> dict[str, float]:
        return {
            f"mean of {len(scores)} tasks": ruler.average(
                {task: score.value for task, score in scores.items()}
            )
        }

    def across(self, averages: Mapping[int, float]) -> dict[str, float]:
        return {
            "effective length": ruler.effective_length(averages),
            "mean, longer lengths weigh more": ruler.weighted_average(averages, rising=True),
            "mean, shorter lengths weigh more": ruler.weighted_average(averages, rising=False),
        }


Sampled = tuple[Sequence[int], Sequence[str], Mapping[str, float]]
"""Ids of a prompt, what its answer must contain, and numbers about it."""


def _words(protocol: Protocol) -> wording.Name:
    """Whose wording.

    Raises:
        UserError: for one that RULER does not have.
    """
    if protocol.prompts == "own" or protocol.prompts == "official" or protocol.prompts == "2024":
        return protocol.prompts
    raise UserError(f"ruler: prompts are own, official, 2024 or ready, not {protocol.prompts}")


def _texts(card: RulerCard, protocol: Protocol) -> list[str]:
    """Files of the texts that a task's prompts are made of."""
    match card.parameters:
        case QaParameters(dataset="squad"):
            return ["ruler/dev-v2.0.json"]
        case QaParameters():
            return ["ruler/hotpot_dev_distractor_v1.json"]
        case CweParameters() if protocol.prompts != "own":
            return ["ruler/english_words.json"]
        case NiahParameters(haystack="essay") if protocol.prompts != "own":
            return ["ruler/PaulGrahamEssays.json", "ruler/punkt_tab.zip"]
    return []


def _made(task: Task, draw: Draw) -> Iterator[Sampled]:
    """Samples of the generators: exactly as long as they may be as ids, or as upstream makes them, as text."""
    recipe = _recipe(draw)

    def builds() -> Iterator[Built]:
        return (build(task.name, task.card, recipe, index) for index in range(draw.limit))

    for built in builds() if recipe.exact else cache.cached(_key(task, draw), builds):
        yield _prompt(draw, built), built.outputs, built.meta


def _key(task: Task, draw: Draw) -> cache.Key:
    """What samples that are made as text, which takes as long as encoding them, are kept under."""
    return {
        "task": f"{task.name} {task.card.model_dump_json()}",
        "tokenizer": cache.digest(draw.tokenizer),
        "frame": repr(_wrapper(draw)),
        "length": draw.length,
        "seed": draw.seed,
        "samples": draw.limit,
        "protocol": draw.protocol.model_dump_json(),
        "files": repr(
            [assets.digest(name, draw.data_dir) for name in Ruler().needs(task, draw.protocol)]
        ),
    }


def _recipe(draw: Draw) -> Recipe:
    shelf = _shelf(draw.tokenizer, draw.source, draw.data_dir)
    words = _words(draw.protocol)
    if draw.protocol.cut == "ids":
        return Recipe(shelf, draw.length, draw.seed, words, frame=partial(_framed, draw))
    overhead = sum(len(encode(draw.tokenizer, part)) for part in _wrapper(draw))
    return Recipe(shelf, draw.length, draw.seed, words, exact=False, overhead=overhead)


@lru_cache(maxsize=1)
def _shelf(tokenizer: PreTrainedTokenizerBase, source: Path | None, data_dir: Path | None) -> Shelf:
    return Shelf(
        tokenizer,
        lambda words: documents.documents(source, seed=0, words=words, data_dir=data_dir),
        data_dir,
    )


def _framed(draw: Draw, prefix: str) -> tuple[list[int], list[int]]:
    return frame(draw.tokenizer, draw.protocol, Message("", lead=prefix))


def _wrapper(draw: Draw) -> tuple[str, str]:
    """Text around a prompt; LaMPE's code leaves Mistral's turn open."""
    if draw.protocol.chat == "upstream" and family(draw.tokenizer) == "mistral":
        return "[INST] ", ""
    return envelope(draw.tokenizer, "") if draw.protocol.chat != "none" else ("", "")


def _prompt(draw: Draw, built: Built) -> Sequence[int]:
    if built.ids is not None:
        return [*built.before, *built.ids.tolist(), *built.after]
    before, after = _wrapper(draw)
    return encode_whole(draw.tokenizer, f"{before}{built.text}{after}{built.answer_prefix}")


def _ready(task: Task, draw: Draw) -> Iterator[Sampled]:
    """Samples of files, as they stand there: they hold their own turns."""
    samples = readymade.read(_ready_folder(draw.data_dir), task.name, draw.length)
    for sample in islice(samples, draw.limit):
        yield encode_whole(draw.tokenizer, sample.input + sample.answer_prefix), sample.outputs, {}


def _ready_folder(data_dir: Path | None) -> Path:
    if data_dir is None:
        raise UserError(
            "ruler: prompts=ready reads samples from files; name their folder with --data-dir"
        )
    return data_dir
