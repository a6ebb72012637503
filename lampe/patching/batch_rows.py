"""Rows of a batch: the columns of a padded batch that hold a row's tokens.

A padded row has fewer tokens than the batch has columns, so each row is attended to by itself, with
positions counted from its own first token. A batch without padding is attended to as a whole.
"""

from dataclasses import dataclass

from lampe.patching.forward_layout import ForwardLayout


@dataclass(frozen=True)
class BatchRow:
    """Padded row of a batch, or all rows of a batch without padding.

    Attributes:
        index: index of the row in the batch; None for all rows.
        tokens: columns that hold its tokens, counted from the start of the KV cache.
        layout: layout of the forward call.
    """

    index: int | None
    tokens: range
    layout: ForwardLayout

    @property
    def batch(self) -> slice:
        """Return the slice of the batch dimension."""
        return slice(None) if self.index is None else slice(self.index, self.index + 1)

    @property
    def query_columns(self) -> slice:
        """Return the slice of the call's new columns that hold tokens of the row, if any."""
        # A left-padded row may begin within this call, or in a later one; a right-padded row may
        # have ended before it. Both give an empty slice.
        first = max(0, self.tokens.start - self.layout.start)
        return slice(first, max(first, self.tokens.stop - self.layout.start))

    @property
    def key_columns(self) -> slice:
        """Return the slice of a layer's keys that hold tokens of the row."""
        # A static KV cache hands out all its columns, those that are still empty included.
        first = self._first_key_column - self.layout.offset
        return slice(first, self.tokens.stop - self.layout.offset)

    @property
    def first_query(self) -> int:
        """Return the token index of the first query, counted from the row's first token."""
        return max(self.layout.start - self.tokens.start, 0)

    @property
    def first_key(self) -> int:
        """Return the token index of the first key, counted from the row's first token."""
        return self._first_key_column - self.tokens.start

    @property
    def prompt_length(self) -> int:
        """Return the tokens of the row's prompt, those that later calls will bring included."""
        # Before the prompt's end, its missing columns are added: rows are padded on the left there,
        # so each of them brings a token to every row. After it, answer tokens are subtracted.
        return max(1, len(self.tokens) + self.layout.prompt_end - self.layout.stop)

    @property
    def _first_key_column(self) -> int:
        # The cache of a sliding window has dropped the columns before the offset.
        return max(self.tokens.start, self.layout.offset)


def batch_rows(layout: ForwardLayout) -> list[BatchRow]:
    """Return the rows that have tokens; one entry for all of them where none is padded."""
    if not layout.padded:
        return [BatchRow(None, layout.rows[0], layout)]
    # A row has no token yet where a left-padded batch arrives in chunks.
    return [BatchRow(index, tokens, layout) for index, tokens in enumerate(layout.rows) if tokens]
