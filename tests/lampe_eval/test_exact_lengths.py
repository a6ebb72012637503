"""Prompts made here are exact to the token, with large tokenizers and in any template."""

from collections.abc import Sequence
from functools import cache
from itertools import product
from random import Random

import pytest
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from lampe_eval import checkpoint_files, user_cache
from lampe_eval.benches import BENCHES, bench_tasks
from lampe_eval.benches.bench import Prompt, SampleRequest, Task
from tests.lampe_eval.ruler import ruler_examples
from tests.letters import LLAMA3

SMOLLM2 = "smollm2-135m-instruct"
# Read before the tests get caches of their own.
CACHE = user_cache.root()

LLAMA3_TOKENS = 128_256
ALPHABET = "abcdefghijklmnopqrstuvwxyz0123456789"


@cache
def llama3_sized() -> PreTrainedTokenizerBase:
    """Return a byte-level BPE with Llama 3's pattern, its number of tokens, and its template."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    pairs = ["".join(pair) for pair in product(ALPHABET, repeat=2)]
    merges = [(pair[0], pair[1]) for pair in pairs] + [("Ġ", letter) for letter in ALPHABET]
    count = LLAMA3_TOKENS - len(alphabet) - len(merges)
    places = Random(0).sample(range(len(pairs) ** 2), count)
    merges += [(pairs[place // len(pairs)], pairs[place % len(pairs)]) for place in places]
    vocab = alphabet + ["".join(merge) for merge in merges]
    numbers = {piece: number for number, piece in enumerate(vocab)}
    tokenizer = Tokenizer(models.BPE(vocab=numbers, merges=merges))
    split = pre_tokenizers.Split(Regex(ruler_examples.LLAMA3), "isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    found = PreTrainedTokenizerFast(tokenizer_object=tokenizer)  # type: ignore[no-untyped-call]
    found.chat_template = LLAMA3
    return found


def smollm2() -> PreTrainedTokenizerBase:
    """Return SmolLM2's tokenizer from the cache, or skip."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LAMPE_EVAL_CACHE", str(CACHE))
        folder = checkpoint_files.converted_folder(f"models/{SMOLLM2}")
    if not folder.is_dir():
        pytest.skip(f"{SMOLLM2} is not in {CACHE}; get it with: make real")
    found: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(folder)
    return found


def generated_tasks() -> list[Task]:
    """Return the tasks of the later benches whose prompts are made here."""
    tasks: list[Task] = []
    for name in ("babilong", "latent", "graphwalks", "helmet"):
        fair = BENCHES[name].protocol("fair")
        tasks += [task for task in bench_tasks(name) if BENCHES[name].has_task(task, fair)]
    return tasks


TASKS = {task.full_name: task for task in generated_tasks()}


def _without_dots(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> list[int]:
    """Return ids without the dots that fill a length, of which each is a token in prompts."""
    return [token for token in ids if str(tokenizer.decode([token])).strip(".")]


def _check(name: str, tokenizer: PreTrainedTokenizerBase, length: int, limit: int) -> None:
    task = TASKS[name]
    bench = BENCHES[task.bench]
    for protocol in ("fair", "fair:chat=none"):
        request = SampleRequest(tokenizer, length, limit, bench.protocol(protocol))
        samples = list(bench.samples(task, request))
        assert len(samples) == limit
        for sample in samples:
            assert isinstance(sample, Prompt)
            assert len(sample.ids) + sample.max_new_tokens == length
            # A program that reads the text gets the same tokens.
            text = str(tokenizer.decode(sample.ids))
            read = tokenizer(text, add_special_tokens=False)["input_ids"]
            assert _without_dots(tokenizer, read) == _without_dots(tokenizer, sample.ids)


def test_the_tokenizer_has_as_many_tokens_as_llama_3() -> None:
    assert len(llama3_sized()) == LLAMA3_TOKENS


@pytest.mark.parametrize("name", TASKS)
def test_prompts_are_exact_to_the_token(name: str) -> None:
    _check(name, llama3_sized(), 3001, 2)


@pytest.mark.slow
@pytest.mark.parametrize("length", [2048, 4097, 16_384])
@pytest.mark.parametrize("name", TASKS)
def test_all_prompts_are_exact_to_the_token(name: str, length: int) -> None:
    _check(name, llama3_sized(), length, 22)


@pytest.mark.real
@pytest.mark.parametrize("length", [2048, 4097])
@pytest.mark.parametrize("name", TASKS)
def test_prompts_are_exact_with_smollm2(name: str, length: int) -> None:
    _check(name, smollm2(), length, 11)
