"""Published tables: possible numbers, averages that add up, names that exist, errors with lines."""

import re
from collections.abc import Iterator
from functools import cache
from itertools import groupby
from pathlib import Path

import pytest

from lampe_eval.benches import BENCHES
from lampe_eval.cards import shipped_card
from lampe_eval.cards import shipped_names as card_names
from lampe_eval.errors import UserError
from lampe_eval.results.published_tables import (
    PublishedCell,
    PublishedNumber,
    PublishedRow,
    PublishedTable,
    find_table,
    table_names,
)
from lampe_eval.suite import Suite
from tools.published_tables_page import published_tables_page

TABLES = table_names()
load = cache(find_table)

TABLE = """\
about: a table
source: {title: t, table: Table 1, read: here}
metric: recall
decimals: 1
protocol: fair
columns:
  A: {tasks: ruler/vt, length: 4k}
  B: {tasks: "ruler/niah_*", length: 8k}
  C: {mean: [A, B]}
rows:
  - {printed: ours, model: org/model, method: "lampe:head_tokens=9", values: [1, ">2", null]}
"""


@pytest.mark.parametrize("name", TABLES)
def test_every_table_has_a_description_and_a_source(name: str) -> None:
    table = load(name)
    assert table.about
    assert table.source.arxiv or table.source.repository
    assert all(suite in card_names("suites") for suite in table.suites)
    assert len({(row.printed, row.length) for row in table.rows}) == len(table.rows)


@pytest.mark.parametrize("name", TABLES)
def test_every_number_is_possible(name: str) -> None:
    """Expect numbers in the range of their scale, rounded, under a protocol of their benches."""
    table = load(name)
    low, high = (1, 1000) if table.scale == "perplexity" else (0, 100)
    for published in table.numbers():
        value = published.number.value
        assert low <= value <= high, published
        assert value == round(value, published.decimals)
        for cell in published.cells:
            BENCHES[cell.task.partition("/")[0]].protocol(table.protocol)


@pytest.mark.parametrize("name", TABLES)
def test_averages_agree_with_their_parts(name: str) -> None:
    """Expect agreement within rounding, except in rows that are marked as in doubt."""
    table = load(name)
    for row, gaps in _gaps(table):
        assert row.doubt or all(gap <= 1e-9 for gap in gaps), (row.printed, gaps)


def test_which_tables_print_averages_that_can_be_checked() -> None:
    checked = set()
    for name in TABLES:
        for _, gaps in _gaps(load(name)):
            if gaps:
                checked.add(name)
    assert checked == {
        "babilong-llama3",
        "chunkllama-leval",
        "dpe-ruler",
        "lampe-table2",
        "longbench-readme",
        "ruler-readme",
        "self-leval",
        "string-infinitebench",
        "string-ruler",
        "string-ruler-tasks",
    }


def test_the_averages_that_do_not_add_up_are_those_in_doubt() -> None:
    wrong = []
    for name in TABLES:
        for row, gaps in _gaps(load(name)):
            if any(gap > 1e-9 for gap in gaps):
                wrong.append(row.printed)
    assert wrong == ["Qwen2.5-14B-Instruct-1M (14B)", "Llama2-chat (4K)"]


def _gaps(table: PublishedTable) -> Iterator[tuple[PublishedRow, list[float]]]:
    """Yield each row with how far its averages are beyond what rounding explains.

    Both the average and the numbers beside it are rounded.
    """
    numbers = (number for number in table.numbers() if not number.number.is_lower_bound)
    for row, group in groupby(numbers, key=lambda number: number.row):
        columns = {number.column: number for number in group}
        gaps: list[float] = []
        for published in columns.values():
            average = _average_of_parts(published, columns, table)
            if average is not None:
                rounding = 10.0**-published.decimals
                gaps.append(abs(published.number.value - average) - rounding)
        yield row, gaps


