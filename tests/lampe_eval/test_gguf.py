"""GGUF files: the same answers as the same weights in safetensors, and one line for each fault."""

import copy
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import LlamaForCausalLM

import lampe
from lampe_eval import gguf_files, models
from lampe_eval.cards import ModelCard, find_model_card, read_card
from lampe_eval.checkpoint_files import find_model as find_checked_model
from lampe_eval.cli import main
from lampe_eval.errors import UserError
from lampe_eval.pocket import WEIGHTS
from tests.model_sources import find_model

gguf = pytest.importorskip("gguf", reason="needs the extra gguf")

from tests.gguf_models import CONFIG, TEMPLATE, random_llama, write_gguf  # noqa: E402

Change = Callable[[Any], Any]


@pytest.fixture(scope="module")
def llama() -> LlamaForCausalLM:
    torch.manual_seed(0)
    return random_llama()


@pytest.fixture(scope="module")
def tiny(llama: LlamaForCausalLM, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a file of float16, which tests read only."""
    path = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    write_gguf(path, llama)
    return path


def _logits(model: Any, method: str | None) -> torch.Tensor:
    ids = torch.arange(3, 203)[None]  # three windows
    with torch.no_grad():
        if method is None:
            return model(ids).logits  # type: ignore[no-any-return]
        with lampe.patch(model, method):
            return model(ids).logits  # type: ignore[no-any-return]


@pytest.mark.parametrize(("kind", "bound"), [("F32", 1e-6), ("F16", 1e-3), ("Q8_0", 0.2)])
def test_logits_are_those_of_the_same_weights(
    llama: LlamaForCausalLM, tmp_path: Path, kind: str, bound: float
) -> None:
    """Compare logits with a standard deviation of 0.8; 8 bits change them by 0.11 at most."""
    path = tmp_path / f"tiny-{kind}.gguf"
    write_gguf(path, llama, gguf.GGMLQuantizationType[kind])
    llama.save_pretrained(tmp_path / "checkpoint")
    expected = LlamaForCausalLM.from_pretrained(tmp_path / "checkpoint")
    source = find_model(str(path))
    model, _ = models.load_model(source, "cpu")
    assert (source.name, source.geometry.window) == (f"tiny-{kind}", 64)
    assert model.dtype == torch.float32
    for method in (None, "lampe", "dca", "yarn"):
        difference = _logits(model, method) - _logits(expected, method)
        assert difference.abs().max() < bound, method


@pytest.mark.parametrize("method", [None, "lampe", "dca", "yarn"])
def test_a_model_in_gguf_blocks_can_be_patched(
    llama: LlamaForCausalLM, monkeypatch: pytest.MonkeyPatch, method: str | None
) -> None:
    """Pack all matrices as transformers does where it finds a kernel, here one of numpy."""
    kernels = pytest.importorskip("transformers.integrations.gguf.kernels")
    utils = pytest.importorskip("transformers.integrations.gguf.utils")
    kind = gguf.GGMLQuantizationType.Q8_0

    def mul_mat_vec(blocks: Any, inputs: Any, *_: Any) -> torch.Tensor:
        return inputs @ torch.from_numpy(gguf.dequantize(blocks.numpy(), kind)).T

    names = ("dequantize", "get_rows", "mul_mat_id")
    kernel = SimpleNamespace(mul_mat_vec=mul_mat_vec, GEMV_TYPES={kind}, **dict.fromkeys(names))
    monkeypatch.setattr(kernels, "_gguf_kernel", kernels.GgufKernel(kernel))
    packed, dense = copy.deepcopy(llama), copy.deepcopy(llama)
    matrices = [name for name, weight in llama.named_parameters() if weight.ndim == 2]
    modules = utils.replace_with_gguf_modules(
        packed, dict.fromkeys(matrices, kind), kernels._gguf_kernel, torch.float32
    )
    assert set(modules) == set(matrices)
    for name, module in modules.items():
        weight = dense.get_parameter(name)
        blocks = gguf.quantize(weight.detach().numpy(), kind)
        module.weight.data = torch.from_numpy(blocks)
        weight.data = torch.from_numpy(gguf.dequantize(blocks, kind))
    assert (_logits(packed, method) - _logits(dense, method)).abs().max() < 1e-5


def test_everything_comes_from_the_file(tiny: Path) -> None:
    source = find_model(str(tiny), dtype="bfloat16")
    model, tokenizer = models.load_model(source, "cpu")
    assert model.dtype == torch.bfloat16
    assert source.geometry.rope_parameters["rope_theta"] == 5000
    assert tokenizer.chat_template == TEMPLATE
    assert tokenizer.decode(tokenizer("the lamp").input_ids) == "the lamp"
    assert (tokenizer.bos_token, tokenizer.eos_token) == ("<s>", "</s>")
    assert models.cost_of(source).parameters == sum(p.numel() for p in random_llama().parameters())


def test_names_of_a_file(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "tiny.gguf").write_bytes(tiny.read_bytes())
    (tmp_path / "card.yaml").write_text("path: folder\ngguf: tiny.gguf\ndtype: bfloat16\n")
    in_folder = ModelCard(path=str(folder), gguf="tiny.gguf")
    assert find_model_card(str(folder / "tiny.gguf")) == (in_folder, "tiny")
    assert find_model_card(str(folder)) == (in_folder, "folder")
    assert find_model_card("folder/tiny.gguf")[0].path == "folder"
    assert find_model_card("org/name:sub/tiny.gguf") == (
        ModelCard(path="org/name", gguf="sub/tiny.gguf"),
        "tiny",
    )
    assert find_model_card("org/name:tiny.gguf")[1] == "tiny"
    fingerprints = {find_model(name).fingerprint for name in ("folder", "card.yaml", str(tiny))}
    assert len(fingerprints) == 1
    monkeypatch.chdir(folder)
    assert find_model("tiny.gguf").fingerprint in fingerprints


def test_a_file_of_the_hub_is_known_by_its_content(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository = tmp_path / "hub" / "models--org--name"
    snapshot = repository / "snapshots" / ("a" * 40)
    snapshot.mkdir(parents=True)
    (snapshot / "tiny.gguf").write_bytes(tiny.read_bytes())
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(snapshot.name)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    source = find_model("org/name:tiny.gguf")
    assert source.fingerprint == find_model(str(tiny)).fingerprint
    assert models.load_model(source, "cpu")[0].config.num_hidden_layers == 2
    with pytest.raises(UserError, match=r"org/name:other\.gguf.*local cache"):
        find_model("org/name:other.gguf")


def test_a_folder_with_a_configuration_is_no_gguf_file(tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "tiny.gguf").write_bytes(tiny.read_bytes())
    (tmp_path / "config.json").write_text(json.dumps(CONFIG.to_dict()))
    assert find_model_card(str(tmp_path))[0].gguf == ""
    assert find_model_card(str(tmp_path / "tiny.gguf"))[0].gguf == "tiny.gguf"


def test_files_beside_it_are_of_other_models(tiny: Path, tmp_path: Path) -> None:
    """Put a tokenizer.json into the folder, which transformers would prefer."""
    shutil.copytree(WEIGHTS, tmp_path / "folder")
    path = tmp_path / "folder" / "tiny.gguf"
    path.write_bytes(tiny.read_bytes())
    model, tokenizer = models.load_model(find_model(str(path)), "cpu")
    expected, own = models.load_model(find_model(str(tiny)), "cpu")
    assert tokenizer.get_vocab() == own.get_vocab()
    assert tokenizer.chat_template == TEMPLATE
    assert model.config.vocab_size == expected.config.vocab_size
    assert model.generation_config.eos_token_id == expected.generation_config.eos_token_id


@pytest.mark.parametrize(
    ("text", "place", "name"),
    [
        ("path: tiny.gguf", ".", "tiny.gguf"),
        ("path: folder", "folder", "tiny.gguf"),
        ("path: folder\ngguf: tiny.gguf", "folder", "tiny.gguf"),
        ("path: org/name:sub/TINY.GGUF", "org/name", "sub/TINY.GGUF"),
    ],
)
def test_paths_of_cards(tmp_path: Path, text: str, place: str, name: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "tiny.gguf").touch()
    (tmp_path / "tiny.gguf").touch()
    (tmp_path / "mine.yaml").write_text(text)
    card, label = find_model_card("mine.yaml")
    assert (card.path, card.gguf, label) == (place, name, "mine")


def test_another_file_is_another_model(tiny: Path, tmp_path: Path) -> None:
    path = tmp_path / "tiny.gguf"
    path.write_bytes(tiny.read_bytes())
    before = find_model(str(path)).fingerprint
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert find_model(str(path)).fingerprint != before


def _scaled(kind: str, factor: float) -> Change:
    def change(writer: Any) -> None:
        if kind:
            writer.add_string("llama.rope.scaling.type", kind)
        writer.add_rope_scaling_factor(factor)

    return change


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"architecture": "mystery"}, r"mystery"),
        ({"tokenizer": False}, r"no tokenizer"),
        ({"change": lambda writer: writer.add_uint16("split.count", 3)}, r"3 parts"),
        ({"change": _scaled("linear", 4.0)}, r"llama\.rope\.scaling\.type=linear"),
        ({"change": _scaled("yarn", 4.0)}, r"safetensors"),
        ({"change": _scaled("", 4.0)}, r"llama\.rope\.scaling\.factor=4"),
        (
            {"change": lambda writer: writer.add_float32("llama.rope.scale_linear", 4.0)},
            r"llama\.rope\.scale_linear=4",
        ),
        ({"change": _scaled("none", 4.0)}, None),
        ({"change": _scaled("", 1.0)}, None),
        ({"change": _scaled("linear", 1.0)}, None),
    ],
)
def test_files_that_transformers_cannot_load(
    llama: LlamaForCausalLM, tmp_path: Path, options: dict[str, Any], message: str | None
) -> None:
    path = tmp_path / "tiny.gguf"
    write_gguf(path, llama, **options)
    if message is None:
        assert find_model(str(path)).geometry.window == 64
        return
    with pytest.raises(UserError, match=message) as caught:
        find_model(str(path))
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_scaled_frequencies_are_refused(llama: LlamaForCausalLM, tmp_path: Path) -> None:
    """Llama 3.1's are a tensor, which transformers does not read."""
    path = tmp_path / "tiny.gguf"
    factors = torch.ones(8).numpy()
    write_gguf(path, llama, change=lambda writer: writer.add_tensor("rope_freqs.weight", factors))
    with pytest.raises(UserError, match=r"rope_freqs\.weight"):
        find_model(str(path))


def _run(monkeypatch: pytest.MonkeyPatch, *options: str) -> int:
    monkeypatch.setattr(sys, "argv", ["lampe-eval", "run", *options])
    with pytest.raises(SystemExit) as ended:
        main()
    return int(str(ended.value.code or 0))


def _broken(change: Callable[[bytes], bytes]) -> Change:
    return lambda path: path.write_bytes(change(path.read_bytes()))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_broken(lambda content: b""), r"truncated"),
        (_broken(lambda content: content[:3]), r"truncated"),
        (_broken(lambda content: content[:100]), r"truncated"),
        (_broken(lambda content: content[: len(content) // 2]), r"truncated"),
        (_broken(lambda content: content[:-8]), r"truncated"),
        (_broken(lambda content: b"<html>" + content), r"no GGUF file"),
        (_broken(lambda content: content[:4] + b"\x63" + content[5:]), r"version 99"),
        (lambda path: path.unlink(), r"no such file"),
        (lambda path: (path.unlink(), path.mkdir()), r"no config\.json, and no GGUF file"),
    ],
)
def test_a_broken_file_is_one_line(
    tiny: Path,
    tmp_path: Path,
    change: Change,
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = tmp_path / "tiny.gguf"
    path.write_bytes(tiny.read_bytes())
    change(path)
    assert _run(monkeypatch, "--model", str(path), "--bench", "niah") == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert str(path) in lines[0]
    with pytest.raises(UserError, match=message):
        find_checked_model(str(path))


def test_of_several_files_one_is_to_be_named(tmp_path: Path) -> None:
    (tmp_path / "folder.gguf").mkdir()
    for name in ("._a-Q4_0.gguf", "a-Q4_0.gguf", "b-Q8_0.GGUF"):
        (tmp_path / name).touch()
    with pytest.raises(UserError, match=r"a-Q4_0\.gguf, b-Q8_0\.GGUF.*a-Q4_0\.gguf"):
        find_model_card(str(tmp_path))


@pytest.mark.parametrize("package", gguf_files.NEEDED_PACKAGES)
def test_a_missing_package_is_named(
    tiny: Path, monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    monkeypatch.setattr(
        gguf_files, "find_spec", lambda name: None if name == package else "installed"
    )
    with pytest.raises(UserError, match=rf"{package}.*pip install 'lampe-eval\[gguf\]'"):
        find_checked_model(str(tiny))


def test_a_run_of_a_file_is_resumed(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = ("--model", str(tiny), "--method", "original,lampe", "--bench", "ppl/exact")
    run += ("--lengths", "128", "--output", str(tmp_path / "out"), "--limit")
    assert _run(monkeypatch, *run, "1") == 0
    assert _run(monkeypatch, *run, "2") == 0
    assert "tiny" in (tmp_path / "out" / "scores.csv").read_text()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path: a/b\nsource: package\n", "package"),
        ("path: a/b\nsource: web\n", "'hub' or 'package'"),
    ],
)
def test_cards_with_an_impossible_source(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "card.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=message):
        read_card(path, ModelCard)
