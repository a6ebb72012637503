"""Tasks of lm-evaluation-harness under any method: its data, prompts and metrics, our runs.

Users write ``--bench lm-eval/TASK``, where TASK is a task, a group or a tag of the harness, or a
YAML file of their own. The length of a cell is what the harness calls ``max_length``: a longer
prompt is cut on the left, a shorter one stays as it is, and texts for perplexity are cut into
windows of it. RULER's tasks make their data for that length.

Examples, prompts and requests are those of the harness's defaults, and metrics are computed by its
code when a sample is finished; records keep them, so that a report needs neither the harness nor
its data. The first metric that is a mean is the score, in percent here. Tasks that have
perplexities only, for which lower is better, are tasks of the bench ``lm-eval-ppl``.
"""

import json
from array import array
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from lampe_eval.benches.bench import (
    Bench,
    Continuations,
    Prompt,
    Sample,
    SampleRequest,
    ScoredText,
    Task,
)
from lampe_eval.cards import TaskCard
from lampe_eval.errors import UserError, report_warning
from lampe_eval.file_io import sha256_of_text
from lampe_eval.lm_eval_tasks.loading import TaskFile, files_of, find_task_files, load_task
from lampe_eval.lm_eval_tasks.metrics import (
    Aggregation,
    aggregation_of,
    estimates,
    is_share,
    metric_name,
    other_means,
    sample_metrics,
)
from lampe_eval.lm_eval_tasks.package import lm_eval_module
from lampe_eval.prompts.protocol import Protocol
from lampe_eval.records import SampleRecord
from lampe_eval.scoring.estimates import Estimate

if TYPE_CHECKING:
    from lampe_eval.lm_eval_tasks.requests import RequestEncoder

GENERATED_SAMPLES = 500
"""Samples of a task that generates its data: of each of RULER's in the harness."""
GENERATED_METRIC = "score"
"""Name of the metric of such a task; RULER names its metrics after lengths."""
FEWSHOT_SEED = 1234
"""Seed by which the harness draws examples, unless its user states another."""
ROLLING = "loglikelihood_rolling"


class LmEvalCard(TaskCard):
    """Card of a task of lm-evaluation-harness, made from the task.

    Attributes:
        lm_eval: version of the harness.
        task_version: version of the task, as the harness states it.
        generates_data: whether the task makes its data for a length and a tokenizer.
        aggregations: how the number of a cell comes from those of samples, by metric; None for a
            metric that is no mean and therefore left out.
    """

    lm_eval: str
    task_version: str = ""
    generates_data: bool = False
    aggregations: Mapping[str, Aggregation | None] = {}


class LmEval(Bench):
    """Tasks of lm-evaluation-harness, by name or YAML file."""

    name: ClassVar[str] = "lm-eval"
    protocols_of: ClassVar[str] = "lm-eval"
    card: ClassVar[type[TaskCard]] = LmEvalCard
    lists_tasks: ClassVar[bool] = False
    # Of the class, since both benches of this file share them.
    _files: ClassVar[dict[str, TaskFile]] = {}
    _rows: ClassVar[dict[tuple[str, str], tuple[Any, Any]]] = {}

    def find_tasks(self, name: str) -> list[Task]:
        if not name:
            raise UserError(
                "--bench: lm-eval needs a task of lm-evaluation-harness, such as lm-eval/arc_easy"
            )
        tasks: list[Task] = []
        for file in find_task_files(name):
            self._files[file.name] = file
            tasks.append(_task(file))
        return tasks

    def user_files(self, task: Task, protocol: Protocol, data_dir: Path | None) -> list[Path]:
        file = self._files[task.name]
        return files_of(file) if file.is_users else []

    def samples(self, task: Task, request: SampleRequest) -> Iterator[Sample]:
        # Here, because it imports the harness, which need not be installed.
        from lampe_eval.lm_eval_tasks.requests import RequestEncoder

        file = self._files[task.name]
        made_for = (request.length, request.tokenizer.name_or_path) if file.generates_data else None
        source = load_task(file.path, made_for)
        # Examples are drawn in the order of rows, from this seed on.
        source.set_fewshot_seed(FEWSHOT_SEED)
        encoder = RequestEncoder(request.tokenizer, request.length)
        chat = request.protocol.chat == "template" and bool(request.tokenizer.chat_template)
        for number, row in source.doc_iterator(limit=request.limit):
            row_hash = sha256_of_text(json.dumps(row, default=str))
            self._rows[task.name, row_hash] = source, row
            requests = encoder.requests_of(source, number, row, chat=chat)
            about = {
                "id": f"{request.length}/{number}",
                "references": _target(source, row),
                "extras": {"row_sha256": row_hash, "request_type": requests[0].request_type},
            }
            yield _sample(encoder, requests, about)

    def metrics(self, task: Task, row: SampleRecord) -> dict[str, Any]:
        source, data = self._rows[task.name, row["extras"]["row_sha256"]]
        answers: list[Any] = [row.get("prediction")]
        if "loglikelihoods" in row:
            answers = list(zip(row["loglikelihoods"], row["greedy"], strict=True))
        if row["extras"]["request_type"] == ROLLING:
            answers = [sum(row["loglikelihoods"])]
        repeats = source.config.repeats or 1
        instance = lm_eval_module("lm_eval.api.instance").Instance
        instances = [
            instance(row["extras"]["request_type"], data, (), index, resps=[answer] * repeats)
            for index, answer in enumerate(answers)
        ]
        return sample_metrics(source, data, instances, task.card.metric)

    def score(self, task: str, row: SampleRecord, protocol: Protocol) -> float:
        name, value = next(iter(row["metrics"].items()))
        if not is_share(value):
            raise UserError(f"{name} is {value!r}, no share from 0 to 1, which tables show")
        return float(value)

    def details(
        self, task: Task, rows: Sequence[SampleRecord], protocol: Protocol
    ) -> dict[str, float]:
        found = super().details(task, rows, protocol)
        means = other_means(task.card.aggregations, [row["metrics"] for row in rows])
        return {**found, **{name: mean for name, mean in means.items() if name not in found}}

    def detail_estimates(
        self, task: Task, rows: Sequence[SampleRecord], protocol: Protocol
    ) -> dict[str, Estimate]:
        _, *others = estimates(task.card.aggregations, [row["metrics"] for row in rows]).items()
        return dict(others)


