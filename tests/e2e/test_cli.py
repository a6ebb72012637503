"""Command line: quick help, and errors in one line with exit code 2 and without a traceback."""

import errno
import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import pytest
from transformers import FalconConfig, FalconForCausalLM, GPT2Config, T5Config

from lampe.methods import KINDS
from lampe_eval.cli import main
from lampe_eval.commands import listing
from lampe_eval.pocket import WEIGHTS
from lampe_eval.store import Cell
from tests.lampe_eval import synthetic_runs


class Done(NamedTuple):
    """Exit code and printed texts of a command."""

    code: int
    out: str
    err: str


Cli = Callable[..., Done]
ROOT = Path(__file__).parents[2]


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    """Run the command line in this process."""

    def run(*arguments: str) -> Done:
        monkeypatch.setattr(sys, "argv", ["lampe-eval", *arguments])
        with pytest.raises(SystemExit) as stopped:
            main()
        return Done(int(stopped.value.code or 0), *capsys.readouterr())

    return run


def _refused(done: Done) -> str:
    """Return the last line of a refused command, after those about its progress."""
    assert done.code == 2, done
    *before, line = done.err.splitlines()
    assert line.startswith("lampe-eval: ")
    prefixes = ("[", "fetching ", "running ", "not pinned", "lampe-eval: ")
    assert all(line.startswith(prefixes) for line in before), done.err
    return line


LISTED = ("methods", "models", "benches", "tasks", "protocols", "published")
REFUSED = """
run --method lamp
run --method lampe:foo=3
run --method lampe:head_tokens=x
run --method lampe+yarn:yarn.foo=3
run --bench nih --dry-run
run --bench niah/x
run --model poket
run --model .
run --model ./none
run --protocol far
run --protocol fair:foo=1
run --config nosuch
run --config none.yaml
run --config suite.yaml
run --lengths 4q
run --limit many
run --device foo
run --dtype int8
run --attention blockwize
run --engine rya
run --plugin none.py
run --haystack none.txt
run --bench ppl --text none.txt
calibrate --bench ppl/exat
calibrate --method pi
calibrate --sweep foo
suggest --model poket
suggest --length 3x
speed --shape foo
speed --attention foo
speed --device foo
speed --method lamp
show plan --method lamp
show plan --method lampe:foo=3
score
score none
score .
score --preds . --bench foo
score --preds . --bench ruler
report none
report .
export none --to hf
export run
export run --to foo
leaderboard none
leaderboard run --against lampe-tabel1
leaderboard build none
data path foo
"""
"""Commands that are wrong by a name, a value or a file, in a folder with a suite and a run."""


