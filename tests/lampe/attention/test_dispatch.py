"""Which backend processes a call, and how the choice is reported."""

import dataclasses
import logging

import pytest
import torch

import lampe
from lampe.attention import BACKENDS, AttentionInputs, BackendDispatcher
from lampe.attention.rotated_keys import RotatedKeys
from lampe.backend_names import BACKEND_NAMES
from tests.lampe.tiny import llama


def _inputs(dtype: torch.dtype = torch.float32) -> AttentionInputs:
    q, k, v = (torch.randn(1, 2, 5, 16).to(dtype) for _ in range(3))
    return AttentionInputs(q, k, v, lampe.Encoding(lampe.Rope((0.5,) * 8)), scale=0.25)


def test_auto_takes_the_first_backend_that_does_not_refuse_and_logs_it_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    dispatcher = BackendDispatcher()
    with caplog.at_level(logging.INFO, logger="lampe"):
        for _ in range(3):
            dispatcher.attend(_inputs())
    (record,) = caplog.records
    refusing = [name for name in BACKENDS if BACKENDS[name].refuses(_inputs()) is not None]
    first = next(name for name in BACKENDS if name not in refusing)
    assert record.getMessage().startswith(f"attention: {first}")
    (choice,) = dispatcher.choices
    assert [name for name, _ in choice.refusals] == refusing[: list(BACKENDS).index(first)]


def test_a_selected_backend_processes_the_call_or_says_why_it_cannot() -> None:
    dispatcher = BackendDispatcher("dense")
    dispatcher.attend(_inputs())
    assert [choice.backend for choice in dispatcher.choices] == ["dense"]
    with pytest.raises(
        lampe.BadSetting,
        match=r"attention='flash' .*(GPU|bfloat16)",
    ):
        BackendDispatcher("flash").attend(_inputs())
    with pytest.raises(lampe.UnknownName, match="did you mean 'flash'"):
        BackendDispatcher("flahs")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_backend_without_its_device_is_refused_when_the_model_is_patched() -> None:
    with pytest.raises(lampe.BadSetting, match=r"attention='flash' .*GPU"):
        lampe.patch(llama(), attention="flash")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_explain_names_the_backend_and_the_reasons_of_the_others() -> None:
    model = llama()
    with lampe.patch(model, "lampe"):
        lines = lampe.explain(model).splitlines()
    assert lines[0] == "attention: blockwise"
    assert any(line.startswith("  not flash: it needs a GPU") for line in lines)
    assert any(line.startswith("  not triton: ") for line in lines)
    with pytest.raises(lampe.UnsupportedModel, match="is not patched"):
        lampe.explain(model)


def test_explain_does_not_change_logits() -> None:
    model, ids = llama(), torch.randint(2, 128, (1, 151))
    with torch.no_grad(), lampe.patch(model, "lampe", check=False):
        logits = []
        for explained in (False, True):
            cache = model(ids[:, :150], use_cache=True).past_key_values
            if explained:
                lampe.explain(model)
            logits.append(model(ids[:, 150:], past_key_values=cache, use_cache=True).logits)
    assert torch.equal(*logits)


def test_only_a_backend_that_reads_rotated_keys_receives_keys_rotated_in_place() -> None:
    rotated_keys, plain = RotatedKeys(in_place=True), _inputs()
    last = dataclasses.replace(plain, query=plain.query[:, :, -1:], start=plain.start + 4)
    expected = BackendDispatcher("dense").attend(last)
    inputs = dataclasses.replace(last, key=last.key.clone(), rotated_keys=rotated_keys)
    assert not inputs.key_is_rotated
    for name, rotated in (("blockwise", True), ("dense", False), ("blockwise", True)):
        torch.testing.assert_close(BackendDispatcher(name).attend(inputs), expected)
        assert inputs.key_is_rotated is rotated
    BackendDispatcher("dense").attend(inputs)
    torch.testing.assert_close(inputs.key, plain.key)


def test_names_of_backends_are_known_without_torch() -> None:
    assert tuple(BACKENDS) == BACKEND_NAMES
