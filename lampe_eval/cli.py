"""Command line of lampe-eval.

Commands import heavy libraries themselves, so that `--help` and bad options answer at once.
"""

import atexit
import os
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from difflib import get_close_matches
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import typer
from typer import Argument, Option
from typer.core import TyperCommand, TyperGroup

from lampe_eval.errors import ClusterLost, Stopped, UserError, machine_refusal
from lampe_eval.running.interrupt import die_on_signals, stop_on_signals

F = TypeVar("F", bound=Callable[..., Any])


class CheckedCommand(TyperCommand):
    """Command that refuses empty values, and says in plain words what is no number or too much."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Check the values as they were written, before they become paths and numbers."""
        written, extra, _ = self.make_parser(ctx).parse_args(args=list(args))
        parameters: list[Any] = self.get_params(ctx)
        for parameter in parameters:
            value = written.get(parameter.name)
            values = value if isinstance(value, list | tuple) else [value]
            if any(isinstance(text, str) and not text.strip() for text in values):
                problem = "is empty; give a value, or leave it out"
                raise typer.BadParameter(problem, ctx=ctx, param=parameter)
        try:
            return super().parse_args(ctx, args)
        except typer.BadParameter as error:
            error.message = error.message.removeprefix("Value error, ")
            if error.message.startswith("Input should") and error.param:
                # In the words of pydantic, which typer calls.
                number = error.message.replace("a valid integer", "a whole number")
                problem = number.replace("Input should", "must").partition(", unable to")[0]
                error.message = f"{problem}, got {written[error.param.name]!r}"
            raise
        except typer.TyperException:
            if not extra:
                raise
            raise UserError(
                f"unexpected argument {extra[0]!r}; several values of an option are joined by "
                "commas, as in --lengths 512,1k, and an option such as --dry-run takes none"
            ) from None


class CheckedTyper(typer.Typer):
    """Application of checked commands."""

    def command(self, *args: Any, **settings: Any) -> Callable[[F], F]:
        """Add a function as a checked command."""
        return super().command(*args, cls=CheckedCommand, **settings)


