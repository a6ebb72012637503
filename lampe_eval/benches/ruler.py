"""RULER: needles, chains of variables, frequent words and questions among documents, at any length.

Source: arXiv 2404.06654; the generators are in `lampe_eval.ruler`. With `prompts: ready` samples
are read from files in `--data-dir` that RULER itself wrote (`lampe_eval.ruler.ruler_files`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache, partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from lampe_eval import assets
from lampe_eval.benches.bench import Bench, Prompt, SampleRequest, Score, Task
from lampe_eval.cards import TaskCard
from lampe_eval.errors import UserError
from lampe_eval.prompts.chat_template import Message, chat_family, template_affixes
from lampe_eval.prompts.prompt_fitting import encode_prompt, prompt_affixes
from lampe_eval.prompts.protocol import Protocol
from lampe_eval.prompts.tokenization import encode, encode_with_special_tokens
from lampe_eval.records import SampleRecord
from lampe_eval.ruler import (
    RulerCard,
    RulerSample,
    SampleSpec,
    SharedCorpora,
    build_sample,
    common_words,
    document_questions,
    ruler_files,
    ruler_samples,
    ruler_wording,
    sample_cache,
    shared_corpora,
)
from lampe_eval.ruler.ruler_cards import CweParameters, NiahParameters, QaParameters
from lampe_eval.scoring import ruler_metrics
from lampe_eval.texts import documents
from lampe_eval.texts.jsonl_rows import FaultyRow

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class Ruler(Bench):
    """RULER: share of the expected strings in the answer, in percent; for QA any one is enough."""

    name: ClassVar[str] = "ruler"
    card: ClassVar[type[TaskCard]] = RulerCard
    source_option: ClassVar[str | None] = "haystack"
    mirror: ClassVar[str] = "simonjegou/ruler"

    def required_files(
        self, task: Task, protocol: Protocol, source: Path | None = None
    ) -> list[str]:
        if protocol.prompts == "ready":
            return []
        if source and protocol.prompts != "own":
            raise UserError(
                f"--haystack: ruler's prompts {protocol.prompts!r} have their own; leave it out"
            )
        wording_files = ruler_wording.ASSETS[_wording_name(protocol)]
        return [*wording_files, *_corpus_files(task.card, protocol)]

    def has_independent_tasks(self, protocol: Protocol) -> bool:
        # Upstream's generator, whose files are ready, seeds every task alike.
        return protocol.prompts != "ready"

    def user_files(self, task: Task, protocol: Protocol, data_dir: Path | None) -> list[Path]:
        if protocol.prompts != "ready":
            return []
        return ruler_files.sample_files(_ready_folder(data_dir), task.name)

    def rows(
        self, task: Task, request: SampleRequest
    ) -> Iterator[ruler_files.FileSample | FaultyRow]:
        if request.protocol.prompts != "ready":
            return iter(())
        folder = _ready_folder(request.data_dir)
        return islice(ruler_files.read_samples(folder, task.name, request.length), request.limit)

    def least_length(self, task: Task, request: SampleRequest) -> int:
        if request.protocol.prompts == "ready":
            return request.length
        spec = _sample_spec(request)
        return ruler_samples.least_length(task.name, task.card, spec, request.limit)

    def samples(self, task: Task, request: SampleRequest) -> Iterator[Prompt]:
        self.check_length(task, request)
        if request.protocol.prompts == "ready":
            samples = _read_parts(self.rows(task, request), request)
        else:
            samples = _generate_parts(task, request)
        for index, parts in enumerate(samples):
            sample_id = f"{request.length}/{index:04d}"
            if isinstance(parts, FaultyRow):
                yield Prompt.of_faulty_row(sample_id, parts)
                continue
            ids, references, meta, document_sha256 = parts
            yield Prompt(
                id=sample_id,
                ids=ids,
                max_new_tokens=task.card.max_new_tokens,
                references=list(references),
                meta=meta,
                document_sha256=document_sha256,
                decoding=request.protocol.decoding,
            )

    def score(self, task: str, row: SampleRecord, protocol: Protocol) -> float:
        return ruler_metrics.score(task, row["prediction"], row["references"], {})

    def task_averages(self, scores: Mapping[str, Score], protocol: Protocol) -> dict[str, float]:
        values = {task: score.value for task, score in scores.items()}
        return {f"mean of {len(scores)} tasks": ruler_metrics.average(values)}

    def length_averages(self, averages: Mapping[int, float]) -> dict[str, float]:
        """Return the effective length in tokens and the paper's two weighted averages."""
        rising = ruler_metrics.weighted_average(averages, rising=True)
        falling = ruler_metrics.weighted_average(averages, rising=False)
        return {
            "effective length": ruler_metrics.effective_length(averages),
            "mean, longer lengths weigh more": rising,
            "mean, shorter lengths weigh more": falling,
        }


PromptParts = tuple[Sequence[int], Sequence[str], Mapping[str, float], str]
"""Ids of a prompt, strings that its answer must contain, the sample's `meta` and document hash."""


