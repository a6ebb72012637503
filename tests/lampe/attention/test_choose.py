"""Which backend takes a call, and what is said of it."""

import logging

import pytest
import torch

import lampe
from lampe.attention import BACKENDS, AttentionInputs, BackendDispatcher
from tests.lampe.tiny import llama


def _call(dtype: torch.dtype = torch.float32) -> AttentionInputs:
    q, k, v = (torch.randn(1, 2, 5, 16).to(dtype) for _ in range(3))
    return AttentionInputs(q, k, v, lampe.Encoding(lampe.Rope((0.5,) * 8)), scale=0.25)


def test_the_first_that_does_not_refuse_takes_the_call_and_says_so_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    chooser = BackendDispatcher()
    with caplog.at_level(logging.INFO, logger="lampe"):
        for _ in range(3):
            chooser.attend(_call())
    (record,) = caplog.records
    refused = [name for name in BACKENDS if BACKENDS[name].refuses(_call()) is not None]
    first = next(name for name in BACKENDS if name not in refused)
    assert record.getMessage().startswith(f"attention: {first}")
    assert [name for name, _ in chooser.made[0].refusals] == refused[: list(BACKENDS).index(first)]


def test_a_backend_that_is_asked_for_takes_the_call_or_says_why_not() -> None:
    chooser = BackendDispatcher("dense")
    chooser.attend(_call())
    assert [choice.backend for choice in chooser.made] == ["dense"]
    with pytest.raises(
        lampe.BadSetting,
        match=r"attention='flash' cannot run here: it (needs a GPU|takes bfloat16)",
    ):
        BackendDispatcher("flash").attend(_call())
    with pytest.raises(lampe.UnknownName, match="did you mean 'flash'"):
        BackendDispatcher("flahs")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_backend_without_its_device_is_refused_when_the_model_is_patched() -> None:
    with pytest.raises(lampe.BadSetting, match="attention='flash' cannot run here: it needs a GPU"):
        lampe.patch(llama(), attention="flash")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_what_runs_is_explained() -> None:
    model = llama()
    with lampe.patch(model, "lampe"):
        lines = lampe.explain(model).splitlines()
    assert lines[0] == "attention: blockwise"
    assert "  not flash: it needs a GPU, and the model is on cpu" in lines
    assert any(line.startswith("  not triton: ") for line in lines)
    with pytest.raises(lampe.UnsupportedModel, match="is not patched"):
        lampe.explain(model)


def test_explaining_disturbs_no_answer() -> None:
    model, ids = llama(), torch.randint(2, 128, (1, 151))
    with torch.no_grad(), lampe.patch(model, "lampe", check=False):
        answers = []
        for explained in (False, True):
            cache = model(ids[:, :150], use_cache=True).past_key_values
            if explained:
                lampe.explain(model)
            answers.append(model(ids[:, 150:], past_key_values=cache, use_cache=True).logits)
    assert torch.equal(*answers)
