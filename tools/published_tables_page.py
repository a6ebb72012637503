"""Write docs/published.md: the published tables, their sources, and their known faults.

Run: python -m tools.published_tables_page > docs/published.md
"""

from collections import Counter
from textwrap import wrap

from lampe_eval.cards import shipped_card
from lampe_eval.method_specs import parse_methods
from lampe_eval.results.published_tables import (
    PublishedNumber,
    PublishedTable,
    find_table,
    table_names,
)
from lampe_eval.suite import Suite

LINE_WIDTH = 100

HEAD = """# Published tables

Numbers that others published are kept in `configs/published/*.yaml`, so that a run can be compared
with them:

<!-- needs: hub -->
```sh
lampe-eval run --config lampe-table1 --output results/table1
lampe-eval leaderboard results/table1 --against lampe-table1
```

The second command prints each published number beside ours, and writes the same as
`leaderboard-<table>.csv` and `.md` into the run's folder. A row has our number with its standard
error, the difference, whether the published number lies within the 95 % interval of ours, and every
setting in which the two differ: window, dtype, protocol, text, haystack, seed, settings of the
method, version of the task, batches, number of samples, and how many prompts were cut.

The interval is Student's t. For a mean over tasks, the tasks are taken as independent (degrees of
freedom by Welch and Satterthwaite). Samples that all have the same score are no certainty: a share
then has the error of two right and two wrong answers more (Agresti and Coull). The error of a
perplexity is computed over documents, or over blocks of a single document. A difference of half a
unit of the last printed digit is rounding. Numbers that only one side has are listed, and a mean is
compared only where the run has every task of it.

A published row matches every method of the run with the same name; settings that differ are listed.
A model is recognised by its card, its hub id, or a folder named like the last part of that id.
`--against FILE.yaml` takes a table of your own.

Suites run models that have a card, and a few models built like them. The numbers that no suite runs
are counted below: those of methods that are not implemented here, and those of models whose
configurations nobody has checked (70B, other families). `run --model HUB_ID` takes such a model if
it can be patched. Suites read one prompt at a time (`max_batch_tokens: 1`), as published numbers
were made.

No suite was run here, since no hub could be reached. All were prepared
(`tests/lampe_eval/test_published_suites.py`): names exist, and methods encode at every length.
Averages that a table prints beside their parts are checked against them
(`tests/lampe_eval/test_published.py`); rows that do not add up are marked as in doubt.

Published numbers that are in no table here:

- ChunkLlama's few-shot rows (NarrativeQA, Qasper, QuALITY, QMSum; arXiv 2402.17463): base models
  that were given examples in the prompt, which no task here does.
- ReRoPE's losses of Llama 2 13B on the last 4096 tokens (bojone/rerope): no task here counts only
  the last tokens of a text, and the text is not stated.
- SelfExtend's own tables (arXiv 2401.01325): they were not available.

This page is generated from the files: `python -m tools.published_tables_page > docs/published.md`.
"""


def published_tables_page() -> str:
    """Return the page."""
    return "\n".join([HEAD, *(_section(name, find_table(name)) for name in table_names())])


def _section(name: str, table: PublishedTable) -> str:
    about = f"{table.about[0].upper()}{table.about[1:]}"
    count = sum(1 for _ in table.numbers())
    size = f"{len(table.rows)} rows, {count} numbers: {table.metric}"
    remarks = list(table.deviations)
    remarks += [f"in doubt: {row.printed}: {row.doubt}" for row in table.rows if row.doubt]
    remarks += [f"not here: {text}" for text in table.missing]
    remarks += _numbers_without_suite(table)
    lines = [f"## {name}", ""]
    lines += _wrapped(f"{about}. {size}. Nearest protocol: `{table.protocol}`.")
    lines += _wrapped(f"From {table.source_line}. Read in: {table.source.read}.")
    lines.append("")
    if table.suites:
        lines += ["<!-- needs: hub -->", "```sh"]
        lines += [f"lampe-eval run --config {suite}" for suite in table.suites]
        lines += ["```", ""]
    for remark in remarks:
        lines += _wrapped(f"- {remark}", "  ")
    return "\n".join([*lines, ""])


def _numbers_without_suite(table: PublishedTable) -> list[str]:
    """Return a remark on how many numbers no suite runs, and why."""
    suites = [shipped_card("suites", name, Suite) for name in table.suites]
    reasons = Counter[str]()
    for published in table.numbers():
        if any(_runs(published, suite) for suite in suites):
            continue
        has_method = published.spec is not None
        reasons["other models" if has_method else "methods that are not implemented here"] += 1
    counts = " and ".join(f"{count} numbers of {reason}" for reason, count in reasons.items())
    return [f"in no suite: {counts}"] if counts else []


def _runs(published: PublishedNumber, suite: Suite) -> bool:
    """Return whether a suite makes a number."""
    if published.spec is None or published.row.model not in suite.model:
        return False
    if published.spec.name not in {spec.name for spec in parse_methods(suite.method)}:
        return False
    lengths = {cell.length for cell in published.cells if cell.length is not None}
    return lengths <= set(suite.lengths)


def _wrapped(text: str, indent: str = "") -> list[str]:
    return wrap(
        text,
        LINE_WIDTH,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )


if __name__ == "__main__":
    print(published_tables_page(), end="")
