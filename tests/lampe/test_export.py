"""Exported checkpoints: what they load as, what is refused, and that none is ever half written."""

import errno
import importlib.util
import json
import os
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
import yaml
from safetensors import SafetensorError
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    dynamic_module_utils,
)

import lampe
from lampe.checkpoints.draft_folder import draft_of
from lampe.checkpoints.export import MODULE
from lampe.methods import METHODS
from tests.lampe.tiny import WINDOW, llama, random_ids

LENGTH = 4 * WINDOW
ANSWER = 8
SETTINGS: list[tuple[str, dict[str, Any]]] = [
    *((name, {}) for name in METHODS),
    ("lampe", {"variant": "reference", "mapping_length": 48, "head_tokens": 20}),
    ("lampe+yarn", {"yarn.factor": 2}),
    ("yarn", {"factor": 4}),
    ("pi", {"factor": 4.0}),
    ("ntk", {"factor": 4}),
    ("dynamic-ntk", {"cache": "rotated"}),
]
CONFIGURED = [("original", {}), *SETTINGS[-4:]]
"""Methods and settings for which a configuration is enough."""
LOADER = """
import json, sys
import torch
from transformers import AutoModelForCausalLM, logging
logging.disable_progress_bar()
ids = torch.tensor(json.loads(sys.argv[1]))
for path in sys.argv[2:]:
    if path.startswith("code:"):
        model = AutoModelForCausalLM.from_pretrained(path[5:], trust_remote_code=True)
    else:
        model = AutoModelForCausalLM.from_pretrained(path)
        assert "lampe" not in sys.modules
    print(json.dumps(model.generate(ids, max_new_tokens=8, do_sample=False)[0].tolist()))
"""


