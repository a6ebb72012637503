"""Cells of rows that have a length of their own and must not be cut.

A cell has the rows that take more than half of its length, so that cells of doubled lengths share
none. Lengths are counted in the tokens of the model under test: sizes that a data set states are
those of another tokenizer.
"""

from collections.abc import Sequence

from lampe_eval.errors import UserError

LETTERS_PER_TOKEN = 4
"""Letters that a token has on average in English text."""
MAX_LETTERS_PER_TOKEN = 8
"""More letters than a token has on average in a text without long runs of white space."""


def may_fill(length: int, letters: int) -> bool:
    """Return whether a text may take more than half of a length and no more than all of it.

    It spares the encoding of texts that are far too short or too long.
    """
    return length < 2 * letters and letters <= MAX_LETTERS_PER_TOKEN * length


def fills(length: int, tokens: int) -> bool:
    """Return whether tokens are more than half of a length and no more than all of it."""
    return length < 2 * tokens <= 2 * length


def empty_cell(length: int, letters: Sequence[int]) -> UserError:
    """Return the error for a length that no row of a task fills.

    Args:
        length: the length.
        letters: letters of each row.
    """
    if not letters:
        return UserError(f"at length {length}: the files have no row of this task")
    tokens = f"{length // 2 + 1} to {length} tokens"
    return UserError(
        f"at length {length}: no row has {tokens}; they have {min(letters)} to {max(letters)} "
        f"letters, about {min(letters) // LETTERS_PER_TOKEN} to "
        f"{max(letters) // LETTERS_PER_TOKEN} tokens; use such --lengths"
    )
