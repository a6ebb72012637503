"""BABILong: facts of a small world scattered over a long text, and a question that they answer.

Protocol `fair` has worlds of our own (`small_worlds.py`) between whole sentences of any text, in
exactly the requested length. Facts keep their order and lie in gaps drawn uniformly with
repetition, as upstream's do. `official` reads upstream's data and prompts: a cell of 8k tokens
reads the data called 8k, which are of 8000 tokens of GPT-2 with a prompt of 300; one of less than
1k reads 0k, the facts alone.

Source: arXiv 2406.10149 with booydar/babilong at 7a6efee; scorers are in
`lampe_eval.scoring.babilong_metrics`.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import islice
from pathlib import Path
from random import Random
from statistics import fmean
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict

from lampe_eval import assets
from lampe_eval.assets.containers import container_rows
from lampe_eval.benches import small_worlds
from lampe_eval.benches.bench import Bench, Prompt, SampleRequest, Score, Task
from lampe_eval.benches.scattered_sentences import ScatteredPrompts
from lampe_eval.benches.sentence_haystack import Haystack, SentencePool
from lampe_eval.cards import TaskCard
from lampe_eval.errors import UserError
from lampe_eval.file_io import sha256_of_text
from lampe_eval.prompts.chat_template import Message
from lampe_eval.prompts.prompt_fitting import fit_prompt
from lampe_eval.prompts.protocol import Protocol
from lampe_eval.records import SampleRecord
from lampe_eval.ruler.seeded_random import Indices
from lampe_eval.scoring import babilong_metrics
from lampe_eval.texts.jsonl_rows import NO_TEXT, FaultyRow, is_text, parse_value, with_one_good_row

PROMPTS_FILE = "babilong/prompts.py"
OFFICIAL_PROMPT = (
    "{instruction}\n\n{examples}\n\n{post_prompt}\n\n<context>\n{context}\n</context>\n\n"
    "Question: {question}"
)
PARTS: Mapping[str, frozenset[str]] = {
    "official": frozenset({"instruction", "examples", "post_prompt"}),
    "no-examples": frozenset({"instruction", "post_prompt"}),
    "bare": frozenset(),
}
"""Parts of the official prompts that are switched on, by the wording that a protocol names."""


class BabilongRow(BaseModel):
    """Row of the data: a question on a text with facts in it."""

    model_config = ConfigDict(frozen=True, strict=True)

    input: str
    question: str
    target: str


class BabilongCard(TaskCard):
    """Card of a task of BABILong.

    Attributes:
        max_new_tokens: tokens that the answer may have.
        instruction: our own instruction; empty for the official tasks.
    """

    max_new_tokens: int
    instruction: str = ""


class Babilong(Bench):
    """BABILong: share of answers that name the right label alone, in percent."""

    name: ClassVar[str] = "babilong"
    card: ClassVar[type[TaskCard]] = BabilongCard
    source_option: ClassVar[str | None] = "haystack"

    def has_task(self, task: Task, protocol: Protocol) -> bool:
        return bool(task.card.instruction) == (protocol.prompts == "own")

    def required_files(
        self, task: Task, protocol: Protocol, source: Path | None = None
    ) -> list[str]:
        if protocol.prompts == "own":
            return []
        if source:
            raise UserError("--haystack: babilong's official data have their own; leave it out")
        return [PROMPTS_FILE] if PARTS[protocol.prompts] else []

    def files_by_length(self, task: Task, protocol: Protocol) -> dict[str, list[str]]:
        if protocol.prompts == "own":
            return {}
        files: dict[str, list[str]] = {}
        for asset in assets.select([self.name]):
            _, *size, file = asset.name.split("/")
            if size and file.partition(".")[0] == task.name:
                files[size[0]] = [asset.name]
        return files

    def name_of_length(self, length: int) -> str:
        return data_name(length)

    def rows(self, task: Task, request: SampleRequest) -> Iterator[BabilongRow | FaultyRow]:
        if request.protocol.prompts == "own":
            return iter(())
        (name,) = self.files_of_length(task, request.protocol, request.length)
        path = assets.path_of(name, request.data_dir)
        size = data_name(request.length)
        # A file without a known hash, which may be that of another length or task.
        for called in (size, task.name):
            if called not in (path.parent.name, path.stem.partition("-")[0]):
                raise UserError(
                    f"{path}: neither the file nor its folder is called {called}, so it may be "
                    f"another one; put it into a folder {called}"
                )
        return islice(with_one_good_row(_parsed_rows(path), path), request.limit)

    def least_length(self, task: Task, request: SampleRequest) -> int:
        if request.protocol.prompts != "own":
            return request.length
        draft = _OwnPrompts(task, request)
        return max(request.length, *(draft.least_length(index) for index in range(request.limit)))

    def samples(self, task: Task, request: SampleRequest) -> Iterator[Prompt]:
        self.check_length(task, request)
        if request.protocol.prompts == "own":
            prompts = _OwnPrompts(task, request)
            return (prompts.sample(index) for index in range(request.limit))
        return self._official_samples(task, request)

    def score(self, task: str, row: SampleRecord, protocol: Protocol) -> float:
        extras = row["extras"]
        labels = extras.get("labels") or babilong_metrics.LABELS[task]
        scorer = babilong_metrics.SCORERS[protocol.scorer]
        return float(scorer(row["prediction"], row["references"][0], extras["question"], labels))

    def task_averages(self, scores: Mapping[str, Score], protocol: Protocol) -> dict[str, float]:
        if len(scores) < 2:
            return {}
        return {f"mean of {len(scores)} tasks": fmean(score.value for score in scores.values())}

    def _official_samples(self, task: Task, request: SampleRequest) -> Iterator[Prompt]:
        parts = _official_parts(task.name, request.protocol, request.data_dir)
        for index, row in enumerate(self.rows(task, request)):
            sample_id = f"{request.length}/{index:04d}"
            if isinstance(row, FaultyRow):
                yield Prompt.of_faulty_row(sample_id, row)
                continue
            text = official_prompt(parts, row.input, row.question)
            prompt = fit_prompt(
                request.tokenizer,
                request.protocol,
                Message(text),
                length=request.length,
                answer_tokens=task.card.max_new_tokens,
            )
            yield Prompt(
                id=sample_id,
                ids=prompt.ids,
                max_new_tokens=task.card.max_new_tokens,
                references=[row.target],
                extras={"question": row.question},
                document_sha256=sha256_of_text(row.input),
                decoding=request.protocol.decoding,
            )


def data_name(length: int) -> str:
    """Return what upstream calls its data of a length in tokens, such as "8k" or "1M"."""
    thousands = length // 1000 if length % 1000 == 0 else length // 1024
    return f"{thousands // 1000}M" if thousands >= 1000 else f"{thousands}k"


def official_prompt(parts: Mapping[str, str], context: str, question: str) -> str:
    """Return the prompt that upstream makes of a row.

    Args:
        parts: instruction, examples and post_prompt; empty texts for those switched off.
        context: the text with the facts.
        question: the question.
    """
    return OFFICIAL_PROMPT.format(**parts, context=context.strip(), question=question).strip()


def _official_parts(task: str, protocol: Protocol, data_dir: Path | None) -> dict[str, str]:
    """Return the parts of a task's official prompts, empty where they are switched off."""
    names = sorted(PARTS["official"])
    switched_on = PARTS[protocol.prompts]
    if not switched_on:
        return dict.fromkeys(names, "")
    path = assets.path_of(PROMPTS_FILE, data_dir)
    prompts = assets.literal(path, "DEFAULT_PROMPTS").get(task)
    if not isinstance(prompts, dict) or not all(isinstance(prompts.get(n), str) for n in names):
        raise UserError(f"{path}: has no prompts for {task!r}; is it the official file?")
    return {name: prompts[name] if name in switched_on else "" for name in names}


