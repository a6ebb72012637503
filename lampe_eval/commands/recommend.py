"""Command `lampe-eval recommend`: which method of runs to use, and how."""

from pathlib import Path

from lampe_eval import terminal
from lampe_eval.commands.measured_method import usage
from lampe_eval.report.recommendation_table import recommendation_tables
from lampe_eval.report.tables import print_table
from lampe_eval.results.gathered_runs import gather_runs
from lampe_eval.results.method_summaries import summarize_models


def recommend(runs: list[Path], length: int | None, max_slowdown: float | None) -> None:
    """Print what runs say of each method, the recommended one, and what puts it to use.

    Args:
        runs: folders of runs.
        length: length in tokens to recommend a method for; by default the longest of the runs.
        max_slowdown: largest ratio of times to the unpatched model's; None for any.

    Raises:
        UserError: if a folder is no run, or if the runs cannot be compared, or lack the unpatched
            model, a second length, or the length asked for.
    """
    gathered = gather_runs(runs)
    summaries, problems = summarize_models(gathered, length)
    console = terminal.console()
    for found in recommendation_tables(summaries, max_slowdown):
        print_table(found.table, console)
        lines = list(found.lines)
        if found.source:
            run, label = found.source
            lines += ["", *usage(gathered.runs[run], found.model, label, found.length)]
        for line in lines:
            console.print(line, soft_wrap=True, markup=False, highlight=False)
    for problem in (*problems, *gathered.left_out):
        console.print(problem, soft_wrap=True, markup=False, highlight=False)