def _average_of_parts(
    published: PublishedNumber, columns: dict[str, PublishedNumber], table: PublishedTable
) -> float | None:
    """Return the average of other numbers of a row; None where these are not its parts."""
    parts = table.columns[published.column].mean
    if parts:
        values = [columns[part].number.value for part in parts if part in columns]
        return sum(values) / len(values) if len(values) == len(parts) else None
    cells = set(published.cells)
    uncovered, total = set(cells), 0.0
    for other in columns.values():
        other_cells = set(other.cells)
        if other_cells < cells and other_cells <= uncovered:
            uncovered -= other_cells
            total += len(other.cells) * other.number.value
    return total / len(published.cells) if not uncovered else None


@pytest.mark.parametrize(
    "name",
    [name for name in card_names("suites") if not name.startswith(("demo", "pocket", "smollm2"))],
)
def test_every_suite_runs_a_table(name: str) -> None:
    tables = [load(table) for table in TABLES if name in load(table).suites]
    suite = shipped_card("suites", name, Suite)
    models: set[str | None] = set()
    for table in tables:
        models.update(row.model for row in table.rows)
    assert models & set(suite.model)


def test_a_table_of_the_users_own(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(TABLE)
    vt, needles = find_table(str(path)).numbers()
    assert vt.mean == PublishedCell("ruler/vt", 4096)
    assert len(needles.cells) == 8
    assert (needles.number.value, needles.number.is_lower_bound) == (2, True)
    assert vt.spec is not None
    assert vt.spec.settings == {"head_tokens": 9}


def test_shares_become_percent(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(TABLE.replace("metric: recall", "metric: recall\nscale: share"))
    assert [published.number.value for published in find_table(str(path)).numbers()] == [100, 200]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("values: [1, ", "values: [one, ", "mine.yaml:11: key 'rows.0.values.0'"),
        (", null]", "]", "mine.yaml:11: key 'rows.0.values': 2 values for 3 columns"),
        ("mean: [A, B]", "mean: [A, D]", "mine.yaml:9: key 'columns.C.mean': "),
        ("mean: [A, B]", "mean: [A, D]", "no column 'D'"),
        ("mean: [A, B]", "length: 4k", "mine.yaml:9: key 'columns.C': "),
        ("ruler/vt", "ruler/vtt", "mine.yaml:7: key 'columns.A.tasks': "),
        ("ruler/vt", "ruler/vtt", "'ruler/vtt'"),
        ("ruler/vt", "rulr/vt", "'rulr' (did you mean 'ruler'"),
        ("length: 4k", "length: 4q", "mine.yaml:7: key 'columns.A.length'"),
        ("lampe:head_tokens=9", "lamp:head_tokens=9", "mine.yaml:11: key 'rows.0.method': "),
        ("lampe:head_tokens=9", "lamp:head_tokens=9", "unknown method 'lamp'"),
        ("lampe:head_tokens=9", "lampe:hed=9", "setting of lampe 'hed'"),
        ("decimals: 1", "decimals: 1\ndecimal: 1", "mine.yaml:5: key 'decimal'"),
        ("printed: ours", "printed: a, printd: b", "mine.yaml:11: key 'rows.0.printd'"),
    ],
)  # fmt: skip
def test_an_error_names_file_line_and_key(tmp_path: Path, old: str, new: str, message: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(TABLE.replace(old, new))
    with pytest.raises(UserError) as caught:
        find_table(str(path))
    assert message in str(caught.value)
    assert re.search(r"mine.yaml:\d+: key ", str(caught.value))


def test_an_unknown_name_offers_the_nearest() -> None:
    with pytest.raises(UserError, match=r"'lampe-tabel1' .*'lampe-table1'"):
        find_table("lampe-tabel1")
    with pytest.raises(UserError, match=r"--against: gone\.yaml: "):
        find_table("gone.yaml")


def test_the_page_of_published_tables_is_in_sync() -> None:
    page = Path(__file__).parents[2] / "docs" / "published.md"
    command = "python -m tools.published_tables_page > docs/published.md"
    assert page.read_text(encoding="utf-8") == published_tables_page(), f"run: {command}"
