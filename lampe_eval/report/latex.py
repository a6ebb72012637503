r"""Tables in LaTeX: best numbers bold, second underlined, what there is to say about them in notes.

A document that reads them with ``\input`` needs ``\usepackage{booktabs,threeparttable,adjustbox}``.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from string import ascii_lowercase

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
    **{character: f"\\{character}" for character in "&%$#_{}"},
}
LEGEND = {1: "best number bold", 2: "second underlined"}
"""What places look like."""


def to_latex(blocks: Iterable[ResultTable]) -> str:
    """One table for each block, to be referred to by its \\label, such as tab:niah-single."""
    tables = list(blocks)
    return "\n".join([PACKAGES, *map(_table, tables, _labels(tables))])


def _table(block: ResultTable, label: str) -> str:
    marks = _letters(value.mark for _, values in block.lines for value in values)
    rows = [
        _row([escaped(label), *(_cell(value, marks) for value in values)])
        for label, values in block.lines
    ]
    legend = ", ".join(text for place, text in LEGEND.items() if place in block.places).capitalize()
    notes = [rf"\item {escaped(note)}." for note in (legend, *block.notes) if note]
    notes += [rf"\item[{letter}] {escaped(mark)} samples." for mark, letter in marks.items()]
    if notes:
        notes = [r"\begin{tablenotes}\footnotesize", *notes, r"\end{tablenotes}"]
    return "\n".join(
        [
            r"\begin{table}",
            r"\centering",
            r"\begin{adjustbox}{max width=\linewidth}",
            r"\begin{threeparttable}",
            rf"\caption{{{escaped(block.title)}}}\label{{{label}}}",
            rf"\begin{{tabular}}{{l{'r' * (len(block.columns) - 1)}}}",
            r"\toprule",
            _row(map(escaped, block.columns)),
            r"\midrule",
            *rows,
            r"\bottomrule",
            r"\end{tabular}",
            *notes,
            r"\end{threeparttable}",
            r"\end{adjustbox}",
            r"\end{table}",
            "",
        ]
    )


def _labels(blocks: Iterable[ResultTable]) -> Iterator[str]:
    """A name for each table: what its title begins with, and a number from the second of that name on."""
    seen = Counter[str]()
    for block in blocks:
        name = re.sub("[^a-z0-9]+", "-", block.title.partition(" · ")[0].lower()).strip("-")
        seen[name] += 1
        yield f"tab:{name}-{seen[name]}" if seen[name] > 1 else f"tab:{name}"


def escaped(text: str) -> str:
    """The text, so that LaTeX sets every character of it as it is."""
    return re.sub("[" + re.escape("".join(ESCAPES)) + "]", lambda found: ESCAPES[found[0]], text)


def _row(cells: Iterable[str]) -> str:
    return rf"{' & '.join(cells)} \\"


def _cell(value: TableValue, marks: dict[str, str]) -> str:
    text = escaped(value.text)
    text = {1: rf"\textbf{{{text}}}", 2: rf"\underline{{{text}}}"}.get(value.place, text)
    error = rf" {{\scriptsize$\pm${value.error}}}" if value.error else ""
    return f"{text}{error}" + (rf"\tnote{{{marks[value.mark]}}}" if value.mark else "")


def _letters(marks: Iterable[str]) -> dict[str, str]:
    """A letter for each mark, in their order: a to z, then aa."""
    distinct = [mark for mark in dict.fromkeys(marks) if mark]
    return {mark: ascii_lowercase[i % 26] * (i // 26 + 1) for i, mark in enumerate(distinct)}
