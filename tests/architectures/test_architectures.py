"""Every causal-LM type of the installed transformers: patched and checked, or refused.

Prompts are longer than the tiny models' window, and several times as long as their sliding windows
and chunks.
"""

import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import transformers
from torch import Tensor
from transformers import Cache, PreTrainedModel

import lampe
from tests.architectures.shrink import VOCABULARY, WINDOW, in_precision, tiny_model, types
from tests.architectures.verdicts import NOT_REPRODUCIBLE, SUPPORTED, UNTRIED, verdict
from tools.supported_models_page import supported_models_page

PROMPT, ANSWER = 90, 5
METHODS = ("lampe", "selfextend", "dca")
CLOSE = {"atol": 2e-4, "rtol": 2e-4}
DOCUMENT = Path(__file__).parents[2] / "docs" / "models.md"

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(autouse=True)
def no_gradients() -> Iterator[None]:
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _ids(length: int) -> Tensor:
    # With this seed no router of experts is at a tie; a tie within rounding may go either way
    # (gpt_oss with seed 2).
    return torch.randint(3, VOCABULARY, (1, length), generator=torch.Generator().manual_seed(3))


def _logits(model: PreTrainedModel, ids: Tensor) -> Tensor:
    out: Tensor = model(ids, use_cache=False).logits
    return out


def _answer(
    model: PreTrainedModel, ids: Tensor, cache: Cache | None = None
) -> tuple[Tensor, Tensor]:
    """Return prompt and greedy answer through the cache, and logits ``[1, ANSWER, vocabulary]``."""
    out = model.generate(  # type: ignore[operator]
        ids, max_new_tokens=ANSWER, min_new_tokens=ANSWER, do_sample=False, output_logits=True,
        return_dict_in_generate=True, pad_token_id=0, past_key_values=cache,
    )  # fmt: skip
    return out.sequences, torch.stack(out.logits, dim=1)


@pytest.mark.matrix
@pytest.mark.parametrize("name", types())
def test_a_type_is_checked_or_refused(name: str) -> None:
    result = verdict(name)
    if result.state != SUPPORTED:
        assert result.reason
        assert "\n" not in result.reason
        return
    model, ids = tiny_model(name), _ids(PROMPT)
    before, (sequence, answer) = _logits(model, ids), _answer(model, ids)
    repeats = torch.allclose(_logits(model, sequence[:, :-1])[:, PROMPT - 1 :], answer, **CLOSE)
    assert repeats is (name not in NOT_REPRODUCIBLE), (
        "unpatched, cached answers equal recomputed ones but for these types"
    )

    with lampe.patch(model, "original", window=WINDOW, check=False):
        torch.testing.assert_close(_logits(model, ids), before, **CLOSE)
        torch.testing.assert_close(_answer(model, ids)[1], answer, **CLOSE)
    assert torch.equal(_logits(model, ids), before)

    for method in METHODS:
        with lampe.patch(model, method, window=WINDOW, check=False, attention="dense"):
            oracle = _logits(model, ids)
        with lampe.patch(model, method, window=WINDOW, check=False) as handle:
            torch.testing.assert_close(_logits(model, ids), oracle, **CLOSE)
            moved = not torch.allclose(oracle, before, **CLOSE)
            assert moved is bool(handle.layers.extendable(WINDOW)), (
                "a method moves what it can, and nothing else"
            )

    with lampe.patch(model, "lampe", window=WINDOW, check=False) as handle:
        sequence, answer = _answer(model, ids)
        torch.testing.assert_close(
            _answer(model, ids, lampe.growing_cache(model))[1], answer, **CLOSE
        )
        if repeats:
            with handle.prompt(PROMPT):
                again = _logits(model, sequence[:, :-1])[:, PROMPT - 1 :]
            torch.testing.assert_close(answer, again, **CLOSE)


@pytest.mark.matrix
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("name", types())
def test_a_type_is_not_refused_for_its_precision(name: str, dtype: torch.dtype) -> None:
    """Some are mixtures of experts, in which rounding flips choices."""
    if verdict(name).state == SUPPORTED:
        model = in_precision(tiny_model(name), dtype)
        lampe.patch(model, "lampe", window=WINDOW).unpatch()


def test_most_types_are_supported_and_the_others_say_why() -> None:
    verdicts = [verdict(name) for name in types()]
    assert sum(each.state == SUPPORTED for each in verdicts) >= 80
    assert sum(each.state == UNTRIED for each in verdicts) <= 15
    assert all(each.reason for each in verdicts)


def test_the_document_lists_what_this_version_of_transformers_has() -> None:
    document = DOCUMENT.read_text()
    if f"transformers {transformers.__version__}" not in document:
        pytest.skip(
            f"docs/models.md was made with another transformers than {transformers.__version__}"
        )
    command = "python -m tools.supported_models_page > docs/models.md"
    assert document == supported_models_page(), f"run: {command}"
