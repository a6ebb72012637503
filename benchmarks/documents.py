"""Time of questions about one document, read once, relative to the same questions read each alone.

    python -m benchmarks.documents [TOKENS [METHODS]]

Ten questions about a document of the pocket language, on the built-in model, under the plan of the
longest one either way. A ratio is the median of pairs (lowest to highest in parentheses); the first
pair is not counted. On a machine that is busy with other work, the processor's seconds tell more
than wall-clock seconds.
"""

import statistics
import sys
import time
import warnings
from collections.abc import Sequence
from dataclasses import replace

from rich.console import Console
from transformers import PreTrainedTokenizerBase

import lampe
from lampe_eval import models
from lampe_eval.benches.bench import Prompt
from lampe_eval.checkpoint_files import find_model
from lampe_eval.engine.local_engine import LocalEngine
from lampe_eval.method_specs import parse_methods
from lampe_eval.models import describe_model
from lampe_eval.prompts.tokenization import encode
from lampe_eval.running.shared_documents import with_document_plans
from lampe_eval.suite import parse_length, split_names
from lampe_eval.texts import pocket_language

PAIRS = 5
QUESTIONS = 10
ANSWER_TOKENS = 16
COLORS = ("red", "blue", "green", "old", "new", "small", "white", "black", "yellow", "long")


def questions(tokenizer: PreTrainedTokenizerBase, tokens: int) -> list[Prompt]:
    """Return questions about one document of that many tokens, with its plan."""
    # A word of this language has a token at least.
    document = encode(tokenizer, pocket_language.text(0, tokens))[:tokens]
    prompts = []
    for color in COLORS[:QUESTIONS]:
        text = f"\nWhat is the code of the {color} lamp? The code of the {color} lamp is"
        ids = document + encode(tokenizer, text, continuation=True)
        prompts.append(
            Prompt(color, ids, ANSWER_TOKENS, (), document_sha256="d", plan_length="prompt+answer")
        )
    return [sample for sample in with_document_plans(prompts) if isinstance(sample, Prompt)]


def main(tokens: str = "2k", methods: str = "original,lampe") -> None:
    """Print the ratios of methods."""
    source = describe_model(*find_model("pocket"))
    model, tokenizer = models.load_model(source, "cpu")
    engine = LocalEngine(model, tokenizer)
    shared = questions(tokenizer, parse_length(tokens))
    alone = [replace(prompt, shared_tokens=0) for prompt in shared]
    console = Console()
    for spec in parse_methods(split_names(methods)):
        ratios: list[tuple[float, float]] = []
        with engine.patched(spec.build(source.settings), source.geometry.window, "auto"):
            for _ in range(PAIRS + 1):
                once, each = _seconds(engine, shared), _seconds(engine, alone)
                ratios.append((once[0] / each[0], once[1] / each[1]))
        for name, found in zip(
            ("wall-clock", "processor's"), zip(*ratios[1:], strict=True), strict=True
        ):
            console.print(
                f"{spec.label}: {QUESTIONS} questions on {tokens} tokens, {name} seconds: "
                f"{statistics.median(found):.3f} ({min(found):.3f} to {max(found):.3f})"
            )


def _seconds(engine: LocalEngine, prompts: Sequence[Prompt]) -> tuple[float, float]:
    """Return wall-clock and processor's seconds of prompts one after another."""
    started, worked = time.perf_counter(), time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", lampe.PositionWarning)
        for prompt in prompts:
            engine.answer([prompt])
    return time.perf_counter() - started, time.process_time() - worked


if __name__ == "__main__":
    main(*sys.argv[1:])
