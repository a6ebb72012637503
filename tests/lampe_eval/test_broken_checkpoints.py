"""Checkpoints with broken, hostile or unusual files: one line, exit code 2, and no code is run."""

import json
import os
import pickle
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save, save_file

from lampe_eval import checkpoint_files, models
from lampe_eval.cli import main
from lampe_eval.errors import UserError
from lampe_eval.pocket import WEIGHTS
from tests.model_sources import find_model

FILE = "model.safetensors"
INDEX = f"{FILE}.index.json"
FORMAT = {"format": "pt"}

Break = Callable[[Path], object]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a copy of the built-in model."""
    copy = tmp_path / "copied-model"
    copy.mkdir()
    for file in WEIGHTS.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    return copy


class Payload:
    """Object whose pickle creates a file where it is loaded."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, ("executed",)


def _write(name: str, content: bytes) -> Break:
    return lambda folder: (folder / name).write_bytes(content)


def _replace(name: str, make: Break) -> Break:
    """Return a function that removes a file and makes something else in its place."""

    def change(folder: Path) -> None:
        (folder / name).unlink()
        make(folder)

    return change


def _set_config(**changes: object) -> Break:
    def change(folder: Path) -> None:
        path = folder / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return change


def _set_weight(name: str, value: torch.Tensor) -> Break:
    def change(folder: Path) -> None:
        weights = load_file(folder / FILE) | {name: value}
        (folder / FILE).write_bytes(save(weights, metadata=FORMAT))

    return change


def _shard(damage: Break) -> Break:
    """Return a function that splits the weights into two files and damages the second one."""

    def change(folder: Path) -> None:
        weights = load_file(folder / FILE)
        (folder / FILE).unlink()
        names = sorted(weights)
        files = {"1.safetensors": names[:5], "2.safetensors": names[5:]}
        weight_map: dict[str, str] = {}
        for file, own in files.items():
            save_file({name: weights[name] for name in own}, folder / file, metadata=FORMAT)
            weight_map |= dict.fromkeys(own, file)
        content = {"metadata": {"total_size": 0}, "weight_map": weight_map}
        (folder / INDEX).write_text(json.dumps(content))
        damage(folder)

    return change


def _truncate(name: str, by: int) -> Break:
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:-by])


def _make_loop(name: str) -> Break:
    return _replace(name, lambda folder: (folder / name).symlink_to(name))


LFS_POINTER = b"version https://example.org/spec/v1\noid sha256:0\nsize 12\n"
YARN = {"rope_type": "yarn", "rope_theta": 1e4, "original_max_position_embeddings": 128}

BROKEN: dict[str, tuple[Break, str]] = {
    "truncated": (_truncate(FILE, 1), "weights"),
    "empty": (_write(FILE, b""), "weights"),
    "no safetensors": (_write(FILE, LFS_POINTER), "weights"),
    "header of a terabyte": (_write(FILE, (2**40).to_bytes(8, "little") + b"{}"), "weights"),
    "directory": (_replace(FILE, lambda folder: (folder / FILE).mkdir()), "weights"),
    "link loop": (_make_loop(FILE), FILE),
    "link to nothing": (_replace(FILE, lambda f: (f / FILE).symlink_to("none")), FILE),
    "pipe": (lambda folder: os.mkfifo(folder / "other.bin"), "other.bin"),
    "config is a pipe": (
        _replace("config.json", lambda folder: os.mkfifo(folder / "config.json")),
        "config.json",
    ),
    "config is a loop": (_make_loop("config.json"), "config.json"),
    "shard truncated": (_shard(_truncate("2.safetensors", 100)), "weights"),
    "shard missing": (_shard(lambda f: (f / "2.safetensors").unlink()), "2.safetensors"),
    "shard is a loop": (_shard(_make_loop("2.safetensors")), "2.safetensors"),
    "other shape": (_set_weight("model.norm.weight", torch.zeros(2)), "model.norm.weight"),
    "pickle": (_replace(FILE, _write("pytorch_model.bin", pickle.dumps(Payload()))), "pickle"),
    "torch's pickle": (
        _replace(FILE, lambda f: torch.save({"a": Payload()}, f / "pytorch_model.bin")),
        "pickle",
    ),
    "list of weights": (
        _replace(FILE, lambda f: torch.save([1], f / "pytorch_model.bin")),
        "weights",
    ),
    "code of its own": (
        _set_config(model_type="own", auto_map={"AutoConfig": "own.Config"}),
        "code of its own",
    ),
    "no layers": (_set_config(num_hidden_layers=0), "num_hidden_layers=0"),
    "layers below 0": (_set_config(num_hidden_layers=-1), "num_hidden_layers=-1"),
    "endless layers": (_set_config(num_hidden_layers=10**30), "num_hidden_layers=1000"),
    "more layers than models have": (_set_config(num_hidden_layers=9999), "num_hidden_layers=9999"),
    "endless vocabulary": (_set_config(vocab_size=10**12), "vocab_size=1000000000000"),
    "endless feed-forward part": (_set_config(intermediate_size=10**12), "intermediate_size=10000"),
    "endless key heads": (_set_config(num_key_value_heads=10**9), "num_key_value_heads=10000"),
    "size as text": (_set_config(vocab_size="x"), "vocab_size"),
    "size below 0": (_set_config(vocab_size=-1), "vocab_size=-1"),
    "size of a feed-forward part": (_set_config(intermediate_size=-1), "intermediate_size=-1"),
    "sliding window": (_set_config(sliding_window="x"), "sliding_window='x'"),
    "sliding windows": (_set_config(sliding_window=[1]), "sliding_window=[1]"),
    "attention chunk": (_set_config(attention_chunk_size="x"), "attention_chunk_size='x'"),
    "kind of layer": (_set_config(layer_types=5), "config.json"),
    "activation": (_set_config(hidden_act="silu2"), "did you mean 'silu'"),
    "type of an activation": (_set_config(hidden_act=["silu"]), "hidden_act"),
    "encoder": (_set_config(is_encoder_decoder="x"), "is_encoder_decoder='x'"),
    "hidden states": (_set_config(output_hidden_states="x"), "output_hidden_states='x'"),
    "cache": (_set_config(use_cache="x"), "use_cache"),
    "endless heads": (_set_config(head_dim=10**30), "heads of"),
    "type of a rope": (
        _set_config(rope_parameters={"rope_type": ["x"], "rope_theta": 1e4}),
        "rope_type",
    ),
    "factor of a rope": (_set_config(rope_parameters=YARN | {"factor": "x"}), "'factor': 'x'"),
    "bounds of a rope": (
        _set_config(rope_parameters=YARN | {"factor": 2.0, "beta_fast": -1}),
        "beta_fast=-1",
    ),
    "nothing rotates": (
        _set_config(
            rope_parameters={
                "rope_type": "default",
                "rope_theta": 1e4,
                "partial_rotary_factor": 1e-3,
            }
        ),
        "0 rotate",
    ),
}


