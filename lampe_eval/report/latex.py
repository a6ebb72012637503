r"""Tables in LaTeX, with notes below.

A document that reads them with ``\input`` needs ``\usepackage{booktabs,threeparttable,adjustbox}``.
"""

import re
from collections import Counter
from collections.abc import Iterable
from string import ascii_lowercase

from lampe_eval.report.table_comparison import DIFFERS
from lampe_eval.report.table_model import ResultTable, TableValue

PACKAGES = r"% \usepackage{booktabs,threeparttable,adjustbox}"
ESCAPES = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "·": r"\textperiodcentered{}",
    "±": r"$\pm$",
    DIFFERS: r"$^{\dagger}$",
    **{character: f"\\{character}" for character in "&%$#_{}"},
}


def to_latex(tables: Iterable[ResultTable]) -> str:
    """Return one LaTeX table for each table; each has a label such as tab:niah-single."""
    tables = list(tables)
    return "\n".join([PACKAGES, *map(_latex_table, tables, _labels(tables))])


def _latex_table(table: ResultTable, label: str) -> str:
    letters = _mark_letters(table)
    rows: list[str] = []
    for name, values in table.lines:
        rows.append(_row([escaped(name), *(_cell(value, letters) for value in values)]))
    return "\n".join(
        [
            r"\begin{table}",
            r"\centering",
            r"\begin{adjustbox}{max width=\linewidth}",
            r"\begin{threeparttable}",
            rf"\caption{{{escaped(table.title)}}}\label{{{label}}}",
            rf"\begin{{tabular}}{{l{'r' * (len(table.columns) - 1)}}}",
            r"\toprule",
            _row(map(escaped, table.columns)),
            r"\midrule",
            *rows,
            r"\bottomrule",
            r"\end{tabular}",
            *_table_notes(table, letters),
            r"\end{threeparttable}",
            r"\end{adjustbox}",
            r"\end{table}",
            "",
        ]
    )


def _table_notes(table: ResultTable, letters: dict[str, str]) -> list[str]:
    items = [rf"\item {escaped(note)}." for note in table.caption]
    items += [rf"\item[{letter}] {escaped(mark)} samples." for mark, letter in letters.items()]
    if not items:
        return []
    return [r"\begin{tablenotes}\footnotesize", *items, r"\end{tablenotes}"]


def _labels(tables: Iterable[ResultTable]) -> list[str]:
    """Return a label per table: the start of its title, numbered from its second use on."""
    uses = Counter[str]()
    labels: list[str] = []
    for table in tables:
        start = table.title.partition(" · ")[0].lower()
        name = re.sub("[^a-z0-9]+", "-", start).strip("-")
        uses[name] += 1
        number = f"-{uses[name]}" if uses[name] > 1 else ""
        labels.append(f"tab:{name}{number}")
    return labels


def escaped(text: str) -> str:
    """Return the text, escaped so that LaTeX sets every character as it is."""
    # In one pass: an escape contains characters, such as braces, that must not be escaped again.
    special = "[" + re.escape("".join(ESCAPES)) + "]"
    return re.sub(special, lambda match: ESCAPES[match[0]], text)


def _row(cells: Iterable[str]) -> str:
    return rf"{' & '.join(cells)} \\"


def _cell(value: TableValue, letters: dict[str, str]) -> str:
    text = escaped(value.text)
    if value.best:
        text = rf"\textbf{{{text}}}"
    if value.differs:
        text += ESCAPES[DIFFERS]
    interval = rf" {{\scriptsize {value.interval}}}" if value.interval else ""
    note = rf"\tnote{{{letters[value.mark]}}}" if value.mark else ""
    return f"{text}{interval}{note}"


def _mark_letters(table: ResultTable) -> dict[str, str]:
    """Return a letter for each different mark, in their order: a to z, then aa."""
    marks: list[str] = []
    for _, values in table.lines:
        marks += [value.mark for value in values if value.mark]
    letters: dict[str, str] = {}
    for index, mark in enumerate(dict.fromkeys(marks)):
        letters[mark] = ascii_lowercase[index % 26] * (index // 26 + 1)
    return letters
