"""One HTML file with everything in it: tables, pictures, samples, settings. It loads nothing and runs nothing else.

What a model said is hostile. All that tables show travels as JSON, in a data block without a single ``<``, and the
script puts it into the page as text; the template escapes the rest; the page's own policy (CSP) allows this script and
this style sheet by their hashes, pictures that are in the page, and nothing else.
"""

import base64
import hashlib
import json
from collections.abc import Iterable, Mapping
from importlib import resources
from typing import Any

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined

from lampe_eval.report.page import page_samples, page_tables
from lampe_eval.report.table_model import result_tables
from lampe_eval.results.gathered_runs import GatheredRuns

TEMPLATES = Environment(
    loader=PackageLoader("lampe_eval.report.page", "."),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)

FEW = 3
"""Names in a row that a reader takes in."""


def page(gathered: GatheredRuns, pictures: Mapping[str, str]) -> str:
    """The report of runs.

    Args:
        pictures: SVG texts by title.
    """
    data = {
        "scores": page_tables.scores(gathered.scores),
        "differences": page_tables.differences(gathered.pairs),
        "details": page_tables.details(gathered.details),
        "samples": page_samples.compact(gathered.runs),
    }
    return _render(
        "report.html",
        ["table.js", "sample.js", "report.js"],
        data,
        title=_told(gathered.scores["run"], "runs"),
        facts=_facts(gathered),
        lacking=_lacking(gathered.scores),
        writing=gathered.writing.values(),
        blocks=list(result_tables(gathered)),
        pictures={title: _data_address(svg) for title, svg in pictures.items()},
        runs={
            run: (store.folder / "run.yaml").read_text(encoding="utf-8")
            for run, store in gathered.runs.items()
        },
        counts={name: len(table["rows"]) for name, table in data.items()},
    )


def site(gathered: GatheredRuns, reports: Mapping[str, str]) -> str:
    """One table of the scores of many runs.

    Args:
        reports: address of a run's own report, relative to the site, by the run's name; not every run has one.
    """
    data = {"standings": page_tables.standings(gathered.scores, reports)}
    return _render(
        "site.html",
        ["table.js", "site.js"],
        data,
        title="Leaderboard",
        facts=_facts(gathered),
        lacking=_lacking(gathered.scores),
        writing=gathered.writing.values(),
    )


def _render(template: str, scripts: list[str], data: Mapping[str, Any], **context: Any) -> str:
    style, script = _asset("page.css"), "\n".join(map(_asset, scripts))
    text = TEMPLATES.get_template(template).render(
        policy=f"default-src 'none'; script-src {_digest(script)}; style-src {_digest(style)}; img-src data:; "
        "base-uri 'none'; form-action 'none'",
        style=style,
        script=script,
        data=_block(data),
        **context,
    )
    return text.encode("utf-8", "replace").decode("utf-8")  # half a surrogate pair is no text


def _asset(name: str) -> str:
    return resources.files("lampe_eval.report.page").joinpath(name).read_text(encoding="utf-8")


def _digest(text: str) -> str:
    """A text as a policy names it."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _block(data: Mapping[str, Any]) -> str:
    """JSON that cannot end its ``<script>`` element."""
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c")


def _data_address(svg: str) -> str:
    """A picture as an address: an image runs no script, and its ids are its own."""
    return f"data:image/svg+xml;base64,{base64.b64encode(svg.encode()).decode()}"


def _facts(gathered: GatheredRuns) -> dict[str, str]:
    """What was run, at a glance."""
    frame = gathered.scores
    lengths = dict.fromkeys([frame["length"].min(), frame["length"].max()])
    return {
        "Model": _told(frame["model"], "models"),
        "Method": _told(frame["method"], "methods"),
        "Benchmark": _told(frame["bench"], "benchmarks"),
        "Length": " to ".join(f"{length:,}" for length in lengths),
        "Protocol": _told(frame["protocol"], "protocols"),
        "Samples": f"{frame['n'].sum():,}",
        "Seed": _told((store.config["seed"] for store in gathered.runs.values()), "seeds"),
    }


def _lacking(frame: pd.DataFrame) -> list[str]:
    """What the reader has to know before any number: how many samples are not in it."""
    totals = {
        word: int(frame[column].sum())
        for column, word in page_tables.MARKS.items()
        if column != "cut"
    }
    return [f"{total:,} {word}" for word, total in totals.items() if total]


def _told(values: Iterable[Any], many: str) -> str:
    """The values by name where they are few."""
    names = [str(value) for value in dict.fromkeys(values)]
    return ", ".join(names) if len(names) <= FEW else f"{len(names)} {many}"
