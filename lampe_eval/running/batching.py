"""Batches of samples that fit a number of tokens."""

from collections.abc import Sequence

from lampe_eval.benches.bench import Prompt, Sample


def longest_first(samples: Sequence[Sample]) -> list[Sample]:
    """Return samples in the order in which batches are made of them."""
    return sorted(samples, key=lambda sample: -len(sample.ids))


def make_batches(samples: Sequence[Sample], max_tokens: int) -> list[tuple[Sample, ...]]:
    """Group samples into batches of at most `max_tokens`, padding and answers included.

    Args:
        samples: longest first, so that the first sample of a batch tells how long its rows become.
        max_tokens: most tokens of a batch; a sample with more is a batch by itself.
    """
    batches: list[tuple[Sample, ...]] = []
    batch: list[Sample] = []
    for sample in samples:
        if batch:
            # Every row is padded to the first sample, the longest one.
            tokens = (len(batch) + 1) * tokens_with_answer(batch[0])
            if tokens > max_tokens or not _can_share_batch(batch[0], sample):
                batches.append(tuple(batch))
                batch = []
        batch.append(sample)
    if batch:
        batches.append(tuple(batch))
    return batches


def tokens_with_answer(sample: Sample) -> int:
    """Return the tokens of a sample and of the longest answer it may get."""
    return len(sample.ids) + (sample.max_new_tokens if isinstance(sample, Prompt) else 0)


def _can_share_batch(one: Sample, other: Sample) -> bool:
    """Return whether one call of ``generate`` can answer both samples."""
    if not (isinstance(one, Prompt) and isinstance(other, Prompt)):
        return False
    for prompt in (one, other):
        # A follow-up question depends on the answer, so each prompt has its own second call.
        if prompt.skip or prompt.error or prompt.follow_up:
            return False
    return (
        one.max_new_tokens == other.max_new_tokens
        and one.stop_token_ids == other.stop_token_ids
        and one.stop_strings == other.stop_strings
        and one.decoding == other.decoding
        and one.plan_length == other.plan_length
    )