class LmEvalPpl(LmEval):
    """Tasks of lm-evaluation-harness that have perplexities only; lower is better."""

    name: ClassVar[str] = "lm-eval-ppl"
    higher_is_better: ClassVar[bool] = False

    @property
    def has_answers(self) -> bool:
        """Return False: the model generates nothing, and no share is scored."""
        return False

    def estimate(self, task: Task, rows: Sequence[SampleRecord], protocol: Protocol) -> Estimate:
        """Return the first of the perplexities."""
        metrics = [row["metrics"] for row in rows]
        return next(iter(estimates(task.card.aggregations, metrics).values()))


def _task(file: TaskFile) -> Task:
    """Return a task of the harness as a task of the bench that has metrics of its kind.

    Raises:
        UserError: for a task that cannot be loaded, or that cannot run here.
    """
    card = LmEvalCard(
        metric=GENERATED_METRIC,
        samples=GENERATED_SAMPLES,
        lm_eval=version("lm_eval"),
        generates_data=file.generates_data,
    )
    if file.generates_data:
        return Task(LmEval.name, file.name, card)
    source = load_task(file.path, None)
    for attribute, problem in (
        ("MULTIMODAL", "its prompts have pictures or sound"),
        ("UNSAFE_CODE", "it runs code that the model writes"),
    ):
        if getattr(source, attribute, False):
            raise UserError(f"lm-eval/{file.name}: {problem}; run it with lampe-eval lm-eval")
    functions, higher = source.aggregation(), source.higher_is_better()
    aggregations = {name: aggregation_of(function) for name, function in functions.items()}
    shares = [
        name for name, found in aggregations.items() if found == "mean" and higher.get(name, True)
    ]
    losses = [name for name, found in aggregations.items() if found not in ("mean", None)]
    left_out = [name for name, found in aggregations.items() if found is None]
    if not shares and not losses:
        raise UserError(
            f"lm-eval/{file.name}: no metric is a mean over samples for which higher is better, or "
            f"a perplexity ({', '.join(aggregations)}); run it with lampe-eval lm-eval"
        )
    if left_out:
        report_warning(
            f"lm-eval/{file.name}: {', '.join(left_out)} is no mean over samples and left out; "
            "lampe-eval lm-eval computes it"
        )
    bench = LmEval if shares else LmEvalPpl
    main = metric_name((shares or losses)[0], source._filters[0].name)
    described = {
        "metric": main,
        "samples": len(source.eval_docs),
        "task_version": str(source.VERSION),
        "aggregations": aggregations,
    }
    return Task(bench.name, file.name, card.model_copy(update=described))


def _sample(encoder: "RequestEncoder", requests: list[Any], about: Mapping[str, Any]) -> Sample:
    """Return the sample of a row's requests.

    Raises:
        UserError: for requests that cannot run here.
    """
    kinds = {request.request_type for request in requests}
    if kinds == {"generate_until"} and len(requests) == 1:
        prompt = encoder.generation(requests[0])
        return Prompt(
            ids=prompt.ids,
            max_new_tokens=prompt.max_new_tokens,
            stop_strings=prompt.stop_strings,
            cut_tokens=prompt.cut_tokens,
            **about,
        )
    if kinds in ({"loglikelihood"}, {ROLLING}):
        try:
            asked = list(encoder.scored_texts(requests))
        except UserError as error:
            return Prompt(ids=(), max_new_tokens=0, error=str(error), **about)
        texts = tuple(ScoredText(array("i", ids), scored) for ids, scored in asked)
        return Continuations(texts=texts, **about)
    raise UserError(
        f"a sample has {len(requests)} requests of type {', '.join(sorted(kinds))}, which is not "
        "supported; run it with lampe-eval lm-eval"
    )


def _target(source: Any, row: Any) -> Any:
    """Return what the harness scores a row against, as a record can hold it."""
    target = source.doc_to_target(row)
    return target if isinstance(target, str | int | list) else str(target)