def _parsed_rows(path: Path) -> Iterator[BabilongRow | FaultyRow]:
    for number, value in enumerate(container_rows(path), 1):
        yield parse_value(value, f"{path}: row {number}", _parse_row)


def _parse_row(value: Any) -> BabilongRow:
    """Return a row.

    Raises:
        ValueError: for a row with a field of the wrong type, or with what is no text.
    """
    row = BabilongRow.model_validate(value)
    if not all(map(is_text, (row.input, row.question, row.target))):
        raise ValueError(NO_TEXT)
    return row


class _OwnPrompts:
    """Prompts of a task in our own wording.

    Args:
        task: the task.
        request: the request.
    """

    def __init__(self, task: Task, request: SampleRequest) -> None:
        self.task = task
        self.request = request
        self.prompts = ScatteredPrompts(request, task.card.instruction, task.card.max_new_tokens)

    def story(self, index: int) -> small_worlds.Story:
        """Return the world of a sample; it is the same at every length."""
        return small_worlds.draw_story(self.task.name, self.request.seed, index)

    def least_length(self, index: int) -> int:
        """Return the tokens of a sample without any background, those of its answer included."""
        story = self.story(index)
        return self.prompts.least_length(story.facts, story.question)

    def sample(self, index: int) -> Prompt:
        """Return a sample."""
        story = self.story(index)
        rng = Random(f"babilong {self.task.name} {self.request.seed} {index}")

        def choose_gaps(haystack: Haystack) -> Sequence[int]:
            # Uniformly with repetition and in the order of the facts, as upstream does.
            gaps = range(len(haystack.sentences) + 1)
            return sorted(rng.choices(gaps, k=len(story.facts)))

        prompt = self.prompts.build(
            story.facts,
            story.question,
            rng=rng,
            allowed=_nameless(self.prompts.pool),
            choose_gaps=choose_gaps,
        )
        return Prompt(
            id=f"{self.request.length}/{index:04d}",
            ids=prompt.ids,
            max_new_tokens=self.task.card.max_new_tokens,
            references=[story.answer],
            extras={"question": story.question, "labels": list(story.labels)},
            meta={"depth": prompt.depths[story.last_needed], "facts": len(story.facts)},
            document_sha256=prompt.haystack_sha256,
            decoding=self.request.protocol.decoding,
        )


@lru_cache(maxsize=2)
def _nameless(pool: SentencePool) -> Indices:
    """Return the sentences that name nobody and nothing of a world."""
    return pool.without(small_worlds.NAMES)
