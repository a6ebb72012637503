"""Published tables: numbers that can be, averages that add up, names that exist, and errors that find their line."""

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
    PublishedTable,
    Row,
    find_table,
    names,
)
from lampe_eval.suite import Suite
from tests.published import document

TABLES = names()
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
def test_every_table_says_what_it_is(name: str) -> None:
    table = load(name)
    assert table.about
    assert table.source.arxiv or table.source.repository
    assert all(suite in card_names("suites") for suite in table.suites)
    assert len({(row.printed, row.length) for row in table.rows}) == len(table.rows)


@pytest.mark.parametrize("name", TABLES)
def test_every_number_can_be(name: str) -> None:
    """In the range of its scale, with no more decimals than the table prints, and a protocol that its benches have."""
    table = load(name)
    low, high = (1, 1000) if table.scale == "perplexity" else (0, 100)
    for figure in table.figures():
        assert low <= figure.number.value <= high, figure
        assert figure.number.value == round(figure.number.value, figure.decimals)
    for bench in {
        cell.task.partition("/")[0] for figure in table.figures() for cell in figure.cells
    }:
        BENCHES[bench].protocol(table.protocol)


@pytest.mark.parametrize("name", TABLES)
def test_averages_are_those_of_what_stands_beside_them(name: str) -> None:
    """Within the rounding of the parts and of the average, but in rows that say they are in doubt."""
    table = load(name)
    for row, gaps in _gaps(table):
        assert row.doubt or all(gap <= 1e-9 for gap in gaps), (row.printed, gaps)


def test_which_tables_print_averages_that_can_be_checked() -> None:
    checked = {name for name in TABLES if any(gaps for _, gaps in _gaps(load(name)))}
    assert checked == {
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
    wrong = [
        row.printed
        for name in TABLES
        for row, gaps in _gaps(load(name))
        if any(gap > 1e-9 for gap in gaps)
    ]
    assert wrong == ["Qwen2.5-14B-Instruct-1M (14B)", "Llama2-chat (4K)"]


def _gaps(table: PublishedTable) -> Iterator[tuple[Row, list[float]]]:
    """Of each row, how far its averages are beyond what rounding, of them and of the numbers beside them, explains."""
    for row, group in groupby(
        (f for f in table.figures() if not f.number.above), key=lambda figure: figure.row
    ):
        figures = {figure.column: figure for figure in group}
        means = {column: _from_parts(figure, figures, table) for column, figure in figures.items()}
        yield (
            row,
            [
                abs(figures[column].number.value - mean) - 10.0 ** -figures[column].decimals
                for column, mean in means.items()
                if mean is not None
            ],
        )


def _from_parts(
    figure: PublishedNumber, figures: dict[str, PublishedNumber], table: PublishedTable
) -> float | None:
    """The average that other numbers of a row make; None for a number that is none, or whose parts are not printed."""
    parts = table.columns[figure.column].mean
    if parts:
        found = [figures[part].number.value for part in parts if part in figures]
        return sum(found) / len(found) if len(found) == len(parts) else None
    left, total = set(figure.cells), 0.0
    for other in figures.values():
        if set(other.cells) < set(figure.cells) and set(other.cells) <= left:
            left -= set(other.cells)
            total += len(other.cells) * other.number.value
    return total / len(figure.cells) if not left else None


@pytest.mark.parametrize(
    "name",
    [name for name in card_names("suites") if name not in ("demo", "pocket", "pocket-ruler")],
)
def test_every_suite_runs_a_table(name: str) -> None:
    tables = [load(table) for table in TABLES if name in load(table).suites]
    suite = shipped_card("suites", name, Suite)
    assert any(row.model in suite.model for table in tables for row in table.rows)


def test_a_file_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(TABLE)
    vt, needles = find_table(str(path)).figures()
    assert vt.mean == PublishedCell("ruler/vt", 4096)
    assert len(needles.cells) == 8
    assert (needles.number.value, needles.number.above) == (2, True)
    assert vt.spec is not None
    assert vt.spec.settings == {"head_tokens": 9}


def test_shares_become_percent(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(TABLE.replace("metric: recall", "metric: recall\nscale: share"))
    assert [figure.number.value for figure in find_table(str(path)).figures()] == [100, 200]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("values: [1, ", "values: [one, ", "mine.yaml:11: key 'rows.0.values.0'"),
        (", null]", "]", "mine.yaml:11: key 'rows.0.values': 2 values for 3 columns (A, B, C)"),
        ("mean: [A, B]", "mean: [A, D]", "mine.yaml:9: key 'columns.C.mean': there is no column 'D'"),
        ("mean: [A, B]", "length: 4k", "mine.yaml:9: key 'columns.C': neither the column nor the table"),
        ("ruler/vt", "ruler/vtt", "mine.yaml:7: key 'columns.A.tasks': no task is called 'ruler/vtt'"),
        ("ruler/vt", "rulr/vt", "unknown bench 'rulr' (did you mean 'ruler'?)"),
        ("length: 4k", "length: 4q", "mine.yaml:7: key 'columns.A.length'"),
        ("lampe:head_tokens=9", "lamp:head_tokens=9", "mine.yaml:11: key 'rows.0.method': unknown method 'lamp'"),
        ("lampe:head_tokens=9", "lampe:hed=9", "setting of lampe 'hed'"),
        ("decimals: 1", "decimals: 1\ndecimal: 1", "mine.yaml:5: key 'decimal'"),
        ("printed: ours", "printed: a, printd: b", "mine.yaml:11: key 'rows.0.printd'"),
    ],
)  # fmt: skip
def test_a_wrong_table_is_told_by_file_line_and_key(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(TABLE.replace(old, new))
    with pytest.raises(UserError) as caught:
        find_table(str(path))
    assert message in str(caught.value)
    assert re.search(r"mine.yaml:\d+: key ", str(caught.value))


def test_an_unknown_name_offers_the_nearest() -> None:
    with pytest.raises(
        UserError, match=r"unknown published table 'lampe-tabel1' \(did you mean 'lampe-table1'\?\)"
    ):
        find_table("lampe-tabel1")
    with pytest.raises(UserError, match=r"--against: gone.yaml: no such file"):
        find_table("gone.yaml")


def test_the_page_of_published_tables_is_made_from_them() -> None:
    page = Path(__file__).parents[2] / "docs" / "published.md"
    made = "python -m tests.published > docs/published.md"
    assert page.read_text(encoding="utf-8") == document(), f"run: {made}"