app = CheckedTyper(
    name="lampe-eval",
    help="Evaluate language models on long contexts, with training-free context extension.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)


class LeaderboardGroup(TyperGroup):
    """Command group in which `leaderboard RUN` means `leaderboard compare RUN`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Insert the word compare where the first argument is a run."""
        if args and self._is_run(args[0]):
            args = ["compare", *args]
        return super().parse_args(ctx, args)

    def _is_run(self, argument: str) -> bool:
        """Tell a run's folder from a command, and from a mistyped command."""
        if argument in (*self.commands, "--help"):
            return False
        # A word much like a command is a mistyped one rather than a run that does not exist.
        return Path(argument).exists() or not get_close_matches(argument, self.commands)


listing = CheckedTyper(help="List what is available.", no_args_is_help=True)
showing = CheckedTyper(help="Show details of one thing.", no_args_is_help=True)
data = CheckedTyper(
    help="List, download, verify and locate files of benchmarks and models.", no_args_is_help=True
)
leaderboard = CheckedTyper(
    cls=LeaderboardGroup,
    help="Compare runs with published tables, and build a page of all runs.",
    no_args_is_help=True,
)
app.add_typer(listing, name="list")
app.add_typer(showing, name="show")
app.add_typer(data, name="data")
app.add_typer(leaderboard, name="leaderboard")


def _tokens(value: str | int) -> int:
    """Parse a length such as 4096 or 4k; defaults arrive as numbers."""
    from lampe_eval.suite import parse_length

    try:
        return parse_length(str(value))
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


def _tokens_or_none(value: str | int) -> int:
    """Parse a length, which may also be 0."""
    return 0 if str(value) == "0" else _tokens(value)


Many = list[str] | None
Assets = Annotated[
    Many, Argument(help="Benches, or single files such as longbench/data.zip. Default: all.")
]
DataDir = Annotated[
    Path | None, Option(help="Folder with benchmark files; it is read before the cache.")
]
Models = Annotated[
    Many,
    Option(
        help="Cards, card files, checkpoint folders, GGUF files or hub ids, by commas. "
        "Default: pocket."
    ),
]
Plugins = Annotated[
    list[Path] | None,
    Option("--plugin", help="Python file that defines more methods or benchmarks; repeatable."),
]
Limit = Annotated[int | None, Option(help="Number of samples per cell. Default: the task's own.")]
Seed = Annotated[int | None, Option(help="Seed for everything random. Default: 0.")]
Output = Annotated[Path | None, Option(help="Folder for the results.", file_okay=False)]
Reference = Annotated[
    str | None,
    Option(
        help="Method that the others are compared with. "
        "Default: that of the run, else original, else the first."
    ),
]
Haystack = Annotated[
    Path | None,
    Option(
        help="Text to hide needles in: file, folder, or corpus such as essays, ruler-essays or "
        "python-docs."
    ),
]
Text = Annotated[
    Path | None,
    Option(
        help="Text for perplexity: file, folder, or corpus such as pg19-test, proof-pile or "
        "python-docs."
    ),
]
ProtocolName = Annotated[
    str | None,
    Option("--protocol", help="fair (default), official or lampe; see `list protocols`."),
]
Wording = Annotated[
    str | None,
    Option(
        "--prompts", help="Wording of prompts, where the protocol allows: own, official or ready."
    ),
]
Window = Annotated[
    int | None,
    Option(
        help="Tokens of pretraining, if the model's configuration is wrong about it.",
        parser=_tokens,
        metavar="TOKENS",
    ),
]
Length = Annotated[
    int,
    Option(
        help="Length of the prompt in tokens, such as 32768 or 32k.",
        parser=_tokens,
        metavar="TOKENS",
    ),
]
Dtype = Annotated[
    str | None,
    Option(help="Data type of the weights: auto, float32, bfloat16, float16 or float64."),
]
Device = Annotated[
    str | None, Option(help="Device, such as cpu or cuda:0. Default: a GPU if there is one.")
]
Attention = Annotated[str | None, Option(help="Attention backend. Default: auto.")]


def _load_plugins(paths: list[Path] | None) -> None:
    """Load the files of `--plugin`, before any name is looked up."""
    from lampe_eval.plugins import load_plugins

    load_plugins(paths or ())


def _version(requested: bool) -> None:
    """Print the version and exit, if `--version` is given."""
    if requested:
        print(f"lampe-eval {version('lampe-eval')}")
        raise typer.Exit


@dataclass
class GlobalOptions:
    """Options that stand before the command.

    Attributes:
        traceback: whether an unexpected error shows its traceback.
    """

    traceback: bool = False


@app.callback()
def every_command(
    context: typer.Context,
    _: Annotated[
        bool, Option("--version", help="Print the version.", callback=_version, is_eager=True)
    ] = False,
    traceback: Annotated[
        bool, Option("--traceback", help="Show the traceback of an unexpected error.")
    ] = False,
) -> None:
    """Evaluate language models on long contexts, with training-free context extension."""
    context.ensure_object(GlobalOptions).traceback = traceback


@app.command()
def run(
    model: Models = None,
    label: Annotated[
        Many,
        Option(help="Names of the models in tables and folders, one for each. Default: their own."),
    ] = None,
    method: Annotated[
        Many,
        Option(
            help="Methods by commas, such as lampe or lampe:mapping_length=128. "
            "Default: original,lampe."
        ),
    ] = None,
    bench: Annotated[
        Many,
        Option(
            help="Benchmarks, or single tasks such as niah/single, by commas. Default: niah,ppl."
        ),
    ] = None,
    reference: Reference = None,
    lengths: Annotated[
        Many,
        Option(
            help="Tokens of prompt and answer, such as 512,1k,4k. Default: set by the protocol."
        ),
    ] = None,
    limit: Limit = None,
    precision: Annotated[
        float | None,
        Option(
            help="Stop a cell when its score is known to plus or minus these points; --limit is "
            "the most."
        ),
    ] = None,
    decide: Annotated[
        bool | None,
        Option(
            "--decide",
            help="Stop a method when it is shown better or worse than the reference, or "
            "equivalent; --limit is the most.",
        ),
    ] = None,
    margin: Annotated[
        float | None,
        Option(help="Points within which --decide counts a method as equivalent. Default: 5."),
    ] = None,
    seed: Seed = None,
    output: Output = None,
    config: Annotated[
        str | None,
        Option(help="Suite: a YAML file with these options, or the name of a shipped one."),
    ] = None,
    plugin: Plugins = None,
    haystack: Haystack = None,
    text: Text = None,
    protocol: ProtocolName = None,
    prompts: Wording = None,
    data_dir: DataDir = None,
    available: Annotated[
        bool | None,
        Option("--available", help="Leave out the tasks whose files are not on this machine."),
    ] = None,
    window: Window = None,
    dtype: Dtype = None,
    device: Device = None,
    attention: Attention = None,
    max_batch_tokens: Annotated[
        int | None,
        Option(
            help="Tokens per batch; 1 runs one sample at a time. Default: what GPU memory allows."
        ),
    ] = None,
    fail_on_error: Annotated[
        str | None,
        Option(
            help="Exit with 1 on failed samples: yes (default), no, a count (5) or a share (1%)."
        ),
    ] = None,
    engine: Annotated[
        str | None, Option(help="local (default), ray to run replicas on many devices, or vllm.")
    ] = None,
    devices: Annotated[
        Many, Option(help="Devices for Ray replicas: GPU numbers such as 0,1,2,3, or cpu,cpu.")
    ] = None,
    address: Annotated[
        str | None, Option(help="Address of a Ray cluster: auto or HOST:PORT.")
    ] = None,
    gpus_per_replica: Annotated[
        int | None,
        Option(help="GPUs that each replica of the model is spread over, by Ray or by vLLM."),
    ] = None,
    dry_run: Annotated[
        bool,
        Option("--dry-run", help="Print what would run and what it would cost, then exit."),
    ] = False,
) -> None:
    """Run methods on benchmarks; the same command again resumes."""
    # First, while ``locals`` holds the options of the command and nothing else.
    options = {key: value for key, value in locals().items() if key not in ("config", "dry_run")}
    from lampe_eval.commands.validate import validate_suite

    suite = validate_suite(config, options)
    if dry_run:
        from lampe_eval.commands.dry_run import dry_run_suite

        dry_run_suite(suite)
        return
    from lampe_eval.commands.run import run_suite

    raise typer.Exit(run_suite(suite))


@app.command()
def calibrate(
    model: Models = None,
    method: Annotated[
        Many,
        Option(help="Position methods, such as lampe:head_tokens=64,dca. Default: lampe."),
    ] = None,
    sweep: Annotated[
        Many,
        Option(
            help="Settings to fit: mapping_length (lampe), group_sizes (dpe), attention_factor "
            "(all). Default: all."
        ),
    ] = None,
    bench: Annotated[
        Many, Option(help="Task to fit on, such as niah/multikey. Default: ppl/exact.")
    ] = None,
    lengths: Annotated[
        Many, Option(help="Lengths to fit at, in tokens. Default: 1, 2, 4, 8 and 16 windows.")
    ] = None,
    held_out: Annotated[
        Many, Option(help="Lengths to validate at, in tokens. Default: between the fitted ones.")
    ] = None,
    mapping_lengths: Annotated[
        Many, Option(help="Mapping lengths to try. Default: eight values up to the window.")
    ] = None,
    group_sizes: Annotated[
        Many,
        Option(help="Group sizes to try. Default: powers of two up to 8 per window of length."),
    ] = None,
    attention_factors: Annotated[
        Many, Option(help="Attention factors to try. Default: nine values from 0.96 to 1.28.")
    ] = None,
    limit: Limit = None,
    seed: Seed = None,
    output: Output = None,
    plugin: Plugins = None,
    haystack: Haystack = None,
    text: Text = None,
    protocol: ProtocolName = None,
    prompts: Wording = None,
    data_dir: DataDir = None,
    window: Window = None,
    dtype: Dtype = None,
    device: Device = None,
    attention: Attention = None,
    dry_run: Annotated[
        bool,
        Option("--dry-run", help="Print what would run and what it would cost, then exit."),
    ] = False,
) -> None:
    """Fit settings of methods to a model; the same command again resumes."""
    options = {key: value for key, value in locals().items() if key != "dry_run"}
    from lampe_eval.commands.validate import validate_calibration

    config, resolved = validate_calibration(options)
    from lampe_eval.commands.calibrate import calibrate_model

    calibrate_model(config, resolved, dry_run)


@app.command()
def suggest(
    model: Annotated[
        str, Option(help="Model card, card file, checkpoint folder, GGUF file or hub id.")
    ] = "pocket",
    method: Annotated[Many, Option(help="Methods, as for run. Default: all.")] = None,
    length: Length = 32768,
    answer: Annotated[
        int,
        Option(
            help="Length of the answer in tokens; it follows the prompt.",
            parser=_tokens_or_none,
            metavar="TOKENS",
        ),
    ] = 0,
    window: Window = None,
    plugin: Plugins = None,
) -> None:
    """Suggest settings of methods for a model and a length, with the rule behind each."""
    from lampe_eval.commands.validate import validate_suggestion

    card, name, specs = validate_suggestion(model, method or (), plugin or ())
    from lampe_eval.commands.suggest import suggest as suggest_settings

    suggest_settings(card, name, specs, length, answer, window)


@app.command()
def speed(
    model: Annotated[
        str | None,
        Option(
            help="Model card, card file, checkpoint folder, GGUF file or hub id. Default: pocket."
        ),
    ] = None,
    shape: Annotated[
        str | None,
        Option(help="Measure random weights of a named shape instead, such as llama3-8b."),
    ] = None,
    layers: Annotated[
        int | None, Option(help="Number of layers to keep of the shape. Default: all.")
    ] = None,
    method: Annotated[
        Many, Option(help="Methods, as for run. Default: original,selfextend,dca,lampe.")
    ] = None,
    lengths: Annotated[Many, Option(help="Lengths of prompts in tokens. Default: 4k,16k.")] = None,
    attention: Annotated[
        Many, Option(help="Attention backends to measure every method with. Default: auto.")
    ] = None,
    pairs: Annotated[
        int | None,
        Option(
            help="Number of times to measure plain attention and the method in turn. Default: 3."
        ),
    ] = None,
    chunk: Annotated[
        int | None, Option(help="Read the prompt in chunks of this many tokens. Default: whole.")
    ] = None,
    window: Window = None,
    dtype: Dtype = None,
    device: Device = None,
    output: Output = None,
    plugin: Plugins = None,
) -> None:
    """Measure time and memory of methods relative to plain attention."""
    # First, while ``locals`` holds the options of the command and nothing else.
    options = dict(locals())
    from lampe_eval.commands.validate import validate_speed

    resolved = validate_speed(options)
    from lampe_eval.commands.speed import measure_speed

    measure_speed(resolved)


@app.command()
def score(
    run: Annotated[Path | None, Argument(help="Folder of a run.", show_default=False)] = None,
    preds: Annotated[
        Path | None,
        Option(
            help="Folder of prediction files written by a benchmark's own code, or by lm-eval, "
            "HELMET, kvpress or OpenCompass.",
            exists=True,
            file_okay=False,
        ),
    ] = None,
    bench: Annotated[
        str | None,
        Option(
            help="Benchmark whose own code scores the files: longbench, longbench-e, "
            "longbench-v2, leval, ruler, infinitebench, or infinitebench-lampe for LaMPE's scorer. "
            "Default for files of other harnesses: each is scored as its own harness does."
        ),
    ] = None,
    output: Annotated[
        Path | None,
        Option(
            help="File for the scores of --preds: written as FILE.csv and FILE.json.",
            metavar="FILE",
            dir_okay=False,
        ),
    ] = None,
    plugin: Plugins = None,
) -> None:
    """Score predictions again: those of a run, or files of a benchmark's code or a harness."""
    _load_plugins(plugin)
    from lampe_eval.commands.score import score as score_again

    score_again(run, preds, bench, output)


@app.command()
def compare(
    first: Annotated[
        Path,
        Argument(
            metavar="A",
            help="Folder of a run, of files of lm-eval, HELMET, kvpress or OpenCompass, or of "
            "predictions of a benchmark's own code; or one of these files.",
            show_default=False,
        ),
    ],
    second: Annotated[Path, Argument(metavar="B", help="Another one.", show_default=False)],
    method: Annotated[
        Many, Option(help="Method in runs with several; given twice, A's and B's.")
    ] = None,
    model: Annotated[
        Many, Option(help="Model in runs with several; given twice, A's and B's.")
    ] = None,
    task: Annotated[
        str, Option(help="Benchmark or task to compare. Default: all.", show_default=False)
    ] = "",
    length: Annotated[
        int | None,
        Option(
            help="Length to compare, such as 4096 or 4k. Default: all.",
            parser=_tokens,
            metavar="TOKENS",
        ),
    ] = None,
    output: Annotated[
        Path | None,
        Option(
            help="File for what is printed: written as FILE.md and FILE.json.",
            metavar="FILE",
            dir_okay=False,
        ),
    ] = None,
    plugin: Plugins = None,
) -> None:
    """Say why two results differ: settings, prompts, answers, scorers."""
    _load_plugins(plugin)
    from lampe_eval.commands.compare import compare as compare_two

    compare_two(first, second, method or (), model or (), task, length, output)


@app.command()
def report(
    runs: Annotated[list[Path], Argument(help="Folders of runs.", show_default=False)],
    output: Annotated[
        Path | None,
        Option(
            help="Folder to write to. Default: the run's own, or results/report for several runs.",
            file_okay=False,
        ),
    ] = None,
    reference: Reference = None,
    plugin: Plugins = None,
) -> None:
    """Write tables, figures and an HTML page for one run or several."""
    _load_plugins(plugin)
    from lampe_eval.commands.report import report as report_on

    report_on(runs, output, reference)


@app.command()
def recommend(
    runs: Annotated[list[Path], Argument(help="Folders of runs.", show_default=False)],
    length: Annotated[
        int | None,
        Option(
            help="Length to recommend a method for, in tokens. Default: the longest of the runs.",
            parser=_tokens,
            metavar="TOKENS",
        ),
    ] = None,
    max_slowdown: Annotated[
        float | None,
        Option(help="Largest ratio of times to those of the unpatched model. Default: any.", min=0),
    ] = None,
    plugin: Plugins = None,
) -> None:
    """Recommend a method by runs: scores, effective lengths, short-prompt tax and cost."""
    _load_plugins(plugin)
    from lampe_eval.commands.recommend import recommend as recommend_method

    recommend_method(runs, length, max_slowdown)


@app.command()
def export(
    name: Annotated[
        str,
        Argument(
            help="Folder of a run, with --to; or a model as for run, with --method.",
            metavar="RUN_OR_MODEL",
            show_default=False,
        ),
    ],
    to: Annotated[
        Literal["lm-eval", "every-eval-ever", "hf"] | None,
        Option(
            help="Format of a run's results: results and samples of lm-evaluation-harness, records "
            "of Every Eval Ever, or .eval_results of a model repository on Hugging Face.",
        ),
    ] = None,
    method: Annotated[
        str | None,
        Option(help="Method of a checkpoint, such as lampe or yarn:factor=4."),
    ] = None,
    output: Annotated[
        Path | None,
        Option(
            help="Folder to write to. Default for results: export/FORMAT in the run's folder.",
            file_okay=False,
        ),
    ] = None,
    max_length: Annotated[
        int | None,
        Option(
            help="Longest prompt of a checkpoint, such as 32k; fixes what a method of frequencies "
            "derives from it.",
            parser=_tokens,
            metavar="TOKENS",
        ),
    ] = None,
    window: Window = None,
    dtype: Dtype = None,
    overwrite: Annotated[
        bool, Option("--overwrite", help="Replace an exported checkpoint at --output.")
    ] = False,
    plugin: Plugins = None,
) -> None:
    """Write the results of a complete run, or a model with a method, for other programs."""
    from lampe_eval.commands.validate import validate_export

    of_checkpoint = {
        "--max-length": max_length,
        "--window": window,
        "--dtype": dtype,
        "--overwrite": overwrite or None,
    }
    model = validate_export(name, to, method, output, of_checkpoint, plugin or ())
    if model is None or output is None:
        from lampe_eval.commands.export import export as export_run

        assert to is not None
        export_run(Path(name), to, output)
        return
    from lampe_eval.commands.export_checkpoint import export_checkpoint

    export_checkpoint(
        *model, output, max_length=max_length, window=window, dtype=dtype, overwrite=overwrite
    )


@app.command()
def serve(
    model: Annotated[
        str,
        Argument(help="Model card, card file, checkpoint folder or hub id.", show_default=False),
    ],
    vllm_options: Annotated[
        Many,
        Argument(metavar="[-- VLLM_OPTIONS]", help="Options of vLLM's server.", show_default=False),
    ] = None,
    method: Annotated[
        str, Option(help="Method, such as lampe or lampe:mapping_length=128.")
    ] = "lampe",
    max_length: Annotated[
        int | None,
        Option(
            help="Tokens of prompt and answer at most, such as 64k. Default: four windows.",
            parser=_tokens,
            metavar="TOKENS",
        ),
    ] = None,
    prefix_caching: Annotated[
        Literal["off", "on", "salted"],
        Option(
            help="Share the keys of equal beginnings: of no prompts, of all, or of those with "
            "equal positions."
        ),
    ] = "off",
    window: Window = None,
    force: Annotated[
        bool,
        Option("--force", help="Serve an architecture, or with a vLLM, that was not tried."),
    ] = False,
    only_print: Annotated[
        bool, Option("--print", help="Print the command of the server and exit.")
    ] = False,
) -> None:
    """Serve a model under a method: starts vLLM's OpenAI server with lampe's attention."""
    from lampe_eval.commands.validate import validate_served

    card, name, spec = validate_served(model, method)
    from lampe_eval.commands.serve import serve as serve_model

    serve_model(
        card, name, spec, vllm_options or (),
        max_length=max_length, window=window, prefix_caching=prefix_caching, force=force,
        only_print=only_print,
    )  # fmt: skip


@listing.command("models")
def list_models() -> None:
    """List the models that have a card."""
    from lampe_eval.commands.listing import models

    models()


@listing.command("methods")
def list_methods(plugin: Plugins = None) -> None:
    """List methods and their settings."""
    _load_plugins(plugin)
    from lampe_eval.commands.listing import methods

    methods()


@listing.command("benches")
def list_benches(plugin: Plugins = None) -> None:
    """List benchmarks."""
    _load_plugins(plugin)
    from lampe_eval.commands.listing import benches

    benches()


@listing.command("tasks")
def list_tasks(plugin: Plugins = None) -> None:
    """List the tasks of every benchmark."""
    _load_plugins(plugin)
    from lampe_eval.commands.listing import all_tasks

    all_tasks()


@listing.command("protocols")
def list_protocols(plugin: Plugins = None) -> None:
    """List the protocols of every benchmark."""
    _load_plugins(plugin)
    from lampe_eval.commands.listing import all_protocols

    all_protocols()


@listing.command("published")
def list_published() -> None:
    """List published tables and the suites that run them."""
    from lampe_eval.commands.listing import all_published

    all_published()


@showing.command("plan")
def show_plan(
    method: Annotated[Many, Option(help="Methods, as for run. Default: lampe.")] = None,
    model: Annotated[
        str | None,
        Option(help="Model whose window, rope and settings hold: as for run. Default: none."),
    ] = None,
    window: Annotated[
        int | None,
        Option(
            help="Tokens of pretraining, such as 4096 or 8k. Default: the model's, or 8192.",
            parser=_tokens,
            metavar="TOKENS",
        ),
    ] = None,
    length: Length = 32768,
    png: Annotated[
        Path | None, Option(help="Write a picture of the plan of one method to this file.")
    ] = None,
    plugin: Plugins = None,
) -> None:
    """Show regions of methods, their largest relative positions, and pictures of positions."""
    from lampe_eval.commands.validate import validate_plans

    specs, card = validate_plans(method or ["lampe"], model, png, plugin or ())
    from lampe_eval.commands.show import plans

    plans(specs, card, window, length, png)


@app.command("lm-eval", add_help_option=False, context_settings={"ignore_unknown_options": True})
def lm_eval(
    arguments: Annotated[Many, Argument(help="Arguments of lm_eval, --help among them.")] = None,
) -> None:
    """Run lm-evaluation-harness, in which `--model lampe` is a model patched with a method."""
    from lampe_eval.commands.lm_eval import run_lm_eval

    run_lm_eval(arguments or ())


@data.command("list")
def data_list(names: Assets = None, data_dir: DataDir = None) -> None:
    """List benchmark files with size, state and source."""
    from lampe_eval.commands.data import list_files

    list_files(names or (), data_dir)


@data.command("fetch")
def data_fetch(names: Assets = None, data_dir: DataDir = None) -> None:
    """Download missing files from their official sources."""
    from lampe_eval.commands.data import fetch_files

    fetch_files(names or (), data_dir)


@data.command("verify")
def data_verify(names: Assets = None, data_dir: DataDir = None) -> None:
    """Hash the files again and compare with their pins."""
    from lampe_eval.commands.data import verify_files

    verify_files(names or (), data_dir)


@data.command("where")
def data_where(
    names: Annotated[Many, Argument(help="Benches or tasks. Default: all.")] = None,
    data_dir: DataDir = None,
    protocol: ProtocolName = None,
) -> None:
    """Print where the files of every task were found and in which layout, or what is missing."""
    from lampe_eval.commands.data import print_places

    print_places(names or (), protocol or "fair", data_dir)


@data.command("path")
def data_path(names: Assets = None, data_dir: DataDir = None) -> None:
    """Print where files are, or the cache folder if no file is named."""
    from lampe_eval.commands.data import print_paths

    print_paths(names or (), data_dir)


@leaderboard.command("compare")
def leaderboard_compare(
    run: Annotated[Path, Argument(help="Folder of a run.")],
    against: Annotated[
        str, Option(help="Published table: a name (see `list published`) or a YAML file.")
    ] = "",
    plugin: Plugins = None,
) -> None:
    """Compare a run with a published table; the word compare may be left out."""
    _load_plugins(plugin)
    from lampe_eval.commands.leaderboard import compare

    compare(run, against)


@leaderboard.command("build")
def leaderboard_build(
    results: Annotated[Path, Argument(help="Folder that contains runs.")] = Path("results"),
    output: Annotated[
        Path | None, Option(help="HTML file to write. Default: index.html in that folder.")
    ] = None,
    plugin: Plugins = None,
) -> None:
    """Build one HTML page of all runs in a folder."""
    _load_plugins(plugin)
    from lampe_eval.commands.leaderboard import build

    build(results, output)


def main() -> None:
    """Run the command line; errors a person can fix are one line on stderr and exit code 2.

    An unexpected error is one line too, with exit code 1, and with ``--traceback`` its traceback.
    """
    from lampe_eval.terminal import visible, visible_streams

    stop_on_signals()
    options = GlobalOptions()
    try:
        # In standalone mode typer would print errors over several lines and choose exit codes
        # itself.
        with visible_streams():
            code = app(standalone_mode=False, obj=options)
    except (UserError, typer.TyperException) as error:
        message = error.format_message() if isinstance(error, typer.TyperException) else str(error)
        if message:  # empty where typer printed the help instead
            print(f"lampe-eval: {visible(' '.join(message.split()))}", file=sys.stderr)
        if isinstance(error, ClusterLost):
            # The functions registered for the exit end Ray's processes.
            atexit._run_exitfuncs()
            os._exit(2)
        sys.exit(2)
    except Stopped as stop:
        # After SIGHUP the terminal is gone.
        with suppress(OSError):
            print(stop, file=sys.stderr, flush=True)
            sys.stdout.flush()
        # A thread may still be drawing samples, and sys.exit would wait for it.
        os._exit(stop.code)
    except Exception as error:
        if options.traceback:
            print(visible(traceback.format_exc()), file=sys.stderr, end="")
        refusal = machine_refusal(error)
        kind = f"{type(error).__name__}: {error}".removesuffix(": ")
        advice = "please report it with the output of lampe-eval --traceback ..."
        message = str(refusal or f"unexpected {kind}; {advice}")
        print(f"lampe-eval: {visible(' '.join(message.split()))}", file=sys.stderr)
        sys.exit(2 if refusal else 1)
    finally:
        # Everything is written, and what Python and Ray do at exit must not hold up a signal.
        die_on_signals()
    sys.exit(code)
