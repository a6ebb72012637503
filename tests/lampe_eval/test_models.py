"""Models by card, folder or hub ID, and the errors where one cannot be loaded."""

import json
from pathlib import Path

import pytest
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
)
from safetensors.torch import load, save

from lampe_eval import checkpoint_files, models
from lampe_eval.cards import ModelCard, read_card
from lampe_eval.errors import UserError
from lampe_eval.pocket import WEIGHTS
from lampe_eval.suite import Suite
from tests.model_sources import find_model


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
        find_model("org/name")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_card_a_folder_and_the_users_own_window() -> None:
    card, folder = (
        find_model("pocket"),
        find_model(str(WEIGHTS), window=128, dtype="bfloat16"),
    )
    assert (card.name, card.geometry.window, card.dtype) == ("pocket", 256, "float32")
    assert (folder.name, folder.geometry.window, folder.dtype) == ("weights", 128, "bfloat16")
    assert card.fingerprint == folder.fingerprint


def test_changed_weights_are_another_model(tmp_path: Path) -> None:
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).write_bytes((WEIGHTS / name).read_bytes())
    before = find_model(str(tmp_path)).fingerprint
    weights = bytearray((tmp_path / "model.safetensors").read_bytes())
    weights[50_000] ^= 1
    (tmp_path / "model.safetensors").write_bytes(weights)
    assert find_model(str(tmp_path)).fingerprint != before


def test_a_folder_without_weights_is_refused(tmp_path: Path) -> None:
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).write_bytes((WEIGHTS / name).read_bytes())
    with pytest.raises(UserError, match="not a checkpoint"):
        models.load_model(find_model(str(tmp_path)), "cpu")


def _copied(folder: Path) -> Path:
    for file in WEIGHTS.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    return folder


def test_broken_or_missing_weights_are_refused(tmp_path: Path) -> None:
    weights = _copied(tmp_path) / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match="not a checkpoint"):
        models.load_model(find_model(str(tmp_path)), "cpu")
    tensors = load(whole)
    del tensors["model.layers.1.mlp.up_proj.weight"]
    weights.write_bytes(save(tensors, metadata={"format": "pt"}))
    with pytest.raises(UserError, match=r"model\.layers\.1\.mlp\.up_proj\.weight"):
        models.load_model(find_model(str(tmp_path)), "cpu")


def test_a_change_anywhere_in_the_weights_is_another_model(tmp_path: Path) -> None:
    weights = _copied(tmp_path) / "model.safetensors"
    before = find_model(str(tmp_path)).fingerprint
    for share in (0.2, 0.5, 0.999):
        changed = bytearray((WEIGHTS / "model.safetensors").read_bytes())
        changed[int(share * len(changed))] ^= 1
        weights.write_bytes(changed)
        assert find_model(str(tmp_path)).fingerprint != before


def test_a_type_that_torch_does_not_have(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--dtype: 'flot32'"):
        Suite.from_options({"dtype": "flot32"})
    card = tmp_path / "card.yaml"
    card.write_text("path: pocket\ndtype: flot32\n")
    with pytest.raises(UserError, match=r"card\.yaml:2: key 'dtype': 'flot32'"):
        read_card(card, ModelCard)


def _changed_config(folder: Path, **changes: object) -> Path:
    """Return a copy of the built-in model with another configuration; None takes an entry out."""
    path = _copied(folder) / "config.json"
    config = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in config.items() if value is not None}))
    return folder


LINEAR = {"rope_type": "linear", "factor": 4.0, "rope_theta": 10000.0}


@pytest.mark.parametrize(
    ("changes", "window", "words"),
    [
        ({}, 256, ()),
        ({"rope_parameters": LINEAR}, 1024, ("scaled linearly", "4", "1024", "--window 256")),
        ({"rope_parameters": LINEAR | {"original_max_position_embeddings": 64}}, 256, ()),
        ({"max_position_embeddings": None}, 2048, ("no max_position_embeddings", "2048", "llama")),
    ],
    ids=["plain", "linear", "linear with its original window", "no window"],
)
def test_a_window_that_the_configuration_leaves_open_is_said_in_one_line(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    changes: dict[str, object],
    window: int,
    words: tuple[str, ...],
) -> None:
    folder = _changed_config(tmp_path, **changes)
    for _ in range(2):
        assert find_model(str(folder)).geometry.window == window
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == bool(words)
    assert all(word in lines[0] for word in words)
    assert find_model(str(folder), window=512).geometry.window == 512
    assert not capsys.readouterr().err


