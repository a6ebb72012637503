"""Drawing the samples of a task for a run."""

import datetime
from array import array
from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import count
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from lampe_eval import models
from lampe_eval.benches import BENCHES
from lampe_eval.benches.bench import Continuations, Prompt, Sample, SampleRequest, Task
from lampe_eval.errors import UserError, describe_error, report_warning
from lampe_eval.models import ModelSource
from lampe_eval.prompts.chat_template import freeze_date
from lampe_eval.running.prepared_run import PreparedRun
from lampe_eval.running.shared_documents import with_document_plans
from lampe_eval.texts import documents
from lampe_eval.texts.jsonl_rows import FaultyRow


def load_tokenizer(source: ModelSource, date: datetime.date) -> PreTrainedTokenizerBase:
    """Load the tokenizer by which a run makes its prompts.

    Args:
        source: the model.
        date: date that its chat template writes, if it writes one.

    Raises:
        UserError: if it cannot be loaded.
    """
    tokenizer = models.load_tokenizer(source)
    freeze_date(tokenizer, date)
    return tokenizer


def draw_samples(
    prepared: PreparedRun,
    task: Task,
    length: int,
    tokenizer: PreTrainedTokenizerBase,
    *,
    release_prompts: bool = False,
    limit: int | None = None,
) -> list[Sample]:
    """Return the samples of a task at a length; all methods get the same ones.

    Args:
        prepared: the run.
        task: the task.
        length: tokens of the cell.
        tokenizer: the tokenizer of the model under test.
        release_prompts: whether to use the prompts of a method's own release.
        limit: samples at most; by default as many as the run has.

    Raises:
        UserError: if the task cannot have samples of this length, or a file cannot be read.
    """
    request = _request(
        prepared, task, length, tokenizer, limit=limit, release_prompts=release_prompts
    )
    protocol = prepared.resolved.protocols[task.bench]
    samples: list[Sample] = []
    for sample in BENCHES[task.bench].samples(task, request):
        if isinstance(sample, Continuations):
            samples.append(sample)
            continue
        # An array of 4-byte ids: a list of Python integers takes many times the memory.
        compact = replace(sample, ids=array("i", sample.ids))
        if isinstance(compact, Prompt):
            compact = replace(compact, plan_length=protocol.plan_length)
        samples.append(compact)
    return with_document_plans(samples) if protocol.plan == "document" else samples


def _request(
    prepared: PreparedRun,
    task: Task,
    length: int,
    tokenizer: PreTrainedTokenizerBase,
    *,
    limit: int | None = None,
    release_prompts: bool = False,
) -> SampleRequest:
    return SampleRequest(
        tokenizer,
        length,
        limit or prepared.limit(task),
        prepared.resolved.protocols[task.bench],
        prepared.resolved.suite.seed,
        user_text(prepared, task),
        prepared.resolved.suite.data_dir,
        release_prompts,
    )


def uses_release_prompts(prepared: PreparedRun, task: Task, model: str, method: str) -> bool:
    """Return whether a method gets prompts of its own release, unlike the other methods."""
    has_release_prompts = prepared.methods[model, method].has_release_prompts
    return prepared.resolved.protocols[task.bench].release_prompts and has_release_prompts


def user_text(prepared: PreparedRun, task: Task) -> Path | None:
    """Return the user's text that the samples of a task are made from, if the suite gives one."""
    option = BENCHES[task.bench].source_option
    source: Path | None = getattr(prepared.resolved.suite, option) if option else None
    return source


def check_samples(
    prepared: PreparedRun,
    tokenizers: Mapping[str, PreTrainedTokenizerBase],
    announce: Callable[[str], None],
) -> None:
    """Find out before a run what is impossible in it, and warn about bad rows of its data.

    Of every task at every length, the first sample of a good row is drawn for each model.

    Args:
        prepared: the run.
        tokenizers: the tokenizer of each model by its name.
        announce: called with a text for each task and length.

    Raises:
        UserError: for all tasks that lack a sample, in one line; for a bad text of the user's.
    """
    errors: dict[str, str] = {}
    for text in dict.fromkeys(user_text(prepared, task) for task in prepared.resolved.tasks):
        documents.check_texts(text, prepared.resolved.suite.data_dir)
    # A dictionary for its order: lengths and models mostly have the same rows.
    faults: dict[str, dict[str, None]] = {}
    for source in prepared.sources:
        tokenizer = tokenizers[source.name]
        for task in prepared.resolved.tasks:
            for length in prepared.lengths(source, task.bench):
                announce(f"trying {task.full_name} · {length}")
                try:
                    found = _check_cell(prepared, task, length, tokenizer)
                except Exception as error:
                    errors[task.full_name] = describe_error(error)
                else:
                    faults[task.full_name] = faults.get(task.full_name, {}) | dict.fromkeys(found)
    if errors:
        raise UserError("; ".join(f"{task}: {error}" for task, error in errors.items()))
    for name, in_task in faults.items():
        if not in_task:
            continue
        first, *others = in_task
        more = f" (and {len(others)} more rows)" if others else ""
        report_warning(f"{name}: {first}{more}; what is faulty is stored as an error, not scored")


def _check_cell(
    prepared: PreparedRun, task: Task, length: int, tokenizer: PreTrainedTokenizerBase
) -> list[str]:
    """Draw the first sample of a good row, and return what is wrong with the rows that are bad."""
    bench, request = BENCHES[task.bench], _request(prepared, task, length, tokenizer)
    bench.check_length(task, request)
    rows = enumerate(bench.rows(task, request))
    faults = {number: str(row) for number, row in rows if isinstance(row, FaultyRow)}
    first_good = next(number for number in count() if number not in faults)
    draw_samples(prepared, task, length, tokenizer, limit=first_good + 1)
    return list(faults.values())
