"""Batches that other programs score without an attention mask: rows answer as each alone."""

import pytest
import torch
from torch import Tensor, nn
from transformers import DynamicCache, LlamaForCausalLM
from transformers.models.llama import modeling_llama

import lampe
from lampe.methods import METHODS
from lampe.patching.unmasked_batch import ForwardInputs, RowEnd, row_ends
from tests.lampe.tiny import random_ids

pytestmark = pytest.mark.usefixtures("no_gradients_or_warnings")

LENGTHS = (200, 150, 149, 90, 40, 3)
PAD, END, TEXT = 0, 7, 50
LENGTH_FREE = {
    *("original", "dca", "rerope", "cope", "resonance", "streaming-llm", "lm-infinite"),
}
"""Methods whose positions are those of any other length."""


def _rows(lengths: tuple[int, ...] = LENGTHS) -> list[Tensor]:
    """Return rows of text in which no token may be padding."""
    return [random_ids(length).clamp(min=END + 1) for length in lengths]


def _padded(rows: list[Tensor], token: int = PAD) -> Tensor:
    """Return rows as one batch, padded on the right."""
    width = max(row.shape[1] for row in rows)
    batch = torch.full((len(rows), width), token)
    for index, row in enumerate(rows):
        batch[index, : row.shape[1]] = row[0]
    return batch


