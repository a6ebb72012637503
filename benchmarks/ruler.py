"""Time to generate a sample of each RULER task, relative to encoding its text once.

    python -m benchmarks.ruler [LENGTH] [SAMPLES]

The tokenizer is a byte-level BPE with Llama 3's pattern, trained when the benchmark starts. The two
question tasks are left out, because their corpora must be downloaded.
"""

import sys
import time
from collections.abc import Iterator

from rich.console import Console
from rich.table import Table
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from lampe_eval.benches import bench_tasks
from lampe_eval.ruler import SampleSpec, SharedCorpora, build_sample, word_lists
from lampe_eval.texts import pocket_language

LLAMA3_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def main(length: int = 131_072, samples: int = 50) -> None:
    """Print a table of all tasks.

    Args:
        length: tokens of a sample.
        samples: samples per task.
    """
    tokenizer = train_tokenizer()
    corpora = SharedCorpora(tokenizer, documents)
    title = f"RULER at {length} tokens, {samples} samples per task"
    table = Table(title=title, title_justify="left")
    table.add_column("task")
    table.add_column("seconds", justify="right")
    table.add_column("seconds per sample / seconds to encode its text", justify="right")
    for task in bench_tasks("ruler"):
        if task.card.parameters.kind == "qa":
            continue
        spec = SampleSpec(corpora, length)
        start = time.perf_counter()
        first = build_sample(task.name, task.card, spec, 0)
        for index in range(1, samples):
            build_sample(task.name, task.card, spec, index)
        seconds = time.perf_counter() - start
        text = tokenizer.decode(first.ids.tolist()) if first.ids is not None else ""
        ratio = seconds / samples / encoding_seconds(tokenizer, text)
        table.add_row(task.name, f"{seconds:.1f}", f"{ratio:.3f}")
    Console().print(table)


def train_tokenizer() -> PreTrainedTokenizerBase:
    """Train a tokenizer of 32,000 tokens, or as many as the generated text yields."""
    tokenizer = Tokenizer(models.BPE())
    split = pre_tokenizers.Split(Regex(LLAMA3_PATTERN), "isolated")
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, byte_level])
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=32_000, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator([*documents(20_000), " ".join(word_lists.word_pool())], trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer)  # type: ignore[no-untyped-call]


def documents(count: int) -> Iterator[str]:
    """Yield texts of the pocket language, of up to ``count`` words each."""
    for seed in range(8):
        yield pocket_language.text(seed, min(count, 20_000))


def encoding_seconds(tokenizer: PreTrainedTokenizerBase, text: str) -> float:
    """Return the seconds that it takes to encode a text once."""
    start = time.perf_counter()
    tokenizer(text, add_special_tokens=False, verbose=False)
    return time.perf_counter() - start


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
