"""Cells of rows that have a length of their own and must not be cut.

A cell has the rows that take more than half of its length, so that cells of doubled lengths share
none. Lengths are counted in the tokens of the model under test: sizes that a data set states are
those of another tokenizer.
"""

from lampe_eval.errors import UserError

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


def empty_cell(length: int) -> UserError:
    """Return the error for a length that no row of a task fills."""
    return UserError(
        f"at length {length}: no row has {length // 2 + 1} to {length} tokens; use other --lengths"
    )