def _assert_rows_are_as_alone(model: LlamaForCausalLM, rows: list[Tensor], logits: Tensor) -> None:
    for index, row in enumerate(rows):
        alone = model(row).logits[0]
        torch.testing.assert_close(logits[index, : row.shape[1]], alone, atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", METHODS)
def test_rows_padded_with_the_padding_token_answer_as_each_alone(
    model: LlamaForCausalLM, name: str
) -> None:
    rows = _rows()
    with lampe.patch(model, name):
        _assert_rows_are_as_alone(model, rows, model(_padded(rows)).logits)
        _assert_rows_are_as_alone(model, rows, model(_padded(rows), use_cache=False).logits)


@pytest.mark.matrix
@pytest.mark.parametrize("padding", ["zeros", "eos", "eos as pad"])
@pytest.mark.parametrize("name", METHODS)
def test_rows_padded_with_a_token_of_text_answer_as_each_alone_or_are_refused(
    model: LlamaForCausalLM, name: str, padding: str
) -> None:
    """lm-evaluation-harness pads with zeros, which are "!" to some tokenizers."""
    rows = _rows()
    model.config.pad_token_id = model.generation_config.pad_token_id = None
    if padding != "zeros":
        model.config.eos_token_id = END
        model.config.pad_token_id = END if padding == "eos as pad" else None
    batch = _padded(rows, PAD if padding == "zeros" else END)
    with lampe.patch(model, name) as handle:
        if name in LENGTH_FREE:
            _assert_rows_are_as_alone(model, rows, model(batch).logits)
            return
        with pytest.raises(lampe.UnsupportedModel, match=r"row 1 .* mask, .* 150 to 200 tokens"):
            model(batch)
        with handle.prompt(200):
            _assert_rows_are_as_alone(model, rows, model(batch).logits)
        mask = (batch != batch[-1, -1]).long()
        _assert_rows_are_as_alone(model, rows, model(batch, attention_mask=mask).logits)


@pytest.mark.parametrize("way", ["body", "positional", "forward", "embeddings"])
def test_rows_are_found_or_refused_however_the_model_is_called(
    model: LlamaForCausalLM, way: str
) -> None:
    rows = _rows()
    batch = _padded(rows)
    calls = {
        "body": lambda ids: model.lm_head(model.model(input_ids=ids).last_hidden_state),
        "positional": lambda ids: model(ids, None).logits,
        "forward": lambda ids: model.forward(ids).logits,
        "embeddings": lambda ids: model(inputs_embeds=model.get_input_embeddings()(ids)).logits,
    }
    call = calls[way]
    with lampe.patch(model, "dca"):
        _assert_rows_are_as_alone(model, rows, call(batch))
    with lampe.patch(model, "lampe"):
        if way in ("body", "positional", "forward"):
            _assert_rows_are_as_alone(model, rows, call(batch))
        else:
            with pytest.raises(lampe.UnsupportedModel, match="1 to 200 tokens"):
                call(batch)


def test_equal_rows_need_no_mask_and_no_search(model: LlamaForCausalLM) -> None:
    rows = _rows((150, 150))
    with lampe.patch(model, "lampe"):
        _assert_rows_are_as_alone(model, rows, model(torch.cat(rows)).logits)


def test_an_answer_to_rows_that_ended_is_refused(model: LlamaForCausalLM) -> None:
    rows, token = _rows((150, 90)), random_ids(1, rows=2)
    for more in (token, random_ids(5, rows=2)):
        cache = DynamicCache()
        with lampe.patch(model, "lampe"):
            model(_padded(rows), past_key_values=cache)
            with pytest.raises(lampe.UnsupportedModel, match="pad rows on the left"):
                model(more, past_key_values=cache)
            model(torch.cat(_rows((60, 60))), past_key_values=(other := DynamicCache()))
            model(token, past_key_values=other)


def test_a_later_chunk_with_padding_is_refused(model: LlamaForCausalLM) -> None:
    cache, last = DynamicCache(), random_ids(10, rows=2)
    last[1, 5:] = PAD
    with lampe.patch(model, "lampe"):
        model(random_ids(100, rows=2), past_key_values=cache)
        with pytest.raises(lampe.UnsupportedModel, match="pad rows on the left"):
            model(last, past_key_values=cache)


def test_arguments_of_a_failed_call_are_forgotten(model: LlamaForCausalLM) -> None:
    rows = _rows((150, 90))
    with lampe.patch(model, "lampe"):
        with pytest.raises(lampe.UnsupportedModel, match="4D"):
            model(_padded(rows), attention_mask=torch.ones(2, 1, 150, 150))
        _assert_rows_are_as_alone(model, rows, model(_padded(rows)).logits)


@pytest.mark.parametrize(
    "positions",
    [[0, 1, 2, 3, 0, 1, 2, 3], [0, 0, 0, 1, 2, 3, 4, 5], [1, 1, 1, 0, 1, 2, 3, 4]],
    ids=["packed", "left", "left with ones"],
)
def test_positions_that_begin_anew_are_refused(
    model: LlamaForCausalLM, positions: list[int]
) -> None:
    ids = torch.cat(_rows((8, 8)))
    with lampe.patch(model, "dca"), pytest.raises(lampe.UnsupportedModel, match="position_ids"):
        model(ids, position_ids=torch.tensor([positions, list(range(8))]))


class _Tokens(nn.Module):
    """Model whose padding token is ``PAD`` and whose end token is ``END``."""

    def __init__(self, pad: int | None = PAD) -> None:
        super().__init__()
        self.config = modeling_llama.LlamaConfig(pad_token_id=pad, eos_token_id=[END, END + 1])


@pytest.mark.parametrize(
    ("ids", "arguments", "end"),
    [
        ([TEXT, TEXT, TEXT, TEXT], {}, RowEnd(4, 4)),
        ([TEXT, TEXT, PAD, PAD], {}, RowEnd(2, 2)),
        ([PAD, PAD, PAD, PAD], {}, RowEnd(0, 0)),
        ([PAD, TEXT, TEXT, TEXT], {}, RowEnd(1, 4)),
        ([TEXT, END, END, END], {}, RowEnd(1, 4)),
        ([TEXT, TEXT, TEXT, END + 1], {}, RowEnd(3, 4)),
        ([TEXT, END, END, END], {"labels": [TEXT, END, -100, -100]}, RowEnd(2, 2)),
        ([TEXT, END, END, END], {"labels": [-100, -100, -100, -100]}, RowEnd(1, 1)),
        ([TEXT, END, END, END], {"labels": [TEXT, END, END, END]}, RowEnd(1, 4)),
        ([TEXT, TEXT, END, END], {"position_ids": [0, 1, 2, 2]}, RowEnd(3, 3)),
        ([TEXT, TEXT, END, END], {"position_ids": [5, 6, 1, 1]}, RowEnd(2, 2)),
        ([TEXT, TEXT, TEXT, TEXT], {"position_ids": [0, 1, 0, 0]}, RowEnd(2, 2)),
        ([TEXT, TEXT, END, END], {"position_ids": [0, 1, 2, 3]}, RowEnd(2, 4)),
    ],
)
def test_the_end_of_a_row_is_told_from_tokens_labels_and_positions(
    ids: list[int], arguments: dict[str, list[int]], end: RowEnd
) -> None:
    tables = {name: torch.tensor([values]) for name, values in arguments.items()}
    inputs = ForwardInputs.of(_Tokens(), {"input_ids": torch.tensor([ids]), **tables})
    assert row_ends(inputs, 1, 4) == [end]


@pytest.mark.parametrize("shape", [(1, 4), (2, 3)])
def test_arguments_of_another_shape_tell_nothing(shape: tuple[int, int]) -> None:
    inputs = ForwardInputs.of(_Tokens(), {"input_ids": torch.full(shape, TEXT)})
    assert row_ends(inputs, 2, 4) == [RowEnd(1, 4)] * 2
