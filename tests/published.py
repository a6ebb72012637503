"""docs/published.md: the published tables, where they are from, what is known to be wrong with them, how to run them.

Run: python -m tests.published > docs/published.md
"""

from collections import Counter
from functools import partial
from textwrap import wrap

from lampe_eval.cards import shipped_card
from lampe_eval.method_specs import parse_methods
from lampe_eval.report.comparison_table import table_source
from lampe_eval.results.published_tables import PublishedNumber, PublishedTable, find_table, names
from lampe_eval.suite import Suite

HEAD = """# Published tables

Numbers that others published, as `configs/published/*.yaml` has them, to hold a run against:

    lampe-eval run --config lampe-table1
    lampe-eval leaderboard results/<run> --against lampe-table1

The second command prints each published number beside ours, and writes the same as `leaderboard-<table>.csv` and `.md`
into the run's folder: ours with its standard error, the difference, whether that lies within the 95 % interval of ours,
and every setting in which the two differ (window, dtype, protocol, text, haystack, seed, settings of the method,
version of the task, batches, samples, those that were cut). The interval is Student's t; for a mean over tasks these
are taken as independent (degrees of freedom by Welch and Satterthwaite). Samples that all score alike are no certainty:
a share then has the error of two right and two wrong answers more (Agresti and Coull). Of a perplexity the error is
over documents, or over blocks of a single one. Half a unit of the last printed digit counts for nothing. What only one
side has is listed, and a mean is compared only where the run has every task of it.

A published row meets every method of the run that bears the same name; settings that differ are said. A model is known
by its card, its hub id, or a folder called like the last part of that. `--against FILE.yaml` takes a table of your own.

Suites run models that have a card, and a few that are built like them. What is in no suite is counted below: methods
that are none here, and models whose configurations nobody has looked at (70B, other families); `run --model HUB_ID`
takes these where they can be patched. Suites read one prompt at a time (`max_batch_tokens: 1`), as published numbers
were made.

No suite was run here, for want of a hub. All were prepared (`tests/lampe_eval/test_published_suites.py`): names exist,
and methods encode at every length. Averages that a table prints beside their parts are checked against them
(`tests/lampe_eval/test_published.py`); rows that do not add up are said to be in doubt.

Published, and in no table here:

- ChunkLlama's few-shot rows (NarrativeQA, Qasper, QuALITY, QMSum; arXiv 2402.17463): base models asked with examples in
  the prompt, which no task here does.
- ReRoPE's losses of Llama 2 13B on the last 4096 tokens (bojone/rerope): no task here counts a text's last tokens
  alone, and the text is not noted.
- SelfExtend's own tables (arXiv 2401.01325): not at hand.

This page is made from the files: `python -m tests.published > docs/published.md`.
"""


def document() -> str:
    """The whole file."""
    return "\n".join([HEAD, *(_section(name, find_table(name)) for name in names())])


def _section(name: str, table: PublishedTable) -> str:
    runs = [f"    lampe-eval run --config {suite}" for suite in table.suites]
    doubts = [f"in doubt: {row.printed}: {row.doubt}" for row in table.rows if row.doubt]
    known = [
        *table.deviations,
        *doubts,
        *(f"not here: {text}" for text in table.missing),
        *_left(table),
    ]
    numbers = f"{len(table.rows)} rows, {sum(1 for _ in table.figures())} numbers: {table.metric}."
    return "\n".join(
        [
            f"## {name}",
            "",
            *_wrapped(
                f"{table.about[0].upper()}{table.about[1:]}. {numbers} Nearest protocol: `{table.protocol}`."
            ),
            *_wrapped(f"From {table_source(table)}. Read in: {table.source.read}."),
            "",
            *runs,
            "",
            *(line for text in known for line in _wrapped(f"- {text}", "  ")),
            "",
        ]
    )


def _left(table: PublishedTable) -> list[str]:
    """How many numbers no suite runs, and why."""
    suites = [shipped_card("suites", name, Suite) for name in table.suites]
    left = [figure for figure in table.figures() if not any(map(partial(_runs, figure), suites))]
    reasons = Counter(
        "methods that are none here" if figure.spec is None else "other models" for figure in left
    )
    counts = " and ".join(f"{count} numbers of {why}" for why, count in reasons.items())
    return [f"in no suite: {counts}"] if left else []


def _runs(figure: PublishedNumber, suite: Suite) -> bool:
    """Whether a suite makes a number."""
    return (
        figure.spec is not None
        and figure.row.model in suite.model
        and figure.spec.name in {spec.name for spec in parse_methods(suite.method)}
        and all(cell.length is None or cell.length in suite.lengths for cell in figure.cells)
    )


def _wrapped(text: str, indent: str = "") -> list[str]:
    return wrap(text, 120, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)


if __name__ == "__main__":
    print(document(), end="")
