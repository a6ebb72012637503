"""The command line. Heavy libraries are imported by the commands that need them, so that ``--help`` answers at once."""

import os
import signal
import sys
from difflib import get_close_matches
from importlib.metadata import version
from pathlib import Path
from types import FrameType
from typing import Annotated, Any

import typer
from typer import Argument, Option
from typer.core import TyperGroup

from lampe_eval.errors import Stopped, UserError

app = typer.Typer(
    name="lampe-eval",
    help="Evaluate language models on long contexts, with training-free context extension.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)


class Leaderboard(TyperGroup):
    """A group of which ``leaderboard RUN`` means ``leaderboard compare RUN``."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        return super().parse_args(
            ctx, ["compare", *args] if args and self._begins_a_run(args[0]) else args
        )

    def _begins_a_run(self, first: str) -> bool:
        """Whether this is no command, nor one mistyped."""
        known = first in (*self.commands, "--help")
        return not known and (Path(first).exists() or not get_close_matches(first, self.commands))


listing = typer.Typer(help="List what there is.", no_args_is_help=True)
showing = typer.Typer(help="Show one thing in detail.", no_args_is_help=True)
data = typer.Typer(help="Benchmark files: list, fetch, verify, find.", no_args_is_help=True)
leaderboard = typer.Typer(
    cls=Leaderboard,
    help="Runs beside what others published, and all on one page.",
    no_args_is_help=True,
)
app.add_typer(listing, name="list")
app.add_typer(showing, name="show")
app.add_typer(data, name="data")
app.add_typer(leaderboard, name="leaderboard")


def _tokens(given: str | int) -> int:
    """What is written as 4k, or a default."""
    from lampe_eval.suite import parse_length

    try:
        return parse_length(str(given))
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


Many = list[str] | None
Assets = Annotated[
    Many, Argument(help="Benches, or single files as longbench/data.zip; all by default.")
]
DataDir = Annotated[Path | None, Option(help="Folder with benchmark files, read before the cache.")]
Models = Annotated[
    Many, Option(help="Card, card file, folder or hub id; several by commas. Default: pocket.")
]
Limit = Annotated[int | None, Option(help="Samples of a cell.")]
Seed = Annotated[int | None, Option(help="Seed of everything drawn.")]
Output = Annotated[Path | None, Option(help="Folder of the results.", file_okay=False)]
Haystack = Annotated[
    Path | None, Option(help="File, folder or corpus (essays) that needles are hidden in.")
]
Text = Annotated[
    Path | None,
    Option(help="For perplexity: file, folder or corpus (pg19-test, pg19-validation, proof-pile)."),
]
ProtocolName = Annotated[
    str | None, Option("--protocol", help="fair (default), official or lampe; see: list protocols.")
]
Wording = Annotated[
    str | None, Option("--prompts", help="own, official or ready, where the protocol lets it.")
]
Window = Annotated[
    int | None,
    Option(
        help="Tokens of pretraining, where the configuration is wrong.",
        parser=_tokens,
        metavar="TOKENS",
    ),
]
Length = Annotated[
    int, Option(help="Tokens of the prompt, as 32768 or 32k.", parser=_tokens, metavar="TOKENS")
]
Dtype = Annotated[str | None, Option(help="Of the weights, as float32 or bfloat16.")]
Device = Annotated[
    str | None, Option(help="As cpu or cuda:0; a GPU by default where there is one.")
]
Attention = Annotated[str | None, Option(help="Attention backend.")]


def _version(wanted: bool) -> None:
    if wanted:
        print(f"lampe-eval {version('lampe-eval')}")
        raise typer.Exit


@app.callback()
def every_command(
    _: Annotated[
        bool, Option("--version", help="Say the version.", callback=_version, is_eager=True)
    ] = False,
) -> None: ...


@app.command()
def run(
    model: Models = None,
    method: Annotated[
        Many, Option(help="As lampe, or lampe:mapping_length=128. Default: original,lampe.")
    ] = None,
    bench: Annotated[
        Many, Option(help="Benches, or single tasks as niah/single. Default: niah,ppl.")
    ] = None,
    lengths: Annotated[
        Many, Option(help="Tokens of prompt and answer, as 512,1k,4k. Default: by protocol.")
    ] = None,
    limit: Limit = None,
    seed: Seed = None,
    output: Output = None,
    config: Annotated[
        str | None, Option(help="Suite: a YAML file of these options, or a shipped one by name.")
    ] = None,
    haystack: Haystack = None,
    text: Text = None,
    protocol: ProtocolName = None,
    prompts: Wording = None,
    data_dir: DataDir = None,
    window: Window = None,
    dtype: Dtype = None,
    device: Device = None,
    attention: Attention = None,
    max_batch_tokens: Annotated[
        int | None,
        Option(
            help="Tokens of a batch. Default: by free memory of a GPU; 1 is one sample at a time."
        ),
    ] = None,
    fail_on_error: Annotated[
        str | None, Option(help="yes (default), no, or from how many on: 5, 1%.")
    ] = None,
    engine: Annotated[str | None, Option(help="local (default), or ray for many devices.")] = None,
    devices: Annotated[
        Many, Option(help="GPUs of this machine, as 0,1,2,3; or cpu,cpu. On Ray.")
    ] = None,
    address: Annotated[str | None, Option(help="Of a Ray cluster, as auto or HOST:PORT.")] = None,
    gpus_per_replica: Annotated[
        int | None, Option(help="GPUs that one model is spread over.")
    ] = None,
    dry_run: Annotated[
        bool, Option("--dry-run", help="Say what would run, without loading weights.")
    ] = False,
) -> None:
    """Run methods on benchmarks. The same command again goes on where it stopped."""
    options = {key: value for key, value in locals().items() if key not in ("config", "dry_run")}
    from lampe_eval.commands.validate import validate_suite

    suite = validate_suite(config, options)
    if dry_run:
        from lampe_eval.commands.dry_run import dry_run_suite

        raise typer.Exit(dry_run_suite(suite))
    from lampe_eval.commands.run import run_suite

    raise typer.Exit(run_suite(suite))


@app.command()
def calibrate(
    model: Models = None,
    method: Annotated[
        Many, Option(help="Methods of positions, as lampe:head_tokens=64,dca. Default: lampe.")
    ] = None,
    sweep: Annotated[
        Many, Option(help="mapping_length (of lampe), attention_factor (of all). Default: both.")
    ] = None,
    bench: Annotated[
        Many, Option(help="One task to fit by, as niah/multikey. Default: ppl/exact.")
    ] = None,
    lengths: Annotated[
        Many, Option(help="Tokens to sweep at. Default: 1, 2, 4, 8 and 16 windows.")
    ] = None,
    held_out: Annotated[
        Many, Option(help="Tokens to compare at. Default: between the lengths.")
    ] = None,
    mapping_lengths: Annotated[
        Many, Option(help="Positions to try. Default: eight up to the window.")
    ] = None,
    attention_factors: Annotated[Many, Option(help="Factors to try. Default: 1 to 1.24.")] = None,
    limit: Limit = None,
    seed: Seed = None,
    output: Output = None,
    haystack: Haystack = None,
    text: Text = None,
    protocol: ProtocolName = None,
    prompts: Wording = None,
    data_dir: DataDir = None,
    window: Window = None,
    dtype: Dtype = None,
    device: Device = None,
    attention: Attention = None,
    dry_run: Annotated[bool, Option("--dry-run", help="Say what it takes, and stop.")] = False,
) -> None:
    """Fit LaMPE's mapping length, and attention_factors, to a model. The same command again goes on where it stopped."""
    options = {key: value for key, value in locals().items() if key != "dry_run"}
    from lampe_eval.commands.validate import look_up_names
    from lampe_eval.suite import split_names

    look_up_names(
        split_names(model or ()), method or (), split_names(bench or ()), protocol or "fair"
    )
    from lampe_eval.commands.calibrate import calibrate_model

    calibrate_model(options, dry_run)


@app.command()
def suggest(
    model: Annotated[str, Option(help="Card, card file, folder or hub id.")] = "pocket",
    length: Length = 32768,
    answer: Annotated[
        int, Option(help="Tokens of the answer, whose positions go on from the prompt's.", min=0)
    ] = 0,
    window: Window = None,
) -> None:
    """Settings of every method for a model and a length, each with the rule that it comes from."""
    from lampe_eval.commands.validate import look_up_names

    look_up_names([model])
    from lampe_eval.commands.suggest import suggest as suggest_settings

    suggest_settings(model, length, answer, window)


@app.command()
def speed(
    model: Annotated[
        str | None, Option(help="Card, card file, folder or hub id. Default: pocket.")
    ] = None,
    shape: Annotated[
        str | None, Option(help="Instead, random weights of a named shape, as llama3-8b.")
    ] = None,
    layers: Annotated[int | None, Option(help="Of the shape, fewer than it has.")] = None,
    method: Annotated[
        Many, Option(help="As for run. Default: original,selfextend,dca,lampe.")
    ] = None,
    lengths: Annotated[Many, Option(help="Tokens of prompts. Default: 4k,16k.")] = None,
    attention: Annotated[
        Many, Option(help="Backends, each with every method. Default: auto.")
    ] = None,
    pairs: Annotated[
        int | None, Option(help="Times that plain attention and a method take turns. Default: 3.")
    ] = None,
    chunk: Annotated[
        int | None, Option(help="Tokens of a prompt that are read at a time. Default: all.")
    ] = None,
    window: Window = None,
    dtype: Dtype = None,
    device: Device = None,
    output: Output = None,
) -> None:
    """Measure time and memory of methods beside plain attention, into results/speed/NAME by default."""
    options = dict(locals())
    from lampe_eval.commands.validate import validate_speed

    order = validate_speed(options)
    from lampe_eval.commands.speed import measure_speed

    measure_speed(order)


@app.command()
def score(
    run: Annotated[Path | None, Argument(help="Folder of a run.", show_default=False)] = None,
    preds: Annotated[
        Path | None,
        Option(
            help="Folder of prediction files that a benchmark's own code wrote.",
            exists=True,
            file_okay=False,
        ),
    ] = None,
    bench: Annotated[
        str | None,
        Option(
            help="Whose files, as longbench or ruler; infinitebench-lampe scores as LaMPE does."
        ),
    ] = None,
) -> None:
    """Score predictions again: those of a run, or files in a benchmark's own format."""
    from lampe_eval.commands.score import score as score_again

    score_again(run, preds, bench)


@app.command()
def report(
    runs: Annotated[list[Path], Argument(help="Folders of runs.", show_default=False)],
    output: Annotated[
        Path | None,
        Option(
            help="Folder to write to; the run's own by default, results/report for several.",
            file_okay=False,
        ),
    ] = None,
) -> None:
    """Tables and pictures of runs, for the terminal, spreadsheets, Markdown and LaTeX."""
    from lampe_eval.commands.report import report as report_on

    report_on(runs, output)


@listing.command("models")
def list_models() -> None:
    """Models with a card."""
    from lampe_eval.commands.listing import models

    models()


@listing.command("methods")
def list_methods() -> None:
    """Methods and their settings."""
    from lampe_eval.commands.listing import methods

    methods()


@listing.command("benches")
def list_benches() -> None:
    """Benches."""
    from lampe_eval.commands.listing import benches

    benches()


@listing.command("tasks")
def list_tasks() -> None:
    """Tasks of every bench."""
    from lampe_eval.commands.listing import all_tasks

    all_tasks()


@listing.command("protocols")
def list_protocols() -> None:
    """Protocols of every bench."""
    from lampe_eval.commands.listing import all_protocols

    all_protocols()


@listing.command("published")
def list_published() -> None:
    """Published tables, and the suites that run what can be run of them."""
    from lampe_eval.commands.listing import all_published

    all_published()


@showing.command("plan")
def show_plan(
    method: Annotated[str, Option(help="Method, as for run.")] = "lampe",
    window: Annotated[
        int, Option(help="Tokens of pretraining, as 4096 or 8k.", parser=_tokens)
    ] = 8192,
    length: Length = 32768,
    png: Annotated[Path | None, Option(help="Also write the picture to this file.")] = None,
) -> None:
    """Regions of a method's plan, its largest relative position, and a picture of the matrix."""
    from lampe_eval.commands.validate import look_up_names

    look_up_names(methods=[method])
    from lampe_eval.commands.show import plan

    plan(method, window, length, png)


@data.command("list")
def data_list(names: Assets = None, data_dir: DataDir = None) -> None:
    """Files of benchmarks: size, state and source."""
    from lampe_eval.commands.data import list_files

    list_files(names or (), data_dir)


@data.command("fetch")
def data_fetch(names: Assets = None, data_dir: DataDir = None) -> None:
    """Fetch what is not here yet from its official source."""
    from lampe_eval.commands.data import fetch_files

    fetch_files(names or (), data_dir)


@data.command("verify")
def data_verify(names: Assets = None, data_dir: DataDir = None) -> None:
    """Take the sha256 of what is here anew."""
    from lampe_eval.commands.data import verify_files

    verify_files(names or (), data_dir)


@data.command("path")
def data_path(names: Assets = None, data_dir: DataDir = None) -> None:
    """Where files are; the cache when nothing is named."""
    from lampe_eval.commands.data import print_paths

    print_paths(names or (), data_dir)


@leaderboard.command("compare")
def leaderboard_compare(
    run: Annotated[Path, Argument(help="Folder of a run.")],
    against: Annotated[
        str, Option(help="Published table: a name (see: list published) or a YAML file.")
    ] = "",
) -> None:
    """Put a run beside a published table; the word compare may be left out."""
    from lampe_eval.commands.leaderboard import compare

    compare(run, against)


@leaderboard.command("build")
def leaderboard_build(
    results: Annotated[Path, Argument(help="Folder with runs in it.")] = Path("results"),
    output: Annotated[
        Path | None, Option(help="The page. Default: index.html in that folder.")
    ] = None,
) -> None:
    """One page, without network, of all runs in a folder."""
    from lampe_eval.commands.leaderboard import build

    build(results, output)


def main() -> None:
    """Entry point: errors that a person can mend are one line, with exit code 2; Ctrl-C and SIGTERM are told."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _stop)
    try:
        code = app(standalone_mode=False)
    except (UserError, typer.TyperException) as error:
        message = error.format_message() if isinstance(error, typer.TyperException) else str(error)
        if message:  # none where the help was printed instead
            print(f"lampe-eval: {' '.join(message.split())}", file=sys.stderr)
        sys.exit(2)
    except Stopped as stop:
        print(stop, file=sys.stderr, flush=True)
        sys.stdout.flush()
        os._exit(stop.code)  # at once: another thread may be drawing samples
    sys.exit(code)


def _stop(number: int, frame: FrameType | None) -> None:
    raise Stopped(number)
