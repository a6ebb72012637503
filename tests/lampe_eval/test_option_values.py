"""Values of options: none is empty, and those out of bounds are one line that names the option."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main

import lampe
from lampe_eval import cli
from lampe_eval.calibration.calibration_config import CalibrationConfig
from lampe_eval.errors import UserError
from lampe_eval.method_specs import parse_methods
from lampe_eval.speed.speed_config import SpeedConfig
from lampe_eval.suite import Suite


def _commands(group: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from _commands(command, (*path, name))
        else:
            yield (*path, name), command


def _options() -> list[tuple[str, ...]]:
    """Return every option of every command that takes a value, behind the command's words."""
    found: list[tuple[str, ...]] = []
    for path, command in _commands(typer.main.get_command(cli.app)):
        for parameter in command.params:
            if parameter.param_type_name == "option" and not parameter.is_flag:
                found.append((*path, parameter.opts[0]))
    return found


def _error(arguments: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: Any) -> str:
    monkeypatch.setattr(sys, "argv", ["lampe-eval", *arguments])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    assert caught.value.code == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    return captured.err


def test_all_options_are_found() -> None:
    assert len(_options()) > 60


@pytest.mark.parametrize("value", ["", "  ", "\t"])
@pytest.mark.parametrize("option", _options(), ids=" ".join)
def test_an_empty_value_names_its_option(
    option: tuple[str, ...],
    value: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert option[-1] in _error([*option, value], capsys, monkeypatch)


@pytest.mark.parametrize(
    "arguments",
    [
        *(["run", "--limit", value] for value in ("x", "1e23", "nan", "4k", "1.5")),
        *(["run", "--seed", value] for value in ("x", "1e3")),
        *(["run", option, "x"] for option in ("--max-batch-tokens", "--gpus-per-replica")),
        *(["speed", option, "x"] for option in ("--layers", "--pairs", "--chunk")),
        *(["suggest", "--answer", value] for value in ("x", "-1", "1e3")),
        *(["suggest", "--window", value] for value in ("0", "nan", "-1", "17m")),
        *(["show", "plan", "--length", value] for value in ("0", "inf", "4q")),
    ],
    ids=" ".join,
)
def test_a_wrong_number_is_said_in_plain_words(
    arguments: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    error = _error(arguments, capsys, monkeypatch)
    assert arguments[-2] in error
    assert "Input should" not in error
    assert "unable to parse" not in error


def test_a_wrong_choice_is_said_in_plain_words(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    error = _error(["export", "run", "--to", "lmeval"], capsys, monkeypatch)
    assert "'lmeval'" in error
    assert "lm-eval" in error
    assert "Value error" not in error


@pytest.mark.parametrize(
    "arguments",
    [
        ["run", "--lengths", "512", "1k"],
        ["run", "--method", "original", "lampe"],
        ["run", "--decide", "true"],
        ["compare", "a", "b", "c"],
        ["leaderboard", "build", "a", "b"],
    ],
    ids=" ".join,
)
def test_an_argument_too_many_says_how_lists_are_written(
    arguments: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    error = _error(arguments, capsys, monkeypatch)
    assert repr(arguments[-1]) in error
    assert "commas" in error


@pytest.mark.parametrize(
    "arguments",
    [
        *(["run", "--dry-run", option] for option in ("--model", "--config", "--plugin")),
        *(["run", "--dry-run", option] for option in ("--method", "--bench", "--haystack")),
        *(["run", "--dry-run", option] for option in ("--dtype", "--device", "--protocol")),
        ["run", "--output"],
        ["show", "plan", "--method"],
        ["report"],
        ["export", "--to", "hf"],
        ["score"],
        ["leaderboard", "compare"],
        ["data", "path", "--data-dir"],
        ["run", "--bench", "ppl", "--data-dir"],
    ],
    ids=" ".join,
)
@pytest.mark.parametrize("name", ["x" * 300, f"folder/{'x' * 300}"], ids=["name", "path"])
def test_a_name_that_is_too_long_is_one_line(
    arguments: list[str],
    name: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if arguments[:2] == ["data", "path"]:
        arguments = [*arguments, name, "longbench"]
    else:
        arguments = [*arguments, name]
    monkeypatch.setattr(sys, "argv", ["lampe-eval", *arguments])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    captured = capsys.readouterr()
    assert (caught.value.code, captured.err.splitlines()[-1:]) == (2, [captured.err.strip()])
    assert "unexpected" not in captured.err


def test_an_offline_folder_must_exist_also_where_no_bench_needs_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "none"
    error = _error(["run", "--bench", "ppl", "--data-dir", str(folder)], capsys, monkeypatch)
    assert str(folder) in error and "--data-dir" in error


@pytest.mark.parametrize("schema", [Suite, CalibrationConfig, SpeedConfig])
@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("limit", [0, -1, 10**23]),
        ("seed", [-1, 10**30]),
        ("max_batch_tokens", [0, 10**20]),
        ("gpus_per_replica", [0, 10**9]),
        ("lengths", [",", "a,,b", "0", "17m", "nan", "-1", "4k,"]),
        ("held_out", ["17m", ","]),
        ("mapping_lengths", ["17m", "0"]),
        ("attention_factors", ["nan", "inf", "0", "-1", "1e300", ","]),
        ("model", [",", "a,,b"]),
        ("bench", [",", "a,,b"]),
        ("layers", [0, -1]),
        ("pairs", [0, 10**20]),
        ("chunk", [0, 10**20]),
        ("window", ["0", "17m"]),
    ],
)
def test_values_out_of_bounds_name_their_option(
    schema: type[Suite] | type[SpeedConfig], name: str, values: list[Any]
) -> None:
    if name not in schema.model_fields or (schema is SpeedConfig and name == "model"):
        return
    for value in values:
        options = {name: value, **({"shape": "llama3-8b"} if name == "layers" else {})}
        with pytest.raises(UserError, match=f"--{name.replace('_', '-')}: "):
            schema.from_options(options)


@pytest.mark.parametrize(
    "text",
    [
        *(f"yarn:factor={value}" for value in ("nan", ".nan", ".inf", "1e30", "yes", "true")),
        *(f"lampe:head_tokens={value}" for value in ("1e30", "nan", "1.5", "99999999999999999999")),
        *("lampe:attention_factor=.nan", "lampe:attention_factor_rate=.inf", "ntk:factor=1e300"),
        *("lampe:head_tokens=1,head_tokens=2", "lampe,,dca", ",", "lampe:", "lampe:head_tokens="),
    ],
)
def test_settings_out_of_bounds_are_one_line(text: str) -> None:
    with pytest.raises((UserError, lampe.LampeError)) as caught:
        [spec.build({}) for spec in parse_methods([text])]
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "arguments", [["run"], ["run", "--dry-run"], ["calibrate", "--dry-run"]], ids=" ".join
)
def test_a_length_beyond_the_memory_is_refused_before_sampling(
    arguments: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lampe_eval.running.prepared_run.total_bytes", lambda device: 1 << 32)
    error = _error([*arguments, "--lengths", "1k,2k,16m", "--limit", "1"], capsys, monkeypatch)
    assert "--lengths: 16777216" in error


def _make_file(folder: Path) -> None:
    folder.write_text("")


def _make_link(folder: Path) -> None:
    folder.mkdir()
    (folder / ".lock").symlink_to("elsewhere")


def _make_samples(folder: Path) -> None:
    (folder / "samples").mkdir(parents=True)
    (folder / "samples" / "x.jsonl").write_text("{}")


@pytest.mark.parametrize(
    ("prepare", "output"),
    [
        (_make_file, "results"),
        (_make_file, "results/below"),
        (_make_link, "results"),
        (_make_samples, "results"),
        (lambda folder: None, "/proc/results"),
        (lambda folder: folder.symlink_to(folder.name), "results/below"),
    ],
    ids=["file", "below a file", "link", "undescribed samples", "no such place", "loop"],
)
def test_a_dry_run_refuses_an_output_as_the_run_does(
    prepare: Callable[[Path], None],
    output: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    prepare(tmp_path / "results")
    before = sorted(tmp_path.rglob("*"))
    arguments = ["--bench", "ppl/exact", "--lengths", "64", "--limit", "1", "--output", output]
    errors: list[str] = []
    for dry in (["--dry-run"], []):
        monkeypatch.setattr(sys, "argv", ["lampe-eval", "run", *dry, *arguments])
        with pytest.raises(SystemExit) as caught:
            cli.main()
        assert caught.value.code == 2
        captured = capsys.readouterr()
        assert captured.out == ""
        errors.append(captured.err.splitlines()[-1])
    assert errors[0] == errors[1]
    assert output in errors[0]
    assert [path for path in sorted(tmp_path.rglob("*")) if "cache" not in str(path)] == before


def test_a_dry_run_leaves_no_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ["--bench", "ppl/exact", "--lengths", "64", "--limit", "1", "--output", "a/b"]
    monkeypatch.setattr(sys, "argv", ["lampe-eval", "run", "--dry-run", *arguments])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    assert caught.value.code in (0, None)
    assert "a/b" in capsys.readouterr().out
    assert not (tmp_path / "a").exists()
