"""Command of a server, and what is refused before anything is loaded."""

import json
import shlex
from pathlib import Path
from typing import Any

import pytest
from transformers import (
    AutoConfig,
    DeepseekV3Config,
    Gemma3TextConfig,
    LlamaConfig,
    PreTrainedConfig,
    SmolLM3Config,
    T5Config,
)

import lampe
from lampe_eval.cli import app
from lampe_eval.errors import UserError
from lampe_eval.pocket import WEIGHTS
from lampe_vllm import server_command
from lampe_vllm.model_checks import depends_on_length, sampled_lengths
from lampe_vllm.served_method import ServedMethod
from lampe_vllm.server_command import ServerCommand, check_plugin, check_vllm, option_value
from tests.fixtures import restored_registries

PLUGIN = Path(__file__).parents[2] / "examples" / "my_method.py"


def llama(**changes: Any) -> PreTrainedConfig:
    settings = {"architectures": ["LlamaForCausalLM"], "max_position_embeddings": 256, **changes}
    return LlamaConfig(**settings)


def command(name: str = "lampe", max_length: int = 1024, **options: Any) -> ServerCommand:
    settings = options.pop("settings", {})
    force = options.pop("force", False)
    return ServerCommand("folder", ServedMethod(name, settings, force=force), max_length, **options)


def test_arguments() -> None:
    arguments = command(settings={"head_tokens": 64}, options=("--port", "8001")).arguments()
    assert arguments[:2] == ["-m", "vllm.entrypoints.openai.api_server"]
    assert arguments[-2:] == ["--port", "8001"]
    assert option_value(arguments, "--max-model-len") == "1024"
    assert "--no-enable-prefix-caching" in arguments
    overrides = json.loads(option_value(arguments, "--hf-overrides") or "")
    assert overrides == {
        "lampe": {"method": "lampe", "settings": {"head_tokens": 64}},
        "rswa_window": 1,
        "model_max_length": 1024,
    }
    config = llama(**overrides)
    assert ServedMethod.of(config) == ServedMethod("lampe", {"head_tokens": 64})
    assert ServedMethod.of(llama()) is None


@pytest.mark.parametrize(
    ("caching", "present"),
    [
        ("off", ["--no-enable-prefix-caching"]),
        ("on", ["--enable-prefix-caching"]),
        ("salted", ["--enable-prefix-caching", "--scheduler-cls"]),
    ],
)
def test_prefix_caching(caching: Any, present: list[str]) -> None:
    arguments = command(prefix_caching=caching).arguments()
    assert set(present) <= set(arguments)
    assert ("--scheduler-cls" in arguments) == (caching == "salted")


@pytest.mark.parametrize(
    ("config", "stated"),
    [
        (Gemma3TextConfig(architectures=["Gemma3ForCausalLM"]), "ropes"),
        (DeepseekV3Config(), "MLA"),
        (T5Config(), "encoder"),
        (SmolLM3Config(architectures=["SmolLM3ForCausalLM"]), "without a rope"),
        (AutoConfig.for_model("cohere2"), "without a rope"),
        (AutoConfig.for_model("gemma3n_text"), "ropes|shares"),
        (AutoConfig.for_model("mpt"), "ALiBi"),
        (AutoConfig.for_model("gpt2"), "no rope"),
        (llama(architectures=["MadeUpForCausalLM"]), "MadeUpForCausalLM.*--force"),
    ],
    ids=lambda value: getattr(value, "model_type", ""),
)
def test_models_are_refused(config: PreTrainedConfig, stated: str) -> None:
    with pytest.raises(lampe.UnsupportedModel, match=stated):
        command().check(config)


def test_force_serves_an_architecture_that_was_not_tried() -> None:
    command(force=True).check(llama(architectures=["MadeUpForCausalLM"]))