@pytest.mark.parametrize("theta", [0, -1.0])
def test_an_impossible_rope_is_said(tmp_path: Path, theta: float) -> None:
    rope = {"rope_type": "default", "rope_theta": theta}
    with pytest.raises(UserError, match=f"rope_theta={theta}"):
        find_model(str(_changed_config(tmp_path, rope_parameters=rope)))


def _write(folder: Path, name: str, content: str) -> None:
    (folder / name).write_text(content)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("config.json", "3", "config.json"),
        ("config.json", "[" * 100_000, "config.json"),
        ("config.json", '{"vocab_size": ' + "9" * 6000 + "}", "config.json"),
        ("generation_config.json", '{"eos_token_id": "x"}', "eos_token_id"),
        ("generation_config.json", "3", "generation_config.json"),
        ("tokenizer_config.json", "[]", "tokenizer_config.json"),
        ("tokenizer.json", "{", "tokenizer"),
        ("model.safetensors.index.json", '{"weight_map": {}}', "names no weights"),
        ("model.safetensors.index.json", '{"weight_map": {"a": "../b.safetensors"}}', "outside"),
        ("model.safetensors.index.json", '{"weight_map": {"a": "/b.safetensors"}}', "outside"),
    ],
)
def test_a_broken_file_of_a_model_is_one_line(
    tmp_path: Path, name: str, content: str, words: str
) -> None:
    _write(_copied(tmp_path), name, content)
    with pytest.raises(UserError, match=words) as caught:
        models.load_tokenizer(find_model(str(tmp_path)))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "changes",
    [
        {"num_attention_heads": 0, "head_dim": 0},
        {"hidden_size": 7, "head_dim": 0},
        {"rope_parameters": {"rope_type": "default", "rope_theta": "x"}},
        {"rope_parameters": [1]},
        {"model_type": ["llama"]},
        {"quantization_config": "x"},
        {"quantization_config": {"quant_method": "pwn"}},
        {"dtype": "nonsense"},
        {"max_position_embeddings": "x"},
    ],
    ids=str,
)
def test_an_impossible_configuration_is_one_line(
    tmp_path: Path, changes: dict[str, object]
) -> None:
    with pytest.raises(UserError) as caught:
        find_model(str(_changed_config(tmp_path, **changes)))
    assert "\n" not in str(caught.value)


def test_a_large_file_is_hashed_wholly_and_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint_files, "SMALL_BYTES", 1000)
    weights = _copied(tmp_path) / "model.safetensors"
    before = find_model(str(tmp_path)).fingerprint
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint_files, "sha256_of_files", None)
        assert find_model(str(tmp_path)).fingerprint == before
    changed = bytearray(weights.read_bytes())
    changed[-1] ^= 1
    weights.write_bytes(changed)
    assert find_model(str(tmp_path)).fingerprint != before


def test_the_fingerprint_of_the_committed_runs_holds() -> None:
    assert find_model("pocket").fingerprint == "sha256:85fdadd77d2bb07a"


def test_the_hubs_cache_may_link_to_its_blobs_and_nothing_else(tmp_path: Path) -> None:
    snapshot, blobs = tmp_path / "snapshots" / "1", tmp_path / "blobs"
    for folder in (snapshot, blobs):
        folder.mkdir(parents=True)
    (blobs / "2").write_bytes(b"weights")
    (snapshot / "a.safetensors").symlink_to("../../blobs/2")
    _write(snapshot, "model.safetensors.index.json", '{"weight_map": {"w": "a.safetensors"}}')
    assert checkpoint_files.fingerprint(snapshot)
    (snapshot / "a.safetensors").unlink()
    (tmp_path / "other").write_bytes(b"weights")
    (snapshot / "a.safetensors").symlink_to("../../other")
    with pytest.raises(UserError, match="outside"):
        checkpoint_files.fingerprint(snapshot)
