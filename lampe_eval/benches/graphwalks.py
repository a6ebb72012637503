"""GraphWalks: nodes of a long list of edges, found by following them.

Under `fair` graphs are drawn here (`graphs.py`) and fill the length to the token: every node has
two edges, names are drawn for each sample, no answer is empty. The prompt ends in the label and
bracket that the scorers look for, so that base models answer in their form.

Under `official` the prompts are rows of openai/graphwalks as they stand. A graph that is cut has
another answer, so none is cut: a cell has the rows whose prompts take more than half of the length
(`length_cells.py`), and those that leave too little space for the answer are left out and counted.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import islice
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import BaseModel, ConfigDict

from lampe_eval import assets
from lampe_eval.benches.bench import Bench, Prompt, SampleRequest, Score, Task, mean_score
from lampe_eval.benches.graphs import GraphQuestion, GraphSample, NameTable, pool_size
from lampe_eval.benches.length_cells import empty_cell, fills, may_fill
from lampe_eval.cards import TaskCard
from lampe_eval.prompts.chat_template import Message
from lampe_eval.prompts.prompt_fitting import fit_prompt, prompt_affixes
from lampe_eval.prompts.protocol import Protocol
from lampe_eval.records import SampleRecord
from lampe_eval.ruler.length_fitting import fit_ids
from lampe_eval.ruler.piecewise_tokenizer import PiecewiseTokenizer
from lampe_eval.scoring import graphwalks_metrics
from lampe_eval.scoring.estimates import Estimate
from lampe_eval.scoring.long_score import long_score
from lampe_eval.texts.jsonl_rows import FaultyRow, read_container

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

INSTRUCTION = (
    "Each line below is a link from the name on its left to the name on its right; "
    "links lead in that direction only.\n"
)
ANSWER_START = "Final Answer: ["
"""Label and bracket by which the scorers find a list."""


class GraphWalksCard(TaskCard):
    """Card of a task: a question about graphs drawn here, rows of the data set, or both.

    Attributes:
        max_new_tokens: tokens that the answer to a question about a graph drawn here may have.
        steps: length of the paths that the question is about; 0 for the nodes' parents, None for a
            task of official rows alone.
        least_nodes: smallest number of nodes of a graph.
        question: the question, with `{node}`.
        problem_type: type of the official rows.
        file: file of the official rows; empty for a task without them.
    """

    max_new_tokens: int = 0
    steps: int | None = None
    least_nodes: int = 0
    question: str = ""
    problem_type: Literal["parents", "bfs"] | None = None
    file: str = ""


class GraphWalksRow(BaseModel):
    """Row of the data set: a prompt with a graph, and the nodes that answer it."""

    model_config = ConfigDict(frozen=True, strict=True)

    prompt: str
    answer_nodes: list[str]
    problem_type: Literal["parents", "bfs"]


class GraphWalks(Bench):
    """GraphWalks: F1 over sets of nodes, in percent; the share of exact answers as a detail."""

    name: ClassVar[str] = "graphwalks"
    card: ClassVar[type[TaskCard]] = GraphWalksCard

    def has_task(self, task: Task, protocol: Protocol) -> bool:
        return task.card.steps is not None if protocol.prompts == "own" else bool(task.card.file)

    def has_independent_tasks(self, protocol: Protocol) -> bool:
        return protocol.prompts == "own"

    def required_files(
        self, task: Task, protocol: Protocol, source: Path | None = None
    ) -> list[str]:
        return [] if protocol.prompts == "own" else [f"{self.name}/{task.card.file}"]

    def rows(self, task: Task, request: SampleRequest) -> Iterator[GraphWalksRow | FaultyRow]:
        return iter(()) if request.protocol.prompts == "own" else _official_rows(task, request)

    def least_length(self, task: Task, request: SampleRequest) -> int:
        least = request.length
        if request.protocol.prompts != "own":
            return least
        card: GraphWalksCard = task.card
        before, after = _affixes(request)
        for index in range(request.limit):
            sample, tokenizer = _graph_sample(task, request, index)
            layout = sample.scalable(tokenizer).layout(card.least_nodes)
            ids = tokenizer.encode_parts([*layout.start, *layout.end])
            tokens = len(before) + len(ids) + len(after) + card.max_new_tokens
            # The smallest graphs of all samples have nearly as many tokens.
            if 2 * tokens <= request.length:
                break
            least = max(least, tokens)
        return least

    def samples(self, task: Task, request: SampleRequest) -> Iterator[Prompt]:
        self.check_length(task, request)
        if request.protocol.prompts == "own":
            return _own_samples(task, request)
        return islice(_official_samples(task, request), request.limit)

    def score(self, task: str, row: SampleRecord, protocol: Protocol) -> float:
        start = ANSWER_START if protocol.prompts == "own" else ""
        prediction = start + row["prediction"]
        return graphwalks_metrics.score(protocol.scorer, prediction, row["references"])

    def detail_estimates(
        self, task: Task, rows: Sequence[SampleRecord], protocol: Protocol
    ) -> dict[str, Estimate]:
        """Return the share of answers that are exactly the right set."""
        exact = [row | {"score": float(row["score"] == 1)} for row in rows]
        return {"exact": mean_score(exact)}

    def task_averages(self, scores: Mapping[str, Score], protocol: Protocol) -> dict[str, float]:
        return {f"mean of {len(scores)} tasks": fmean(score.value for score in scores.values())}

    def length_averages(self, averages: Mapping[int, float]) -> dict[str, float]:
        return long_score(averages)


def _own_samples(task: Task, request: SampleRequest) -> Iterator[Prompt]:
    card: GraphWalksCard = task.card
    before, after = _affixes(request)
    budget = request.length - card.max_new_tokens - len(before) - len(after)
    for index in range(request.limit):
        sample, tokenizer = _graph_sample(task, request, index)
        fitted = fit_ids(tokenizer, sample.scalable(tokenizer), budget)
        assert fitted.ids is not None, "a prompt made of ids has them"
        yield Prompt(
            id=f"{request.length}/{index:04d}",
            ids=[*before, *fitted.ids.tolist(), *after],
            max_new_tokens=card.max_new_tokens,
            references=sample.answer(fitted.units),
            meta=fitted.meta,
            # The list ends with its line; what follows is no part of the answer.
            stop_strings=("\n",),
        )


def _graph_sample(
    task: Task, request: SampleRequest, index: int
) -> tuple[GraphSample, PiecewiseTokenizer]:
    card: GraphWalksCard = task.card
    assert card.steps is not None, "only tasks with graphs drawn here get here"
    tokenizer, names = _name_table(request.tokenizer, request.seed, pool_size(request.length))
    question = GraphQuestion(card.question, card.steps)
    # The version is part of every draw, so a changed task has other samples.
    seed = f"{task.name} {card.version} {request.seed} {index}"
    return GraphSample(question, names, seed, INSTRUCTION, card.least_nodes), tokenizer


# Encoding the names takes longer than all the rest, and all tasks and samples have the same.
@lru_cache(maxsize=2)
def _name_table(
    tokenizer: PreTrainedTokenizerBase, seed: int, count: int
) -> tuple[PiecewiseTokenizer, NameTable]:
    piecewise = PiecewiseTokenizer(tokenizer)
    return piecewise, NameTable.draw(piecewise, seed, count)


def _affixes(request: SampleRequest) -> tuple[list[int], list[int]]:
    """Return the ids before and after a prompt that is made of ids."""
    message = Message("", answer_prefix=f"\n{ANSWER_START}")
    return prompt_affixes(request.tokenizer, request.protocol, message)


def _official_rows(task: Task, request: SampleRequest) -> Iterator[GraphWalksRow | FaultyRow]:
    path = assets.path_of(f"graphwalks/{task.card.file}", request.data_dir)
    for row in read_container(path, GraphWalksRow.model_validate):
        if isinstance(row, FaultyRow) or row.problem_type == task.card.problem_type:
            yield row


def _official_samples(task: Task, request: SampleRequest) -> Iterator[Prompt]:
    """Yield the rows that fill more than half of the length.

    Raises:
        UserError: if there is none.
    """
    answer_tokens = request.protocol.max_new_tokens
    assert answer_tokens, "the protocol says how long answers may be"
    is_empty = True
    letters: list[int] = []
    for index, row in enumerate(_official_rows(task, request)):
        sample_id = f"{request.length}/{index:04d}"
        if isinstance(row, FaultyRow):
            yield Prompt.of_faulty_row(sample_id, row)
            continue
        letters.append(len(row.prompt))
        if not may_fill(request.length, letters[-1]):
            continue
        prompt = fit_prompt(
            request.tokenizer,
            request.protocol,
            Message(row.prompt),
            length=request.length,
            answer_tokens=answer_tokens,
        )
        if not fills(request.length, len(prompt.ids)):
            continue
        is_empty = False
        yield Prompt(
            id=sample_id,
            ids=prompt.ids,
            max_new_tokens=answer_tokens,
            references=row.answer_nodes,
            skip=prompt.skip,
        )
    if is_empty:
        raise empty_cell(request.length, letters)
