"""Command `lampe-eval export MODEL --method M`: options, models by name, and where to load it."""

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaForCausalLM

from lampe_eval.checkpoint_files import find_model
from lampe_eval.cli import app
from lampe_eval.errors import UserError


def _export(*words: str) -> None:
    app(["export", *words], standalone_mode=False)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("pocket",), "--to.*--method"),
        (("pocket", "--to", "hf", "--method", "lampe"), "--to.*--method"),
        (("results", "--to", "hf", "--max-length", "4k"), "--max-length"),
        (("results", "--to", "hf", "--overwrite"), "--overwrite"),
        (("pocket", "--method", "lampe"), "--output"),
        (("pocket", "--method", "lampe,dca", "--output", "out"), "lampe,dca"),
        (("pocket", "--method", "lamp", "--output", "out"), "lampe"),
        (("pockett", "--method", "lampe", "--output", "out"), "pocket"),
        (("pocket", "--method", "lampe:head_tokens=x", "--output", "out"), "head_tokens"),
        (("pocket", "--method", "yarn", "--max-length", "128", "--output", "out"), "128.*256"),
        (("pocket", "--method", "lampe", "--output", "taken"), "taken"),
    ],
)
def test_what_is_wrong_is_one_line(words: tuple[str, ...], message: str, tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "file").touch()
    with pytest.raises(UserError, match=message) as error:
        _export(*words)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out").exists()


def test_the_command_says_how_a_checkpoint_is_loaded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _export("pocket", "--method", "yarn", "--max-length", "1k", "--output", "plain")
    assert "plain configuration" in capsys.readouterr().out
    config = json.loads((tmp_path / "plain" / "config.json").read_text())
    assert config["rope_parameters"]["factor"] == 4
    assert config["lampe_export"]["source"] == "pocket"
    _export("pocket", "--method", "dca", "--output", "code")
    assert "trust_remote_code=True" in capsys.readouterr().out
    # The harness patches by itself, and runs no code of checkpoints.
    assert find_model("plain")
    with pytest.raises(UserError, match=r"dca.*pocket"):
        find_model("code")


def test_a_gguf_file_is_converted(tmp_path: Path) -> None:
    pytest.importorskip("gguf", reason="needs the extra gguf")
    from tests.gguf_models import random_llama, write_gguf

    model: LlamaForCausalLM = random_llama()
    write_gguf(tmp_path / "tiny.gguf", model)
    _export("tiny.gguf", "--method", "pi:factor=4", "--output", "exported")
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "exported")
    assert loaded.config.rope_parameters["factor"] == 4
    for name, weight in model.named_parameters():
        assert torch.allclose(loaded.get_parameter(name), weight, atol=1e-3), name
