"""RULER: needles, chains of variables, frequent words and questions among documents, generated to any length.

Source: arXiv 2404.06654; the generators are ``lampe_eval.ruler``. Under ``prompts: ready`` samples are read from files
that RULER wrote, in ``--data-dir`` (``lampe_eval.ruler.ruler_files``).
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache, partial
from itertools import islice
from pathlib import Path
from typing import ClassVar

from transformers import PreTrainedTokenizerBase

from lampe_eval import assets
from lampe_eval.benches.bench import Bench, Prompt, SampleRequest, SampleRow, Score, Task
from lampe_eval.cards import TaskCard
from lampe_eval.errors import UserError
from lampe_eval.prompts.chat_template import Message, chat_family, template_affixes
from lampe_eval.prompts.prompt_fitting import prompt_affixes
from lampe_eval.prompts.protocol import Protocol
from lampe_eval.prompts.tokenization import encode, encode_with_special_tokens
from lampe_eval.ruler import (
    RulerCard,
    RulerSample,
    SampleSpec,
    SharedCorpora,
    build_sample,
    ruler_files,
    ruler_wording,
    sample_cache,
)
from lampe_eval.ruler.ruler_cards import CweParameters, NiahParameters, QaParameters
from lampe_eval.scoring import ruler_metrics
from lampe_eval.texts import documents


class Ruler(Bench):
    """Share of the expected strings that are in the answer, in percent; of questions any one counts."""

    name: ClassVar[str] = "ruler"
    card: ClassVar[type[TaskCard]] = RulerCard
    source_option: ClassVar[str | None] = "haystack"

    def required_files(
        self, task: Task, protocol: Protocol, source: Path | None = None
    ) -> list[str]:
        if protocol.prompts == "ready":
            return []
        if source and protocol.prompts != "own":
            raise UserError(
                f"--haystack: ruler's prompts {protocol.prompts!r} bring their own; leave it out"
            )
        return [*ruler_wording.ASSETS[_words(protocol)], *_texts(task.card, protocol)]

    def user_files(self, task: Task, protocol: Protocol, data_dir: Path | None) -> list[Path]:
        if protocol.prompts != "ready":
            return []
        folder = _ready_folder(data_dir)
        return sorted(
            path for path in folder.rglob("*.jsonl") if task.name in str(path.relative_to(folder))
        )

    def samples(self, task: Task, draw: SampleRequest) -> Iterator[Prompt]:
        make = _ready if draw.protocol.prompts == "ready" else _made
        for index, (ids, outputs, meta) in enumerate(make(task, draw)):
            room, decoding = task.card.max_new_tokens, draw.protocol.decoding
            yield Prompt(
                f"{draw.length}/{index:04d}", ids, room, list(outputs), meta=meta, decoding=decoding
            )

    def score(self, task: str, row: SampleRow, protocol: Protocol) -> float:
        return ruler_metrics.score(task, row["prediction"], row["references"], {})

    def task_averages(self, scores: Mapping[str, Score], protocol: Protocol) -> dict[str, float]:
        return {
            f"mean of {len(scores)} tasks": ruler_metrics.average(
                {task: score.value for task, score in scores.items()}
            )
        }

    def length_averages(self, averages: Mapping[int, float]) -> dict[str, float]:
        return {
            "effective length": ruler_metrics.effective_length(averages),
            "mean, longer lengths weigh more": ruler_metrics.weighted_average(
                averages, rising=True
            ),
            "mean, shorter lengths weigh more": ruler_metrics.weighted_average(
                averages, rising=False
            ),
        }


Sampled = tuple[Sequence[int], Sequence[str], Mapping[str, float]]
"""Ids of a prompt, what its answer must contain, and numbers about it."""


def _words(protocol: Protocol) -> ruler_wording.WordingName:
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


def _made(task: Task, draw: SampleRequest) -> Iterator[Sampled]:
    """Samples of the generators: exactly as long as they may be as ids, or as upstream makes them, as text."""
    recipe = _recipe(draw)

    def builds() -> Iterator[RulerSample]:
        return (build_sample(task.name, task.card, recipe, index) for index in range(draw.limit))

    for built in builds() if recipe.exact else sample_cache.load_or_build(_key(task, draw), builds):
        yield _prompt(draw, built), built.outputs, built.meta


def _key(task: Task, draw: SampleRequest) -> sample_cache.CacheKey:
    """What samples that are made as text, which takes as long as encoding them, are kept under."""
    return {
        "task": f"{task.name} {task.card.model_dump_json()}",
        "tokenizer": sample_cache.tokenizer_digest(draw.tokenizer),
        "frame": repr(_wrapper(draw)),
        "length": draw.length,
        "seed": draw.seed,
        "samples": draw.limit,
        "protocol": draw.protocol.model_dump_json(),
        "files": repr(
            [
                assets.digest(name, draw.data_dir)
                for name in Ruler().required_files(task, draw.protocol)
            ]
        ),
    }


def _recipe(draw: SampleRequest) -> SampleSpec:
    shelf = _shelf(draw.tokenizer, draw.source, draw.data_dir)
    words = _words(draw.protocol)
    if draw.protocol.cut == "ids":
        return SampleSpec(shelf, draw.length, draw.seed, words, affixes=partial(_framed, draw))
    overhead = sum(len(encode(draw.tokenizer, part)) for part in _wrapper(draw))
    return SampleSpec(shelf, draw.length, draw.seed, words, exact=False, overhead=overhead)


@lru_cache(maxsize=1)
def _shelf(
    tokenizer: PreTrainedTokenizerBase, source: Path | None, data_dir: Path | None
) -> SharedCorpora:
    return SharedCorpora(
        tokenizer,
        lambda words: documents.documents(source, seed=0, words=words, data_dir=data_dir),
        data_dir,
    )


def _framed(draw: SampleRequest, prefix: str) -> tuple[list[int], list[int]]:
    return prompt_affixes(draw.tokenizer, draw.protocol, Message("", lead=prefix))


def _wrapper(draw: SampleRequest) -> tuple[str, str]:
    """Text around a prompt; LaMPE's code leaves Mistral's turn open."""
    if draw.protocol.chat == "upstream" and chat_family(draw.tokenizer) == "mistral":
        return "[INST] ", ""
    return template_affixes(draw.tokenizer, "") if draw.protocol.chat != "none" else ("", "")


def _prompt(draw: SampleRequest, built: RulerSample) -> Sequence[int]:
    if built.ids is not None:
        return [*built.before, *built.ids.tolist(), *built.after]
    before, after = _wrapper(draw)
    return encode_with_special_tokens(
        draw.tokenizer, f"{before}{built.text}{after}{built.answer_prefix}"
    )


def _ready(task: Task, draw: SampleRequest) -> Iterator[Sampled]:
    """Samples of files, as they stand there: they hold their own turns."""
    samples = ruler_files.read_samples(_ready_folder(draw.data_dir), task.name, draw.length)
    for sample in islice(samples, draw.limit):
        yield (
            encode_with_special_tokens(draw.tokenizer, sample.input + sample.answer_prefix),
            sample.outputs,
            {},
        )


def _ready_folder(data_dir: Path | None) -> Path:
    if data_dir is None:
        raise UserError(
            "ruler: prompts=ready reads samples from files; name their folder with --data-dir"
        )
    return data_dir
