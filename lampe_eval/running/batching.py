"""Order and batches of samples: longest first, questions about one document together."""

from collections.abc import Sequence

from lampe_eval.benches.bench import Prompt, Sample


def longest_first(samples: Sequence[Sample]) -> list[Sample]:
    """Return samples in the order in which batches are made of them.

    Questions about one document come together, so that it is read once.
    """
    longest: dict[str, int] = {}
    for sample in samples:
        if document := shared_document(sample):
            longest[document] = max(len(sample.ids), longest.get(document, 0))

    def place(sample: Sample) -> tuple[int, str, int]:
        document, tokens = shared_document(sample), len(sample.ids)
        return -longest.get(document, tokens), document, -tokens

    return sorted(samples, key=place)


def shared_document(sample: Sample) -> str:
    """Return the document that a sample shares with others; empty where it is read by itself."""
    return sample.document_sha256 if isinstance(sample, Prompt) and sample.shared_tokens else ""


def make_batches(
    samples: Sequence[Sample], max_tokens: int, whole_documents: bool = False
) -> list[tuple[Sample, ...]]:
    """Group samples into batches of at most `max_tokens`, padding and answers included.

    Args:
        samples: longest first, so that the first sample of a batch tells how long its rows become.
        max_tokens: most tokens of a batch; a sample with more is a batch by itself.
        whole_documents: whether all questions about a document make a batch, for workers that have
            memories of their own; otherwise each is a batch, and is stored when it is answered.
    """
    batches: list[tuple[Sample, ...]] = []
    batch: list[Sample] = []
    for sample in samples:
        if batch:
            if document := shared_document(batch[0]):
                fits = whole_documents and shared_document(sample) == document
            else:
                # Every row is padded to the first sample, the longest one.
                tokens = (len(batch) + 1) * tokens_with_answer(batch[0])
                fits = tokens <= max_tokens and _can_share_batch(batch[0], sample)
            if not fits:
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
        if prompt.skip or prompt.error or prompt.follow_up or prompt.shared_tokens:
            return False
    return (
        one.max_new_tokens == other.max_new_tokens
        and one.stop_token_ids == other.stop_token_ids
        and one.stop_strings == other.stop_strings
        and one.decoding == other.decoding
        and one.reserved_tokens == other.reserved_tokens
    )
