"""Page in one HTML file with tables, pictures, samples and settings; it loads nothing else.

Nothing that a model said is trusted. All that tables show travels as JSON, in a data block without
a single `<`, and the script adds it to the page as text. The template escapes the rest. The page's
own policy (CSP) allows this script and this style sheet by their hashes, pictures that are part of
the page, and nothing else.
"""

import base64
import json
from collections.abc import Iterable, Mapping
from importlib import resources
from typing import Any

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined

from lampe_eval.errors import UserError
from lampe_eval.file_io import sha256_of_text
from lampe_eval.report.page import page_rankings, page_samples, page_tables
from lampe_eval.report.recommendation_table import RecommendationTable, recommendation_tables
from lampe_eval.report.report_tables import report_tables
from lampe_eval.results.gathered_runs import GatheredRuns
from lampe_eval.results.method_summaries import summarize_models
from lampe_eval.results.ranking import UNSCORED

TEMPLATES = Environment(
    loader=PackageLoader("lampe_eval.report.page", "."),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)

MAX_LISTED = 3
"""Names that a fact at the top of the page lists; more are counted."""


def report_page(gathered: GatheredRuns, pictures: Mapping[str, str]) -> str:
    """Return the report of runs as HTML.

    Args:
        gathered: the runs.
        pictures: SVG texts by title.
    """
    data = {
        "scores": page_tables.scores(gathered.scores),
        "differences": page_tables.differences(gathered.pairs),
        "details": page_tables.details(gathered.details),
        "samples": page_samples.compact_samples(gathered.rows),
    }
    run_files = {
        run: (store.folder / "run.yaml").read_text(encoding="utf-8")
        for run, store in gathered.runs.items()
    }
    return _render(
        "report.html",
        ["table.js", "sample.js", "report.js"],
        data,
        title=_names_or_count(gathered.scores["run"], "runs"),
        facts=_facts(gathered),
        unscored=_unscored(gathered.scores),
        writing=gathered.writing.values(),
        recommendations=_recommendations(gathered),
        tables=report_tables(gathered),
        pictures={title: _data_address(svg) for title, svg in pictures.items()},
        runs=run_files,
        counts={name: len(table["rows"]) for name, table in data.items()},
    )


def _recommendations(gathered: GatheredRuns) -> list[RecommendationTable]:
    """Return which method to use; nothing where the runs lack what it takes."""
    try:
        summaries, _ = summarize_models(gathered)
    except UserError:
        return []
    return list(recommendation_tables(summaries))


def leaderboard_page(gathered: GatheredRuns, reports: Mapping[str, str]) -> str:
    """Return rankings and one table of the scores of many runs as HTML.

    Args:
        gathered: the runs.
        reports: address of a run's own report, relative to the page, by the run's name; not every
            run has one.
    """
    data = {
        "rankings": page_rankings.rankings(gathered, reports),
        "standings": page_tables.standings(gathered.scores, reports),
    }
    return _render(
        "leaderboard.html",
        ["table.js", "ranking.js", "leaderboard.js"],
        data,
        title="Leaderboard",
        facts=_facts(gathered),
        unscored=_unscored(gathered.scores),
        writing=gathered.writing.values(),
    )


def _render(template: str, scripts: list[str], data: Mapping[str, Any], **context: Any) -> str:
    style = _asset("page.css")
    # The policy's hashes cover every character between the tags, so the template must add none.
    script = "\n".join(map(_asset, scripts))
    policy = (
        f"default-src 'none'; script-src {_policy_hash(script)}; "
        f"style-src {_policy_hash(style)}; img-src data:; base-uri 'none'; form-action 'none'"
    )
    page = TEMPLATES.get_template(template).render(
        policy=policy, style=style, script=script, data=_data_block(data), **context
    )
    # a prediction may hold half a surrogate pair, which UTF-8 cannot encode
    return page.encode("utf-8", "replace").decode("utf-8")


def _asset(name: str) -> str:
    return resources.files("lampe_eval.report.page").joinpath(name).read_text(encoding="utf-8")


def _policy_hash(text: str) -> str:
    """Return the hash of a text as a content security policy writes it."""
    digest = bytes.fromhex(sha256_of_text(text))
    return f"'sha256-{base64.b64encode(digest).decode()}'"


def _data_block(data: Mapping[str, Any]) -> str:
    """Return JSON that cannot end its `<script>` element."""
    # NaN and infinity are no JSON: a value that ``plain`` did not turn into one is an error.
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c")


def _data_address(svg: str) -> str:
    """Return a picture as an address: as an image it runs no script, and its ids do not clash."""
    return f"data:image/svg+xml;base64,{base64.b64encode(svg.encode()).decode()}"


def _facts(gathered: GatheredRuns) -> dict[str, str]:
    """Return what was run, at a glance."""
    scores = gathered.scores
    lengths = dict.fromkeys([scores["length"].min(), scores["length"].max()])
    seeds = (store.config["seed"] for store in gathered.runs.values())
    return {
        "Model": _names_or_count(scores["model"], "models"),
        "Method": _names_or_count(scores["method"], "methods"),
        "Benchmark": _names_or_count(scores["bench"], "benchmarks"),
        "Length": " to ".join(f"{length:,}" for length in lengths),
        "Protocol": _names_or_count(scores["protocol"], "protocols"),
        "Samples": f"{scores['n'].sum():,}",
        "Seed": _names_or_count(seeds, "seeds"),
    }


def _unscored(scores: pd.DataFrame) -> list[str]:
    """Return how many samples have no score and why; a reader has to know it before any number."""
    texts: list[str] = []
    for column in UNSCORED:
        total = int(scores[column].sum())
        if total:
            texts.append(f"{total:,} {page_tables.MARKS[column]}")
    return texts


def _names_or_count(values: Iterable[Any], plural: str) -> str:
    """Return the different values by name where they are few, else their number."""
    names = [str(value) for value in dict.fromkeys(values)]
    return ", ".join(names) if len(names) <= MAX_LISTED else f"{len(names)} {plural}"
