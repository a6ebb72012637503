"""Models by card, folder or hub ID, and the errors where one cannot be loaded."""

from pathlib import Path

import pytest
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
)
from safetensors.torch import load, save

from lampe_eval import models
from lampe_eval.errors import UserError
from lampe_eval.pocket import WEIGHTS


def _raising(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make loading a configuration fail like transformers: an error raised from the hub's."""

    def load(*_: object, **__: object) -> None:
        raise OSError("long advice\nof many lines") from error

    monkeypatch.setattr(models.AutoConfig, "from_pretrained", load)


def _refusal(kind: type[HfHubHTTPError]) -> HfHubHTTPError:
    """Return an error of the hub, whichever HTTP client this version of the hub uses."""
    return kind.__new__(kind, "refused")


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (_refusal(GatedRepoError), "org/name: gated"),
        (_refusal(RepositoryNotFoundError), "org/name: no such model"),
        (
            LocalEntryNotFoundError("offline"),
            "org/name: not in the local cache",
        ),
        (ConnectionError("refused"), "the hub cannot be reached"),
        (RuntimeError("odd"), "org/name: cannot be loaded: long advice"),
    ],
)
def test_what_the_hub_refuses_is_one_line(
    error: Exception, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    _raising(error, monkeypatch)
    with pytest.raises(UserError) as caught:
        models.find_model("org/name")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_card_a_folder_and_the_users_own_window() -> None:
    card, folder = (
        models.find_model("pocket"),
        models.find_model(str(WEIGHTS), window=128, dtype="bfloat16"),
    )
    assert (card.name, card.geometry.window, card.dtype) == ("pocket", 256, "float32")
    assert (folder.name, folder.geometry.window, folder.dtype) == ("weights", 128, "bfloat16")
    assert card.fingerprint == folder.fingerprint


def test_changed_weights_are_another_model(tmp_path: Path) -> None:
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).write_bytes((WEIGHTS / name).read_bytes())
    before = models.find_model(str(tmp_path)).fingerprint
    weights = bytearray((tmp_path / "model.safetensors").read_bytes())
    weights[50_000] ^= 1
    (tmp_path / "model.safetensors").write_bytes(weights)
    assert models.find_model(str(tmp_path)).fingerprint != before


def test_a_folder_without_weights_is_refused(tmp_path: Path) -> None:
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).write_bytes((WEIGHTS / name).read_bytes())
    with pytest.raises(UserError, match="not a checkpoint"):
        models.load_model(models.find_model(str(tmp_path)), "cpu")


def _copied(folder: Path) -> Path:
    for file in WEIGHTS.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    return folder


def test_broken_or_missing_weights_are_refused(tmp_path: Path) -> None:
    weights = _copied(tmp_path) / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match="not a checkpoint"):
        models.load_model(models.find_model(str(tmp_path)), "cpu")
    tensors = load(whole)
    del tensors["model.layers.1.mlp.up_proj.weight"]
    weights.write_bytes(save(tensors, metadata={"format": "pt"}))
    with pytest.raises(UserError, match=r"model\.layers\.1\.mlp\.up_proj\.weight"):
        models.load_model(models.find_model(str(tmp_path)), "cpu")


def test_a_change_anywhere_in_the_weights_is_another_model(tmp_path: Path) -> None:
    weights = _copied(tmp_path) / "model.safetensors"
    before = models.find_model(str(tmp_path)).fingerprint
    for share in (0.2, 0.5, 0.999):
        changed = bytearray((WEIGHTS / "model.safetensors").read_bytes())
        changed[int(share * len(changed))] ^= 1
        weights.write_bytes(changed)
        assert models.find_model(str(tmp_path)).fingerprint != before


def test_a_type_that_torch_does_not_have() -> None:
    with pytest.raises(UserError, match="--dtype: 'flot32'"):
        models.find_model("pocket", dtype="flot32")
