"""Command `lampe-eval recommend`: which method of a run to use, and how."""

import json
from collections.abc import Iterator
from pathlib import Path

import lampe
from lampe_eval import checkpoint_files, models, terminal
from lampe_eval.cards import ModelCard
from lampe_eval.errors import UserError
from lampe_eval.method_specs import parse_methods
from lampe_eval.report.recommendation_table import RecommendationTable, recommendation_tables
from lampe_eval.report.tables import print_table
from lampe_eval.results.gathered_runs import gather_runs
from lampe_eval.results.method_summaries import summarize_models


def recommend(run: Path, length: int | None, max_slowdown: float | None) -> None:
    """Print what a run says of each method, the recommended one, and what puts it to use.

    Args:
        run: folder of the run.
        length: length in tokens to recommend a method for; by default the longest of the run.
        max_slowdown: largest ratio of times to the unpatched model's; None for any.

    Raises:
        UserError: if the folder is no run, or lacks the unpatched model, a second length, or the
            length asked for.
    """
    gathered = gather_runs([run])
    console = terminal.console()
    for found in recommendation_tables(summarize_models(gathered, length), max_slowdown):
        print_table(found.table, console)
        for line in found.lines:
            console.print(line, soft_wrap=True, markup=False, highlight=False)
        if found.method:
            for line in _usage(found, found.method):
                console.print(line, soft_wrap=True, markup=False, highlight=False)


def _usage(found: RecommendationTable, label: str) -> Iterator[str]:
    """Yield the lines that put a method to use."""
    try:
        card, name = checkpoint_files.find_model(found.model)
        path = checkpoint_files.checkpoint_path(card)
    except UserError:
        # a model file that is not here any more
        card, name, path = ModelCard(path=found.model), found.model, found.model
    (spec,) = parse_methods([label])
    method = spec.build(card.settings)
    yield ""
    yield from _snippet(path, checkpoint_files.gguf_file(card), method)
    configuration = _configuration(card, name, method, found.length)
    if configuration:
        yield ""
        yield (
            f"or without a patch, in the model's configuration; it is the rope of {found.length} "
            "tokens, which shorter prompts get too:"
        )
        yield configuration


def _snippet(path: str, gguf: str, method: lampe.Method) -> Iterator[str]:
    file = f", gguf_file={gguf!r}" if gguf else ""
    yield "import lampe"
    yield "from transformers import AutoModelForCausalLM"
    yield ""
    yield f"model = AutoModelForCausalLM.from_pretrained({path!r}{file})"
    if method.name == "original":
        return
    defaults = lampe.method_of(method.name).settings
    changed = {key: value for key, value in method.settings.items() if value != defaults[key]}
    # names of a composed method's settings have a dot, which no keyword may have
    dotted = any("." in key for key in changed)
    given = f"**{changed!r}" if dotted else ", ".join(f"{k}={v!r}" for k, v in changed.items())
    yield f"lampe.patch(model, {method.name!r}{', ' if given else ''}{given})"


def _configuration(card: ModelCard, name: str, method: lampe.Method, length: int) -> str:
    """Return the rope parameters that do the same in transformers; empty if there are none."""
    if method.name == "original":
        return ""
    try:
        source = models.describe_model(card, name)
    except UserError:
        return ""
    resolved = method.resolved(source.geometry, length)
    parameters = resolved.rope_parameters(source.geometry, length)
    return json.dumps({"rope_parameters": dict(parameters)}) if parameters else ""