@pytest.mark.parametrize(
    ("wrong", "stated"),
    [
        (command("lamp"), "lamp"),
        (command(settings={"head": 3}), "head"),
        (command(settings={"head_tokens": "x"}), "head_tokens"),
        (command("selfextend", settings={"window_size": 255}, max_length=4096), "255"),
        (command(settings={"variant": "reference"}), "head_tokens"),
        (command(prefix_caching="on"), "--prefix-caching salted"),
        (command(options=("--kv-cache-dtype", "fp8")), "fp8"),
        (command(options=("--kv-cache-dtype=fp8",)), "fp8"),
        (command(options=("--hf-overrides={}",)), "--method"),
        (command(options=("--kv-cache-dtype", "float16")), "float16"),
        (command(options=("--kv_cache_dtype", "fp8")), "fp8"),
        (command(options=("--hf-overrides.lampe.method", "dca")), "--method"),
        (command(options=("--config", "options.yaml")), "--config"),
        (command(options=("--port", "1", "--print")), "before --"),
        (command(options=("--max-model-len", "9")), "--max-length"),
        (command(options=("--max_model_len=9",)), "--max-length"),
        (command("string", settings={"variant": "reference", "shift": 100, "local": 100}), "100"),
        (command(options=("--enable-prefix-caching",)), "--prefix-caching"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_options_are_refused(wrong: ServerCommand, stated: str) -> None:
    with pytest.raises(lampe.LampeError, match=stated):
        wrong.check(llama())


@pytest.mark.parametrize(
    ("name", "settings", "depends"),
    [
        ("original", {}, False),
        ("dca", {}, False),
        ("rerope", {}, False),
        ("pi", {"factor": 4}, False),
        ("yarn", {"factor": 4.0}, False),
        ("pi", {}, True),
        ("lampe", {}, True),
        ("selfextend", {}, True),
        ("string", {}, True),
    ],
)
def test_caching_goes_with_methods_of_one_encoding(
    name: str, settings: dict[str, Any], depends: bool
) -> None:
    geometry = lampe.Geometry(window=256)
    method = lampe.method_of(name, **settings)
    assert depends_on_length(method, geometry, 2048) is depends
    if not depends:
        command(name, settings=settings, prefix_caching="on").check(llama())


@pytest.mark.parametrize(("window", "most"), [(256, 100), (256, 4096), (4096, 4096), (1, 3)])
def test_sampled_lengths(window: int, most: int) -> None:
    lengths = sampled_lengths(window, most)
    assert lengths[0] == 1 and lengths[-1] == most and lengths == sorted(set(lengths))
    assert {window, window + 1} & set(range(most + 1)) <= set(lengths)


@pytest.mark.parametrize(
    "described",
    ["lampe", {"settings": {}}, {"method": 3}, {"method": "lampe", "setting": {}}],
    ids=str,
)
def test_descriptions_are_checked(described: Any) -> None:
    with pytest.raises(lampe.BadSetting, match="hf-overrides"):
        ServedMethod.of(llama(lampe=described))


def test_the_other_overrides_without_a_method_are_refused() -> None:
    """Refuse a mistyped key, with which vLLM would serve the plain model beyond its window."""
    overrides = ServedMethod("lampe").overrides(1024)
    overrides["lamp"] = overrides.pop("lampe")
    with pytest.raises(lampe.BadSetting, match="'lampe'"):
        ServedMethod.of(llama(**overrides))


def test_vllm_must_be_there_and_tested(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_command, "find_spec", lambda name: None)
    with pytest.raises(lampe.LampeError, match="not installed"):
        check_vllm(force=True)
    monkeypatch.setattr(server_command, "find_spec", lambda name: name)
    monkeypatch.setattr(server_command, "_vllm_version", lambda: "0.320.1")
    with pytest.raises(lampe.LampeError, match=r"0\.320\.1"):
        check_vllm(force=False)
    check_vllm(force=True)
    monkeypatch.setattr(server_command, "_vllm_version", lambda: "0.32.1")
    check_vllm(force=False)


@pytest.mark.parametrize(
    ("words", "dtype"), [([], "float32"), (["--", "--dtype", "bfloat16"], "bfloat16")], ids=str
)
def test_weights_are_those_of_run(
    words: list[str], dtype: str, capsys: pytest.CaptureFixture[str]
) -> None:
    app(["serve", "pocket", "--print", *words], standalone_mode=False)
    printed = shlex.split(capsys.readouterr().out)
    assert printed.count("--dtype") == 1 and option_value(printed, "--dtype") == dtype


def test_vllm_must_find_the_plugin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VLLM_PLUGINS", raising=False)
    monkeypatch.setattr(server_command, "entry_points", lambda **_: ("lampe",))
    check_plugin()
    monkeypatch.setenv("VLLM_PLUGINS", "other,lampe")
    check_plugin()
    monkeypatch.setenv("VLLM_PLUGINS", "other")
    with pytest.raises(lampe.LampeError, match="VLLM_PLUGINS"):
        check_plugin()
    monkeypatch.setattr(server_command, "entry_points", lambda **_: ())
    with pytest.raises(lampe.LampeError, match="installed"):
        check_plugin()


def test_the_command_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["serve", "pocket", "--method", "lampe:head_tokens=32", "--max-length", "1k", "--print"]
    assert app([*words, "--", "--port", "8001"], standalone_mode=False) in (None, 0)
    printed = capsys.readouterr().out
    for part in ("--max-model-len 1024", '"head_tokens": 32', "--port 8001"):
        assert part in printed


@pytest.mark.parametrize(
    ("options", "stated"),
    [
        ([], "not installed"),
        (["--devices", "cpu,cpu"], "--devices"),
        (["--device", "cuda"], "--device"),
        (["--device", "cpu"], "--device"),
        (["--plugin", str(PLUGIN), "--gpus-per-replica", "2"], "--plugin"),
        (["--attention", "dense"], "--attention"),
        (["--model", f"pocket,{WEIGHTS}"], "one model"),
    ],
    ids=str,
)
def test_runs_on_vllm_are_refused_in_one_line(
    options: list[str], stated: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_command, "find_spec", lambda name: None)
    with restored_registries(), pytest.raises(UserError, match=stated):
        app(["run", "--engine", "vllm", *options], standalone_mode=False)


@pytest.mark.parametrize(
    ("words", "stated"),
    [
        (["no-such-folder/x"], "no-such-folder"),
        (["pocket", "--method", "lamp"], "lamp"),
        (["pocket", "--method", "lampe,dca"], "lampe,dca"),
        (["pocket", "--method", "selfextend:window_size=255", "--max-length", "4k"], "255"),
        (["pocket", "--prefix-caching", "on"], "salted"),
        (["pocket"], "vllm"),
    ],
    ids=str,
)
def test_bad_input_is_one_line(
    words: list[str], stated: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_command, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=stated) as refused:
        app(["serve", *words], standalone_mode=False)
    assert "\n" not in str(refused.value)