def _wording_name(protocol: Protocol) -> ruler_wording.WordingName:
    """Return the wording that a protocol uses.

    Raises:
        UserError: for a wording that RULER does not have.
    """
    # Compared one by one, so that the type checker knows the result.
    if protocol.prompts == "own" or protocol.prompts == "official" or protocol.prompts == "2024":
        return protocol.prompts
    raise UserError(f"ruler: prompts are own, official, 2024 or ready, not {protocol.prompts}")


def _corpus_files(card: RulerCard, protocol: Protocol) -> list[str]:
    """Return the names of the files with the texts that a task's prompts are made of."""
    match card.parameters:
        case QaParameters(dataset=dataset):
            return [document_questions.ASSETS[dataset]]
        case CweParameters() if protocol.prompts != "own":
            return [common_words.ENGLISH_WORDS]
        case NiahParameters(haystack="essay") if protocol.prompts != "own":
            return [shared_corpora.ESSAYS, shared_corpora.PUNKT]
    return []


def _generate_parts(task: Task, request: SampleRequest) -> Iterator[PromptParts]:
    """Yield generated samples: of the exact length as ids, or as text the way upstream does it."""
    spec = _sample_spec(request)

    def build() -> Iterator[RulerSample]:
        for index in range(request.limit):
            yield build_sample(task.name, task.card, spec, index)

    # Making samples as text takes as long as encoding them, so they are cached.
    samples = (
        build() if spec.exact else sample_cache.load_or_build(_cache_key(task, request), build)
    )
    for sample in samples:
        yield _prompt_ids(request, sample), sample.outputs, sample.meta, sample.document_sha256


def _cache_key(task: Task, request: SampleRequest) -> sample_cache.CacheKey:
    """Return everything that the samples of a cell depend on."""
    files = Ruler().required_files(task, request.protocol)
    return {
        "task": f"{task.name} {task.card.model_dump_json()}",
        "tokenizer": sample_cache.tokenizer_digest(request.tokenizer),
        "affixes": repr(_text_affixes(request)),
        "length": request.length,
        "seed": request.seed,
        "samples": request.limit,
        "protocol": request.protocol.model_dump_json(),
        "files": repr([assets.digest(name, request.data_dir) for name in files]),
    }


def _sample_spec(request: SampleRequest) -> SampleSpec:
    corpora = _shared_corpora(request.tokenizer, request.source, request.data_dir)
    wording = _wording_name(request.protocol)
    if request.protocol.truncate_as == "ids":
        affixes = partial(_affixes, request)
        return SampleSpec(corpora, request.length, request.seed, wording, affixes=affixes)
    overhead = sum(len(encode(request.tokenizer, text)) for text in _text_affixes(request))
    return SampleSpec(
        corpora, request.length, request.seed, wording, exact=False, overhead=overhead
    )


@lru_cache(maxsize=1)
def _shared_corpora(
    tokenizer: PreTrainedTokenizerBase, source: Path | None, data_dir: Path | None
) -> SharedCorpora:
    return SharedCorpora(
        tokenizer,
        # The same text for all seeds: haystacks begin alike, as upstream's do with the first essay.
        lambda words: documents.documents(source, seed=0, words=words, data_dir=data_dir),
        data_dir,
    )


def _affixes(request: SampleRequest, answer_prefix: str) -> tuple[list[int], list[int]]:
    """Return the ids before and after a prompt that is made of ids."""
    message = Message("", answer_prefix=answer_prefix)
    return prompt_affixes(request.tokenizer, request.protocol, message)


def _text_affixes(request: SampleRequest) -> tuple[str, str]:
    """Return the text before and after a prompt that is made of text."""
    # LaMPE's code opens Mistral's user turn and never closes it.
    if request.protocol.chat == "upstream" and chat_family(request.tokenizer) == "mistral":
        return "[INST] ", ""
    # The tokenizer's template, not RULER's table of wrappers: for Llama 3.1 it adds a system turn.
    return template_affixes(request.tokenizer, "") if request.protocol.chat != "none" else ("", "")


def _prompt_ids(request: SampleRequest, sample: RulerSample) -> Sequence[int]:
    if sample.ids is not None:
        return [*sample.before, *sample.ids.tolist(), *sample.after]
    before, after = _text_affixes(request)
    assert sample.text is not None, "a sample without ids has a text"
    after += sample.answer_prefix
    return encode_prompt(request.tokenizer, request.protocol, before, sample.text, after)


def _read_parts(
    rows: Iterator[ruler_files.FileSample | FaultyRow], request: SampleRequest
) -> Iterator[PromptParts | FaultyRow]:
    """Yield samples from files as they are, with special tokens: they have their chat markers."""
    for row in rows:
        if isinstance(row, FaultyRow):
            yield row
            continue
        text = row.input + row.answer_prefix
        yield encode_with_special_tokens(request.tokenizer, text), row.outputs, {}, ""


def _ready_folder(data_dir: Path | None) -> Path:
    if data_dir is None:
        raise UserError(
            "ruler: prompts=ready reads samples from files; name their folder with --data-dir"
        )
    return data_dir