@pytest.mark.matrix
@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_checkpoint_is_one_line_and_runs_nothing(
    folder: Path, kind: str, capfd: pytest.CaptureFixture[str]
) -> None:
    damage, words = BROKEN[kind]
    damage(folder)
    with pytest.raises(UserError) as caught:
        models.load_model(find_model(str(folder)), "cpu")
    message = str(caught.value)
    assert folder.name in message and words in message
    assert "smaller --dtype" not in message
    assert "\n" not in message
    # Advice of libraries to switch a protection off.
    assert not any(advice in message for advice in ("weights_only", "trust_remote_code", "ignore_"))
    assert not Path("executed").exists()
    assert "own code" not in "".join(capfd.readouterr())


def test_whole_shards_are_loaded(folder: Path) -> None:
    _shard(lambda _: None)(folder)
    models.load_model(find_model(str(folder)), "cpu")


def test_pickled_tensors_are_loaded(folder: Path) -> None:
    weights = load_file(folder / FILE)
    _replace(FILE, lambda folder: torch.save(weights, folder / "pytorch_model.bin"))(folder)
    models.load_model(find_model(str(folder)), "cpu")


def test_unexpected_weights_are_one_warning(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _set_weight("evil.weight", torch.zeros(2))(folder)
    for _ in range(2):
        models.load_model(find_model(str(folder)), "cpu")
    (line,) = capsys.readouterr().err.splitlines()
    assert "evil.weight" in line and folder.name in line


def test_a_link_to_weights_elsewhere_counts_by_its_content(folder: Path, tmp_path: Path) -> None:
    """Users link large weights, and their content is hashed wherever it lies."""
    before = find_model(str(folder)).fingerprint
    elsewhere = tmp_path / "elsewhere"
    (folder / FILE).rename(elsewhere)
    (folder / FILE).symlink_to(elsewhere)
    assert find_model(str(folder)).fingerprint == before
    changed = bytearray(elsewhere.read_bytes())
    changed[-1] ^= 1
    elsewhere.write_bytes(changed)
    assert find_model(str(folder)).fingerprint != before


def test_hashing_of_large_weights_is_announced_once(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(checkpoint_files, "SMALL_BYTES", 1000)
    checkpoint_files.fingerprint(folder)
    assert not capsys.readouterr().err
    monkeypatch.setattr(checkpoint_files, "ANNOUNCED_BYTES", 2000)
    os.utime(folder / FILE)
    for _ in range(2):
        checkpoint_files.fingerprint(folder)
    (line,) = capsys.readouterr().err.splitlines()
    assert "hashing" in line and folder.name in line


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory"),
        OSError(12, "Cannot allocate memory"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_too_little_memory_is_not_blamed_on_the_checkpoint(
    folder: Path, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(*_: object, **__: object) -> None:
        raise error

    source = find_model(str(folder))
    monkeypatch.setattr(models.AutoModelForCausalLM, "from_pretrained", load)
    with pytest.raises(UserError, match="memory") as caught:
        models.load_model(source, "cpu")
    assert "not a checkpoint" not in str(caught.value)


def test_an_error_of_our_own_is_not_blamed_on_the_checkpoint(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def geometry_of(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(models.lampe, "geometry_of", geometry_of)
    with pytest.raises(ZeroDivisionError):
        find_model(str(folder))


COMMANDS = {
    "run": ["--lengths", "256", "--limit", "1", "--bench", "niah/single", "--output", "out"],
    "suggest": ["--length", "512"],
    "calibrate": ["--output", "out"],
    "speed": ["--output", "out", "--lengths", "64"],
}


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(
    "damage",
    [_write("config.json", b"3"), _set_config(num_hidden_layers="x"), _make_loop(FILE)],
    ids=["config", "type", "link loop"],
)
def test_every_command_ends_with_one_line(
    folder: Path,
    command: str,
    damage: Break,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    damage(folder)
    options = ["--model", str(folder), *COMMANDS[command]]
    monkeypatch.setattr(sys, "argv", ["lampe-eval", command, *options])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("lampe-eval: ") and folder.name in line