@pytest.fixture(autouse=True)
def surroundings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Give modules of checkpoints a folder of the test, and ignore warnings of positions."""
    modules = tmp_path / "modules"
    monkeypatch.setattr(dynamic_module_utils, "HF_MODULES_CACHE", str(modules))
    monkeypatch.syspath_prepend(str(modules))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", lampe.PositionWarning)
        yield


@pytest.fixture
def model() -> LlamaForCausalLM:
    return llama()


def _loaded(folder: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True)


def _answer(model: Any, ids: Tensor) -> list[int]:
    tokens: list[int] = model.generate(ids, max_new_tokens=ANSWER, do_sample=False)[0].tolist()
    return tokens


def _patched_answer(
    model: LlamaForCausalLM, ids: Tensor, method: str, settings: dict[str, Any]
) -> list[int]:
    with lampe.patch(model, method, check=False, **settings):
        return _answer(model, ids)


def _is_plain(folder: Path) -> bool:
    """Return whether a checkpoint needs nothing but transformers."""
    config = json.loads((folder / "config.json").read_text())
    assert ("auto_map" in config) == (folder / f"{MODULE}.py").exists()
    return "auto_map" not in config


def test_every_method_answers_the_same_in_a_new_process(
    model: LlamaForCausalLM, tmp_path: Path
) -> None:
    """Plain configurations come first: they load before anything has imported lampe."""
    ids = random_ids(LENGTH)
    settings = sorted(SETTINGS, key=lambda each: each not in CONFIGURED)
    paths, expected = [], []
    for number, (method, given) in enumerate(settings):
        folder = lampe.export(model, method, tmp_path / f"exported{number}", **given)
        assert _is_plain(folder) == ((method, given) in CONFIGURED), method
        paths.append(str(folder) if _is_plain(folder) else f"code:{folder}")
        expected.append(_patched_answer(model, ids, method, given))
    environment = {**os.environ, "HF_HOME": str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", LOADER, json.dumps(ids.tolist()), *paths]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    for (method, given), ours, theirs in zip(settings, answers, expected, strict=True):
        assert ours == theirs, (method, given)


ARCHITECTURES: dict[str, dict[str, Any]] = {
    "qwen2": {},
    "mistral": {"sliding_window": None},
    # Their weights are stored in another form than they are used in.
    "mixtral": {"num_local_experts": 2, "sliding_window": None},
}


@pytest.mark.parametrize("kind", ARCHITECTURES)
@pytest.mark.parametrize(("method", "settings"), [("selfextend", {}), ("yarn", {"factor": 4})])
def test_other_architectures_load_too(
    kind: str, method: str, settings: dict[str, Any], tmp_path: Path
) -> None:
    small = {name: getattr(llama().config, name) for name in ("vocab_size", "hidden_size")}
    config = AutoConfig.for_model(
        kind, **small, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=16, max_position_embeddings=WINDOW, eos_token_id=None,
        pad_token_id=0, initializer_range=0.15, **ARCHITECTURES[kind],
    )  # fmt: skip
    model = AutoModelForCausalLM.from_config(config).eval()  # type: ignore[no-untyped-call]
    ids = random_ids(LENGTH)
    loaded = _loaded(lampe.export(model, method, tmp_path / "exported", **settings))
    assert type(loaded) is type(model)
    assert _answer(loaded, ids) == _patched_answer(model, ids, method, settings)


def test_a_folder_is_exported_with_its_tokenizer_and_licence(
    pocket: tuple[PreTrainedModel, PreTrainedTokenizerBase], tmp_path: Path
) -> None:
    model, tokenizer = pocket
    type(model).save_pretrained(model, tmp_path / "source", max_shard_size="3MB")
    tokenizer.save_pretrained(tmp_path / "source")
    (tmp_path / "source" / "LICENSE.txt").write_text("as it says")
    folder = lampe.export(tmp_path / "source", "yarn", tmp_path / "out", max_length=1024)
    assert (folder / "LICENSE.txt").read_text() == "as it says"
    assert (folder / "generation_config.json").exists()
    loaded = AutoModelForCausalLM.from_pretrained(folder)
    assert loaded.dtype == model.dtype
    assert loaded.lm_head.weight is loaded.model.embed_tokens.weight
    for name, weight in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], weight), name
    assert (folder / "tokenizer.json").read_text() == (
        tmp_path / "source" / "tokenizer.json"
    ).read_text()


def test_a_length_fixes_what_a_method_of_frequencies_derives_from_it(
    model: LlamaForCausalLM, tmp_path: Path
) -> None:
    folder = lampe.export(model, "yarn", tmp_path / "fixed", max_length=LENGTH)
    config = json.loads((folder / "config.json").read_text())
    assert config["rope_parameters"]["factor"] == 4
    assert config["max_position_embeddings"] == LENGTH
    assert config["lampe_export"]["settings"]["factor"] == 4
    # By transformers' convention linear scaling multiplies the length that a configuration names.
    folder = lampe.export(model, "pi", tmp_path / "linear", max_length=LENGTH)
    config = json.loads((folder / "config.json").read_text())
    assert config["rope_parameters"]["rope_type"] == "linear"
    assert config["max_position_embeddings"] == WINDOW


def test_one_rope_for_all_layers_is_no_configuration_of_a_model_with_short_sighted_ones(
    tmp_path: Path,
) -> None:
    """Export Gemma 2, whose sliding layers a patch leaves alone, as no configuration can."""
    config = AutoConfig.for_model(
        "gemma2", vocab_size=128, hidden_size=64, intermediate_size=96, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, head_dim=16, max_position_embeddings=WINDOW,
        sliding_window=32, eos_token_id=None, initializer_range=0.15,
    )  # fmt: skip
    model = AutoModelForCausalLM.from_config(config).eval()  # type: ignore[no-untyped-call]
    folder = lampe.export(model, "pi", tmp_path / "exported", factor=4)
    assert not _is_plain(folder)
    ids = random_ids(LENGTH)
    assert _answer(_loaded(folder), ids) == _patched_answer(model, ids, "pi", {"factor": 4})


@pytest.mark.parametrize(
    ("name", "commit", "base_model"),
    [("org/name", "abc", "org/name"), ("org/name", None, "org/name"), ("/home/me/x y", None, None)],
)
def test_the_model_card_says_what_was_done(
    model: LlamaForCausalLM, tmp_path: Path, name: str, commit: str | None, base_model: str | None
) -> None:
    model.name_or_path, model.config._commit_hash = name, commit
    folder = lampe.export(
        model, "lampe", tmp_path / "exported", window=48, max_length=LENGTH, head_tokens=7
    )
    card = (folder / "README.md").read_text()
    _, metadata, text = card.split("---\n", 2)
    assert yaml.safe_load(metadata).get("base_model") == base_model
    assert "/home" not in card
    for fact in ("`lampe`", "head_tokens=7", "48 tokens", f"{LENGTH} tokens", "trust_remote_code"):
        assert fact in text
    assert f"{name.rpartition('/')[2]}{f'@{commit}' if commit else ''}`" in text


def test_a_patched_model_is_exported_with_its_window_and_stays_patched(
    model: LlamaForCausalLM, tmp_path: Path
) -> None:
    ids = random_ids(LENGTH)
    with lampe.patch(model, "dca", window=32) as handle, warnings.catch_warnings():
        warnings.simplefilter("error", lampe.CheckpointWarning)
        expected = _answer(model, ids)
        folder = lampe.export(model, handle.method, tmp_path / "exported")
        assert _answer(model, ids) == expected
    assert _answer(_loaded(folder), ids) == expected


class Unknown(lampe.IndexMethod):
    name: ClassVar[str] = "unknown-elsewhere"


class Adapted:
    """Model as PEFT wraps it."""

    def merge_and_unload(self) -> None: ...


REFUSED: dict[str, tuple[Callable[[LlamaForCausalLM], tuple[Any, ...]], dict[str, Any], str]] = {
    "unknown method": (lambda model: (model, "lamp"), {}, "lampe"),
    "unknown setting": (lambda model: (model, "lampe"), {"head_token": 3}, "head_tokens"),
    "window above the length": (lambda model: (model, "lampe"), {"max_length": 40}, "40.* 64"),
    "settings that do not fit": (
        lambda model: (model, "lampe"),
        {"mapping_length": 9, "max_length": 200},
        "mapping_length=9",
    ),
    "a method of this process": (lambda model: (model, Unknown()), {}, "entry point"),
    "an adapter": (lambda model: (Adapted(), "lampe"), {}, "merge"),
    "no model": (lambda model: (3, "lampe"), {}, "int is no model"),
    "no folder": (lambda model: ("no/such/folder/anywhere", "lampe"), {}, "no/such/folder"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_exported_is_refused_and_nothing_is_written(
    model: LlamaForCausalLM, tmp_path: Path, case: str
) -> None:
    arguments, options, words = REFUSED[case]
    with pytest.raises(lampe.LampeError, match=words) as error:
        lampe.export(*arguments(model), tmp_path / "out" / "exported", **options)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out").exists()


def test_an_adapter_in_the_folder_of_a_model_is_refused(
    model: LlamaForCausalLM, tmp_path: Path
) -> None:
    model.save_pretrained(tmp_path / "model")
    (tmp_path / "model" / "adapter_config.json").write_text("{}")
    with pytest.raises(lampe.UnsupportedModel, match="merge"):
        lampe.export(tmp_path / "model", "lampe", tmp_path / "exported")


@pytest.mark.parametrize("settings", [{"factor": 4}, {}])
def test_an_exported_checkpoint_is_not_exported_again(
    model: LlamaForCausalLM, tmp_path: Path, settings: dict[str, Any]
) -> None:
    folder = lampe.export(model, "yarn", tmp_path / "one", source="org/name", **settings)
    with pytest.raises(lampe.ExportError, match=r"yarn already.*org/name"):
        lampe.export(folder, "lampe", tmp_path / "two")


def test_a_patch_on_top_of_an_exported_configuration_warns(
    model: LlamaForCausalLM, tmp_path: Path
) -> None:
    folder = lampe.export(model, "yarn", tmp_path / "one", factor=4)
    loaded = AutoModelForCausalLM.from_pretrained(folder)
    with pytest.warns(lampe.PositionWarning, match="exported with yarn"):
        lampe.patch(loaded, "lampe").unpatch()
    patched = _loaded(lampe.export(model, "lampe", tmp_path / "two"))
    with pytest.raises(lampe.UnsupportedModel, match="lampe already"):
        lampe.patch(patched, "yarn")


def _files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_only_an_exported_folder_is_overwritten(model: LlamaForCausalLM, tmp_path: Path) -> None:
    output = tmp_path / "exported"
    output.mkdir()
    lampe.export(model, "lampe", output)  # it was empty
    with pytest.raises(lampe.ExportError, match="exists"):
        lampe.export(model, "dca", output)
    lampe.export(model, "dca", output, overwrite=True)
    assert "dca" in (output / "README.md").read_text()
    model.save_pretrained(tmp_path / "other")
    (tmp_path / "file").write_text("mine")
    for name in ("other", "file", "file/below"):
        with pytest.raises(lampe.ExportError, match=name):
            lampe.export(model, "lampe", tmp_path / name, overwrite=True)
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != "home") == [
        "exported",
        "file",
        "other",
    ]


@pytest.mark.parametrize("failure", [
    KeyboardInterrupt(),
    OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),
    SafetensorError("I/O error: No space left on device (os error 28)"),
])  # fmt: skip
@pytest.mark.parametrize("exists", [False, True])
def test_an_export_that_fails_leaves_what_was_there(
    model: LlamaForCausalLM,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    failure: BaseException,
    exists: bool,
) -> None:
    output = tmp_path / "exported"
    if exists:
        lampe.export(model, "dca", output)
    before = _files(output) if exists else {}

    def fail(self: Any, folder: Path, **options: Any) -> None:
        (folder / "config.json").write_text("{")
        raise failure

    monkeypatch.setattr(LlamaForCausalLM, "save_pretrained", fail)
    expected = KeyboardInterrupt if isinstance(failure, KeyboardInterrupt) else lampe.ExportError
    with pytest.raises(expected):
        lampe.export(model, "lampe", output, overwrite=True)
    assert (_files(output) if output.exists() else {}) == before
    assert not list(tmp_path.glob("exported.*"))


WITHOUT_CODE: dict[str, Callable[[Path], Any]] = {
    "no consent": lambda path: AutoModelForCausalLM.from_pretrained(path, trust_remote_code=False),
    "the original class": lambda path: LlamaForCausalLM.from_pretrained(path),
    "its configuration": lambda path: AutoModelForCausalLM.from_config(  # type: ignore[no-untyped-call]
        AutoConfig.from_pretrained(path, trust_remote_code=True), trust_remote_code=True
    ),
}


@pytest.mark.parametrize("way", WITHOUT_CODE)
def test_a_checkpoint_with_code_never_loads_without_its_patch(
    model: LlamaForCausalLM, tmp_path: Path, way: str
) -> None:
    folder = lampe.export(model, "lampe", tmp_path / "exported")
    with pytest.raises(Exception, match=r"trust_remote_code|from_pretrained"):
        WITHOUT_CODE[way](folder)


def _run_module(path: Path) -> None:
    spec = importlib.util.spec_from_file_location("modeling_lampe_of_test", path)
    assert spec is not None and spec.loader is not None
    spec.loader.exec_module(importlib.util.module_from_spec(spec))


def test_a_missing_lampe_is_named(
    model: LlamaForCausalLM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = lampe.export(model, "lampe", tmp_path / "exported")
    _run_module(folder / f"{MODULE}.py")
    monkeypatch.setitem(sys.modules, "lampe.checkpoints.loading", None)
    with pytest.raises(ImportError, match=r"lampe-eval \d+\.\d+\.\d+ or later") as error:
        _run_module(folder / f"{MODULE}.py")
    assert "\n" not in str(error.value)
    # transformers looks for missing packages itself, and would name another one of that name.
    assert "lampe" not in dynamic_module_utils.get_imports(folder / f"{MODULE}.py")


@pytest.mark.parametrize(
    ("key", "value"), [("method", "lampe-of-tomorrow"), ("settings", {"setting_of_tomorrow": 1})]
)
def test_a_checkpoint_of_a_later_version_names_both_versions(
    model: LlamaForCausalLM, tmp_path: Path, key: str, value: Any
) -> None:
    folder = lampe.export(model, "lampe", tmp_path / "exported")
    config = json.loads((folder / "config.json").read_text())
    config["lampe_export"] |= {key: value, "version": "9.9.9"}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(lampe.ExportError, match=r"tomorrow.* 9\.9\.9"):
        _loaded(folder)


def test_drafts_of_killed_processes_are_removed(tmp_path: Path) -> None:
    """Remove a draft whose process is gone, and leave that of a running one and other files."""
    left, running, other = (tmp_path / f"out.{name}.part" for name in (2**30, os.getppid(), "mine"))
    for folder in (left, running, other):
        folder.mkdir()
    with draft_of(tmp_path / "out") as draft:
        (draft / "file").write_text("")
    assert not left.exists() and running.exists() and other.exists()
