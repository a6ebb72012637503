"""Batches without an attention mask: where the tokens of each row may end.

Other programs score rows of unequal length in one batch, padded on the right, without a mask
(``HFLM.loglikelihood`` of lm-evaluation-harness). Causal attention never looks at that padding, so
a model whose positions do not depend on the length needs no mask. A method that depends on it does:
the width of the batch is not the length of a row. What padding can be told from text is found here.
A token that pads in one row may be text in another: then the end of the row stays open.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lampe.errors import UnsupportedModel

IGNORED_LABEL = -100
"""Label of transformers for tokens without a loss, padding among them."""
ZERO_PADDING = 0
"""Token with which some programs pad, whatever the tokenizer's padding is (tensors of zeros)."""


@dataclass(frozen=True)
class ForwardInputs:
    """Arguments of a model's forward call that tell text from padding.

    Attributes:
        model: the model that was called.
        masked: whether it was given an attention mask.
        input_ids: ``[B, L]``, or None.
        position_ids: ``[B, L]``, or None.
        labels: ``[B, L]``, or None.
    """

    model: nn.Module
    masked: bool
    input_ids: Tensor | None
    position_ids: Tensor | None
    labels: Tensor | None

    @classmethod
    def of(cls, model: nn.Module, arguments: Mapping[str, Any]) -> "ForwardInputs":
        """Return those of a call with these arguments."""
        return cls(
            model,
            arguments.get("attention_mask") is not None,
            _table(arguments.get("input_ids")),
            _table(arguments.get("position_ids")),
            _table(arguments.get("labels")),
        )


@dataclass(frozen=True)
class RowEnd:
    """Number of columns from a row's first to its last token, as far as it can be told.

    Attributes:
        least: where all that may be padding is padding.
        most: where all that may be text is text.
    """

    least: int
    most: int


@dataclass(frozen=True)
class PaddingTokens:
    """Tokens that may pad a row.

    Attributes:
        certain: those that are never text.
        possible: those that may be text as well, such as a padding token that also ends answers.
    """

    certain: frozenset[int]
    possible: frozenset[int]

    @classmethod
    def of(cls, model: nn.Module) -> "PaddingTokens":
        """Return those that the configurations of a model name."""
        config = getattr(model, "config", None)
        text = None if config is None else config.get_text_config(decoder=True)
        configs = [config, text, getattr(model, "generation_config", None)]
        padding = _token_ids(configs, "pad_token_id")
        ends = _token_ids(configs, "eos_token_id")
        certain = padding - ends - _token_ids(configs, "bos_token_id")
        return cls(certain, (padding | ends | {ZERO_PADDING}) - certain)


def row_ends(inputs: ForwardInputs | None, rows: int, columns: int) -> list[RowEnd]:
    """Return where the tokens of each row of a call without a mask end.

    Args:
        inputs: arguments of the call; None where they are not known.
        rows: rows of the batch.
        columns: new tokens of each row.

    Raises:
        UnsupportedModel: for position ids that do not count up by one within a row.
    """
    if inputs is None or inputs.input_ids is None or inputs.input_ids.shape != (rows, columns):
        return [RowEnd(min(1, columns), columns)] * rows
    ids, labels, positions = inputs.input_ids, inputs.labels, inputs.position_ids
    facts = [ids[:, 0], ids[:, -1], _trailing(ids == ids[:, -1:])]
    zero = torch.zeros_like(ids[:, 0])
    if labels is None or labels.shape != ids.shape:
        facts.append(zero)
    else:
        facts.append(_trailing(labels == IGNORED_LABEL).to(ids.device))
    if positions is None or positions.shape[0] not in (1, rows):
        facts += [zero, zero]
    else:
        facts += _position_faults(positions.to(ids.device).expand(rows, -1))
    tokens = PaddingTokens.of(inputs.model)
    # All numbers go to the host at once: this is the only wait for the device in the call.
    return [_row_end(tokens, columns, *row) for row in torch.stack(facts, dim=1).tolist()]


def _row_end(
    tokens: PaddingTokens,
    columns: int,
    first: int,
    last: int,
    repeated: int,
    ignored: int,
    position_padding: int,
    position_breaks: int,
) -> RowEnd:
    """Return where a row ends.

    Args:
        tokens: tokens that may pad.
        columns: columns of the row.
        first: its first token.
        last: its last token.
        repeated: how often the last token ends the row.
        ignored: tokens at its end without a label.
        position_padding: tokens at its end whose position is not one more than that before.
        position_breaks: such tokens before those.
    """
    if position_breaks:
        raise UnsupportedModel(
            "position_ids do not count up by one, and there is no attention mask: packed sequences "
            "are not supported, and rows that are padded on the left need a mask"
        )
    padding = 0
    if position_padding:
        padding = position_padding
    elif last in tokens.certain:
        padding = repeated
    elif last in tokens.possible:
        # Of tokens that may be text as well, those without a label at the end are none.
        padding = min(repeated, ignored)
        if not padding:
            return RowEnd(columns - repeated, columns)
    if first in tokens.certain and padding < columns:
        # Padding on the left is seen by an unpatched model without a mask, so nothing is derived.
        return RowEnd(1, columns)
    return RowEnd(columns - padding, columns - padding)


def sampled_lengths(least: int, most: int) -> list[int]:
    """Return lengths to compare, from the largest down: distances of powers of two, and the ends.

    A method that depends on the length shows it there: the number of a plan's region or group
    grows with the length, and the length itself goes into all others.
    """
    distances = [0, *(1 << power for power in range((most - least).bit_length()))]
    return [*(most - distance for distance in distances), least]


def _trailing(true: Tensor) -> Tensor:
    """Return how many values at the end of each row ``[B, L]`` are true, ``[B]``."""
    return true.flip(-1).int().cumprod(-1).sum(-1)


def _position_faults(positions: Tensor) -> list[Tensor]:
    """Return the columns at the end of each row that break its count, and those before, ``[B]``."""
    breaks = positions.diff(dim=-1) != 1
    trailing = _trailing(breaks)
    return [trailing, breaks.sum(-1) - trailing]


def _table(value: Any) -> Tensor | None:
    """Return an argument if it is a table ``[B, L]``."""
    return value if isinstance(value, Tensor) and value.ndim == 2 else None


def _token_ids(configs: Iterable[Any], name: str) -> frozenset[int]:
    """Return the tokens that configurations name; each may name one, several or none."""
    ids: set[int] = set()
    for config in configs:
        value: Any = getattr(config, name, None)
        several = value if isinstance(value, list | tuple) else [value]
        ids.update(token for token in several if isinstance(token, int))
    return frozenset(ids)
