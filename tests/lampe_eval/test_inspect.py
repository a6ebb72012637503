"""Provider `lampe` of inspect_ai; a development install lacks it, since it pins older packages."""

import asyncio
from typing import Any

import pytest

import lampe
from lampe_eval.errors import UserError
from lampe_eval.pocket import WEIGHTS

pytest.importorskip("inspect_ai", reason="inspect_ai is not installed")
pytestmark = pytest.mark.filterwarnings("ignore")

PROMPT = "Long ago there was a tower near the river. " * 40


@pytest.fixture(scope="module")
def provider() -> Any:
    from lampe_eval.integrations.inspect_model import LampeAPI

    return LampeAPI("pocket", method="lampe", mapping_length=100)


def _answer(provider: Any, temperature: float | None) -> str:
    from inspect_ai.model import ChatMessageUser, GenerateConfig

    config = GenerateConfig(max_tokens=8, temperature=temperature, max_connections=1)
    output = provider.generate([ChatMessageUser(content=PROMPT)], [], "none", config)
    return str(asyncio.run(output).completion)


def test_answers_are_greedy_and_those_of_a_patched_model(provider: Any) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(WEIGHTS)
    tokenizer = AutoTokenizer.from_pretrained(WEIGHTS)
    inputs = tokenizer(f"user: {PROMPT}\n", return_tensors="pt")
    with lampe.patch(model, "lampe", mapping_length=100):
        output = model.generate(**inputs, max_new_tokens=8, do_sample=False)
    expected = tokenizer.decode(output[0, inputs.input_ids.shape[1] :], skip_special_tokens=True)
    assert _answer(provider, None) == expected
    assert _answer(provider, 0.0) == expected


@pytest.mark.parametrize(
    ("name", "arguments", "named"),
    [
        ("poket", {}, "pocket"),
        ("pocket", {"method": "lamp"}, "lampe"),
        ("pocket", {"mapping_lenght": 3}, "mapping_lenght"),
    ],
)
def test_wrong_arguments(name: str, arguments: dict[str, Any], named: str) -> None:
    from lampe_eval.integrations.inspect_model import LampeAPI

    with pytest.raises(UserError, match=named):
        LampeAPI(name, **arguments)