def test_what_needs_no_heavy_library_imports_none(tmp_path: Path) -> None:
    """Torch takes seconds to import, and on a busy machine up to a minute."""
    (tmp_path / "suite.yaml").write_text("metod: pi\n")
    cell = Cell("llama3-8b-instruct", "lampe", "ruler", "vt", 8192)
    synthetic_runs.store(tmp_path / "run", [cell], "lampe")
    script = """
import os
import sys
from lampe_eval.cli import main
heavy = {"torch", "transformers", "pandas", "scipy", "matplotlib", "datasets", "nltk", "ray"}
for arguments in sys.argv[1:]:
    sys.argv = ["lampe-eval", *arguments.split()]
    try:
        main()
    except SystemExit as stopped:
        print(stopped.code or 0, sorted(heavy & sys.modules.keys()), arguments, file=sys.stderr)
"""
    listed = [f"list {what}" for what in LISTED]
    refused = REFUSED.split("\n")[1:-1]
    done = subprocess.run(
        [sys.executable, "-c", script, "--help", *listed, *refused],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    lines = [line for line in done.stderr.splitlines() if not line.startswith("lampe-eval: ")]
    assert lines == [
        *(f"0 [] {arguments}" for arguments in ["--help", *listed]),
        *(f"2 [] {arguments}" for arguments in refused),
    ], done.stderr
    assert done.stderr.count("\n") == len(lines) + len(refused)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_at_any_time_ends_with_its_exit_code(number: int, code: int) -> None:
    script = f"""
import signal
from lampe_eval import cli
cli.app = lambda **_: signal.raise_signal({number})
cli.main()
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (code, "stopped\n")


@pytest.mark.parametrize("what", ["models", "methods", "benches", "tasks", "published"])
def test_list(cli: Cli, what: str) -> None:
    done = cli("list", what)
    assert done.code == 0
    expected = {
        "models": "pocket",
        "methods": "leaky-rerope",
        "benches": "niah",
        "tasks": "ppl/dense",
        "published": "lampe-table1",
    }[what]
    assert expected in done.out


def test_methods_are_listed_by_what_they_change(cli: Cli) -> None:
    listed = [line.split()[0] for line in cli("list", "methods").out.splitlines() if line[0] != " "]
    titles = [name for name in listed if name in KINDS]
    assert titles == [kind for kind in KINDS if kind in titles]
    assert {"unchanged", "frequencies", "positions"} <= set(titles)
    begin, end = listed.index("frequencies"), listed.index("positions")
    assert {"pi", "yarn", "mrrope", "cope"} <= set(listed[begin:end])
    assert {"lampe", "self", "dca"} <= set(listed[end:])


def test_no_name_in_the_list_of_published_tables_is_broken(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    printed = cli("list", "published").out
    assert "HKUNLP/ChunkLlama@2add4d7c99d24dcc1ab03414cc602abb2e28cf2c" in printed
    assert "string-niah-baselines-llama3.1" in printed


def test_leaderboard(cli: Cli, tmp_path: Path) -> None:
    cell = Cell("llama3-8b-instruct", "lampe", "ruler", "vt", 8192)
    synthetic_runs.store(tmp_path / "run", [cell], "lampe")
    done = cli("leaderboard", str(tmp_path / "run"), "--against", "lampe-ruler")
    assert (done.code, done.err) == (0, "")
    assert "12 of 13 cells not in the run: ruler/niah_single_1 at 8192" in done.out
    assert (
        cli("leaderboard", "compare", str(tmp_path / "run"), "--against", "lampe-ruler").out
        == done.out
    )
    assert "did you mean 'lampe-ruler'" in _refused(
        cli("leaderboard", "--against", "lampe-rulr", str(tmp_path / "run"))
    )
    assert ": run" in _refused(cli("leaderboard", str(tmp_path), "--against", "lampe-ruler"))
    assert "see: lampe-eval list published" in _refused(cli("leaderboard", str(tmp_path / "run")))
    assert f"{tmp_path / 'none'}: no such folder" in _refused(
        cli("leaderboard", str(tmp_path / "none"))
    )


def test_show_plan(cli: Cli, tmp_path: Path) -> None:
    png = tmp_path / "plan.png"
    done = cli(
        "show",
        "plan",
        "--method",
        "lampe",
        "--window",
        "8192",
        "--length",
        "32768",
        "--png",
        str(png),
    )
    assert done.code == 0, done.err
    assert "largest relative position 5559, inside the window of 8192" in done.out
    assert "█" in done.out or "▒" in done.out
    assert png.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("method", "shown"),
    [
        (
            "dpe:group_sizes=2/8",
            [
                "groups, pairs 0 to 31   32 to end",
                "floor(x · 1/2) + 16",
                "groups, pairs 32 to 63",
                "largest relative position 152 in the slowest pairs, 515 in those",
                "picture shows the slowest pairs",
            ],
        ),
        (
            "gali:chunk=500",
            [
                "plain, queries 0 to 255",
                "squeezed, queries 756 to 999",
                "max(floor((x + 4) · 1/5), x - 744)",
                "max(x · 1/5, x - 744)",
                "largest relative position 255, inside",
            ],
        ),
    ],
)
def test_show_plan_lists_bands_of_pairs_and_of_queries(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, method: str, shown: list[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    done = cli("show", "plan", "--method", method, "--window", "256", "--length", "1000")
    assert done.code == 0, done.err
    text = " ".join(done.out.split())
    assert not [part for part in shown if " ".join(part.split()) not in text]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["run", "--method", "lamp"],
            "'lamp' (did you mean 'lampe'?); see: lampe-eval list methods",
        ),
        (["run", "--model", "poket"], "'poket' (did you mean 'pocket'"),
        (["run", "--bench", "nia"], "'nia' (did you mean 'niah'"),
        (["run", "--bench", "niah/singl"], "'singl' (did you mean 'single'"),
        (["run", "--metod", "pi"], "No such option: --metod"),
        (["rum"], "No such command 'rum'"),
        (["run", "--lengths", "4q"], "--lengths: '4q'"),
        (["run", "--lengths", "30"], "niah/single: at length 30"),
        (["run", "--limit", "many"], "Invalid value for '--limit'"),
        (
            ["run", "--method", "lampe:head_tokens=9999", "--lengths", "512"],
            "method 'lampe:head_tokens=9999' at length 512",
        ),
        (
            ["run", "--haystack", "/none.txt", "--lengths", "256"],
            "/none.txt: no such file",
        ),
        (["run", "--config", "/none.yaml"], "--config: /none.yaml: no such file"),
        (["run", "--config", "/proc"], "--config: /proc: a folder"),
        (["run", "--output", "/proc/version"], "'/proc/version' is a file"),
        (["report", "/proc/version"], "/proc/version: a file"),
        (["run", "--config", "dmo"], "'dmo' (did you mean 'demo'"),
        (["run", "--output", "/proc/none"], "cannot write /proc/none"),
        (["run", "--model", "pocket,pocket"], "'pocket'"),
        (["run", "--dtype", "flot32"], "--dtype: 'flot32'"),
        (["run", "--text", "/proc/self/mem", "--bench", "ppl"], "/proc/self/mem"),
        (["run", "--attention", "blockwize"], "--attention: unknown backend 'blockwize'"),
        (["run", "--device", "cuda:9"], "device 'cuda:9'"),
        (
            ["run", "--devices", "0,cpu"],
            "--devices: '0,cpu'",
        ),
        (
            ["run", "--engine", "ray", "--address", "auto", "--devices", "0"],
            "--devices",
        ),
        (["run", "--address", "auto"], "--address"),
        (
            ["run", "--devices", "cpu", "--device", "cpu"],
            "--device ",
        ),
        (["run", "--engine", "rya"], "--engine: must be 'local', 'ray' or 'vllm'"),
        (
            ["run", "--fail-on-error", "5 %"],
            "--fail-on-error: '5 %'",
        ),
        (["run", "--max-batch-tokens", "0"], "--max-batch-tokens: must be at least 1, got 0"),
        (["run", "--model", "./none"], "--model: ./none: no such folder"),
        (
            ["run", "--gpus-per-replica", "2"],
            "--gpus-per-replica",
        ),
        (
            ["run", "--gpus-per-replica", "2", "--devices", "cpu"],
            "--gpus-per-replica",
        ),
        (["score"], "--preds FOLDER with --bench NAME"),
        (["score", "/none"], "/none: no such folder"),
        (
            ["score", "--preds", "/none", "--bench", "longbench"],
            "'--preds': dir '/none'",
        ),
        (["show", "plan", "--method", "lampe:maping=3"], "'maping'"),
        (["show", "plan", "--length", "x"], "'--length': 'x'"),
        (["show", "plan", "--method", "pi,ntk", "--png", "plans.png"], "plans.png"),
        (
            ["calibrate", "--attention-factors", "1,hot"],
            "--attention-factors: 'hot'",
        ),
        (
            ["suggest", "--length", "3x"],
            "'--length': '3x'",
        ),
        (
            ["suggest", "--model", "nobody/nothing"],
            "nobody/nothing: not in the local cache",
        ),
        (["show", "plan", "--png", "/none/x.png"], "/none/x.png"),
    ],
)
def test_errors_are_one_line(cli: Cli, arguments: list[str], message: str) -> None:
    assert message in _refused(cli(*arguments))


def test_prediction_files_of_a_benchmarks_own_code(cli: Cli, tmp_path: Path) -> None:
    line = {"pred": "Paris, France.", "answers": ["Paris"], "all_classes": None, "length": 10}
    (tmp_path / "hotpotqa.jsonl").write_text(json.dumps(line) + "\n")
    done = cli("score", "--preds", str(tmp_path), "--bench", "longbench")
    assert done.code == 0
    assert "66.67" in done.out


def test_malformed_suites_name_file_line_and_key(cli: Cli, tmp_path: Path) -> None:
    suite = tmp_path / "suite.yaml"
    suite.write_text("limit: 3\nmetod: pi\n")
    assert f"{suite}:2: key 'metod' is unknown (did you mean 'method'" in _refused(
        cli("run", "--config", str(suite))
    )


def test_keys_of_a_suite_are_named_as_options_are(cli: Cli, tmp_path: Path) -> None:
    suite = tmp_path / "suite.yaml"
    suite.write_text("limit: 3\nmax-batch-tokens: 0\n")
    assert f"{suite}:2: key 'max_batch_tokens': must be at least 1" in _refused(
        cli("run", "--config", str(suite))
    )
    suite.write_text("max-batch-tokens: 1\nlengths: 4q\n")
    assert f"{suite}:2: key 'lengths': '4q'" in _refused(cli("run", "--config", str(suite)))


def test_a_repeated_key_is_refused(cli: Cli, tmp_path: Path) -> None:
    suite = tmp_path / "suite.yaml"
    suite.write_text("limit: 3\nmodel: pocket\nlimit: 4\n")
    assert f"{suite}:3: key 'limit' " in _refused(cli("run", "--config", str(suite)))


def test_all_lengths_that_are_too_short_are_reported_at_once(cli: Cli) -> None:
    message = _refused(
        cli(
            "run",
            "--bench",
            "ruler/vt,ruler/fwe,niah/single",
            "--lengths",
            "64,2k",
            "--output",
            "out",
        )
    )
    assert "ruler/vt: at length 64" in message
    assert "ruler/fwe: at length 64" in message
    assert not Path("out").exists()


def test_folders_that_are_no_rotary_causal_model(cli: Cli, tmp_path: Path) -> None:
    assert "not a checkpoint" in _refused(cli("run", "--model", str(tmp_path)))
    T5Config().save_pretrained(tmp_path / "t5")
    assert "causal language model" in _refused(cli("run", "--model", str(tmp_path / "t5")))
    GPT2Config().save_pretrained(tmp_path / "gpt2")
    assert "describes no rope" in _refused(cli("run", "--model", str(tmp_path / "gpt2")))


def test_a_model_that_cannot_be_patched_is_one_line(
    cli: Cli, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "falcon"
    for name in ("tokenizer.json", "tokenizer_config.json"):
        folder.mkdir(exist_ok=True)
        (folder / name).write_bytes((WEIGHTS / name).read_bytes())
    config = FalconConfig(
        vocab_size=1000,
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=256,
    )
    FalconForCausalLM(config).save_pretrained(folder)
    capsys.readouterr()
    output = tmp_path / "results" / "new"
    arguments = ["run", "--model", str(folder), "--lengths", "256", "--output", str(output)]
    assert "attention up by name" in _refused(cli(*arguments))
    assert not output.parent.exists()
    output.mkdir(parents=True)
    (output / "notes.txt").write_text("mine")
    assert "attention up by name" in _refused(cli(*arguments))
    assert [path.name for path in output.iterdir()] == ["notes.txt"]


def test_the_version_is_printed(cli: Cli) -> None:
    assert cli("--version") == (0, f"lampe-eval {version('lampe-eval')}\n", "")


def test_a_dry_run_shows_what_it_prepares(cli: Cli) -> None:
    done = cli("run", "--dry-run", "--bench", "niah/single", "--lengths", "256,512", "--limit", "1")
    assert done.code == 0
    assert done.err.splitlines() == [
        "trying niah/single · 512",
        "trying niah/single · 256",
        "preparing niah/single · 512",
        "preparing niah/single · 256",
    ]


def test_without_arguments_only_the_help_is_printed(cli: Cli) -> None:
    done = cli("list")
    assert (done.code, done.err) == (2, "")
    assert "models" in done.out


def test_a_hub_id_without_a_network_is_an_error(cli: Cli) -> None:
    message = _refused(cli("run", "--model", "nobody/nothing"))
    assert "nobody/nothing: not in the local cache" in message


def test_scores_of_predictions_are_written_as_csv_and_json(cli: Cli, tmp_path: Path) -> None:
    row = {"pred": "7", "outputs": ["7"], "index": 1}
    (tmp_path / "vt.jsonl").write_text(f"{json.dumps(row)}\nx\n{{\n", encoding="utf-8")
    output = tmp_path / "scores.csv"
    done = cli("score", "--preds", str(tmp_path), "--bench", "ruler", "--output", str(output))
    assert done.code == 0
    header, line, _ = output.read_text().splitlines()
    assert header == "task,score,ci_low,ci_high,n,nulls,broken,duplicates,missing"
    task, score, _, high, *counts = line.split(",")
    assert (task, score, float(high)) == ("vt", "100", 100)
    # The broken line stands for the sample that no other line has.
    assert counts == ["1", "0", "1", "0", "0"]
    written = json.loads((tmp_path / "scores.json").read_text())
    assert written["tasks"][0]["scores"]["score"] == 100
    assert written["average"]["score"] == 100


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (KeyError("a\x1b[2J\nb"), 1, "KeyError: 'a\\x1b[2J\\nb'"),
        (RuntimeError("two\nlines \x1b[2J"), 1, "RuntimeError: two lines \\x1b[2J"),
        (RecursionError(), 1, "RecursionError"),
        (AssertionError(), 1, "AssertionError"),
        (FileNotFoundError(errno.ENOENT, "No such file", "x"), 1, "FileNotFoundError"),
        (MemoryError(), 2, "memory"),
        (OSError(errno.ENOSPC, "No space left on device", "x/y"), 2, "x/y: No space left"),
        (OSError(errno.ENOSPC, "No space left on device"), 2, "No space left"),
        (OSError(errno.EMFILE, "Too many open files", "x"), 2, "x: Too many open files"),
        (OSError(errno.EROFS, "Read-only file system", "x"), 2, "x: Read-only"),
        (OSError(errno.ENAMETOOLONG, "File name too long", "x" * 300), 2, "File name too long"),
        (PermissionError(errno.EACCES, "Permission denied", "x"), 2, "x: Permission denied"),
    ],
)
def test_whatever_a_command_raises_is_one_line(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, error: Exception, code: int, message: str
) -> None:
    def fail() -> None:
        raise error

    monkeypatch.setattr(listing, "models", fail)
    done = cli("list", "models")
    assert (done.code, done.out, done.err.count("\n")) == (code, "", 1)
    assert done.err.startswith("lampe-eval: ")
    assert message in done.err
    assert ("--traceback" in done.err) is (code == 1)
    shown = cli("--traceback", "list", "models")
    assert shown.code == code
    assert shown.err.startswith("Traceback (most recent call last):")
    assert shown.err.endswith(done.err)
    assert "\x1b" not in shown.err


def _stream(kind: str) -> io.TextIOWrapper:
    """Return a standard output as a process may have it."""
    if kind == "full disk":
        return open("/dev/full", "w", encoding="utf-8")
    if kind == "closed pipe":
        reading, writing = os.pipe()
        os.close(reading)
        return os.fdopen(writing, "w", encoding="utf-8")
    return io.TextIOWrapper(io.BytesIO(), encoding="ascii")


@pytest.mark.parametrize(("kind", "code"), [("full disk", 2), ("closed pipe", 0), ("ascii", 0)])
@pytest.mark.parametrize("command", ["run", "report"])
def test_files_do_not_depend_on_who_reads_standard_output(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, command: str, kind: str, code: int
) -> None:
    run = tmp_path / "run"
    if command == "report":
        cell = Cell("llama3-8b-instruct", "lampe", "ruler", "vt", 8192)
        synthetic_runs.store(run, [cell], "lampe")
        arguments = ["report", str(run)]
    else:
        options = "--bench ppl/exact --lengths 256 --limit 1 --method original"
        arguments = ["run", *options.split(), "--output", str(run)]
    with _stream(kind) as stream, monkeypatch.context() as patched:
        patched.setattr(sys, "stdout", stream)
        done = cli(*arguments)
    assert done.code == code, done.err
    refusals = [line for line in done.err.splitlines() if line.startswith("lampe-eval: ")]
    assert len(refusals) == (code == 2)
    assert "Traceback" not in done.err
    for name in ("scores.csv", "table.md", *(["report.html"] if command == "report" else [])):
        assert (run / name).stat().st_size, name


def test_a_refused_measurement_leaves_no_folder(cli: Cli, tmp_path: Path) -> None:
    arguments = ["speed", "--device", "cuda:9", "--output", str(tmp_path / "new" / "speed")]
    assert "cuda:9" in _refused(cli(*arguments))
    assert not (tmp_path / "new").exists()
