"""Time to generate RULER's tasks in our own wording, beside encoding one such prompt as a whole.

    python -m benchmarks.ruler [LENGTH] [SAMPLES]

The tokenizer is a byte-level BPE with Llama 3's pattern, trained on the spot. Questions need corpora that are fetched,
so their two tasks are left out.
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

LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def main(length: int = 131_072, samples: int = 50) -> None:
    tokenizer = byte_level()
    shelf = SharedCorpora(tokenizer, documents)
    table = Table(title=f"RULER at {length} tokens, {samples} samples a task", title_justify="left")
    for title in ("task", "seconds", "a sample, in encodings of its text"):
        table.add_column(title, justify="right" if title != "task" else "left")
    for task in bench_tasks("ruler"):
        if task.card.parameters.kind != "qa":
            began = time.perf_counter()
            built = [
                build_sample(task.name, task.card, SampleSpec(shelf, length), index)
                for index in range(samples)
            ]
            passed = time.perf_counter() - began
            text = tokenizer.decode(built[0].ids.tolist()) if built[0].ids is not None else ""
            table.add_row(
                task.name,
                f"{passed:.1f}",
                f"{passed / samples / encoding_time(tokenizer, text):.3f}",
            )
    Console().print(table)


def byte_level() -> PreTrainedTokenizerBase:
    """A tokenizer of 32,000 pieces or as many as the generated text gives."""
    tokenizer = Tokenizer(models.BPE())
    split = pre_tokenizers.Split(Regex(LLAMA3), "isolated")
    bytes_of = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, bytes_of])
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=32_000, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator([*documents(20_000), " ".join(word_lists.word_pool())], trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer)  # type: ignore[no-untyped-call]


def documents(count: int) -> Iterator[str]:
    """Texts of the pocket language."""
    return (pocket_language.text(seed, min(count, 20_000)) for seed in range(8))


def encoding_time(tokenizer: PreTrainedTokenizerBase, text: str) -> float:
    """Seconds to encode a text as a whole."""
    began = time.perf_counter()
    tokenizer(text, add_special_tokens=False, verbose=False)
    return time.perf_counter() - began


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
