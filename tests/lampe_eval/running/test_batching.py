"""Batches: samples that one call can answer, within a number of tokens."""

from lampe_eval.benches.bench import FollowUp, Passage, Prompt
from lampe_eval.running.batching import make_batches


def _prompt(tokens: int, answer: int = 10, **options: object) -> Prompt:
    return Prompt(f"{tokens}", [0] * tokens, answer, (), **options)  # type: ignore[arg-type]


def _sizes(samples: list[Prompt | Passage], max_tokens: int) -> list[list[int]]:
    """Return the tokens of the samples of each batch."""
    sizes = []
    for batch in make_batches(samples, max_tokens):
        sizes.append([len(sample.ids) for sample in batch])
    return sizes


def test_a_batch_with_its_padding_has_at_most_max_tokens() -> None:
    samples = [_prompt(tokens) for tokens in (90, 80, 40, 30, 20)]
    assert _sizes(samples, 200) == [[90, 80], [40, 30, 20]]
    assert _sizes(samples, 300) == [[90, 80, 40], [30, 20]]
    assert _sizes(samples, 1) == [[90], [80], [40], [30], [20]]
    assert _sizes([], 1) == []


def test_prompts_with_other_answers_start_a_batch() -> None:
    assert _sizes([_prompt(6), _prompt(5, answer=11)], 1000) == [[6], [5]]
    assert _sizes([_prompt(6), _prompt(5, stop_token_ids=(3,))], 1000) == [[6], [5]]
    assert _sizes([_prompt(6), _prompt(5, decoding="squeezed")], 1000) == [[6], [5]]


def test_samples_that_always_run_alone() -> None:
    follow_up = FollowUp(lambda text: _prompt(1), lambda first, second: second)
    for sample in (
        _prompt(5, follow_up=follow_up),
        _prompt(5, skip=True),
        Passage("x", [0] * 5, 2),
    ):
        assert _sizes([_prompt(6), sample, sample], 1000) == [[6], [5], [5]]
    assert _sizes([Passage("x", [0] * 5, 2)] * 2, 1000) == [[5], [5]]
