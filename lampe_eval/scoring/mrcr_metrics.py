"""MRCR's score: how much of the right message an answer repeats, if it begins as it should.

Source: the function on the card of openai/mrcr, as groq/openbench at d03922c has it.
"""

from difflib import SequenceMatcher


def score(prediction: str, answer: str, prefix: str) -> float:
    """Return the similarity of an answer and the right one, 0 unless it starts with the prefix.

    Order and defaults are part of the score: from 200 characters of the right answer on, its
    frequent characters begin no match, so that long answers are right or nearly worthless.

    Args:
        prediction: the answer, with whatever white space it begins with.
        answer: the right answer, which begins with the prefix.
        prefix: random letters that the prompt asks for.
    """
    if not prediction.startswith(prefix):
        return 0.0
    texts = (prediction.removeprefix(prefix), answer.removeprefix(prefix))
    return SequenceMatcher(None, *texts).ratio()
