"""Command `lampe-eval compare`: says why two results differ."""

from collections.abc import Sequence
from pathlib import Path

from lampe_eval import terminal
from lampe_eval.errors import UserError
from lampe_eval.file_io import check_writable, save_file, to_json, with_suffixes


def compare(
    first: Path,
    second: Path,
    methods: Sequence[str],
    models: Sequence[str],
    task: str,
    length: int | None,
    output: Path | None,
) -> None:
    """Compare two results, and print what differs.

    Args:
        first: a run, or files of another program.
        second: another one.
        methods: label of the method in both, or in either.
        models: name of the model in both, or in either.
        task: task that is compared; empty for all.
        length: tokens of the cells that are compared; None for all.
        output: file for what is printed, written as Markdown and as JSON.

    Raises:
        UserError: if one of them cannot be read, or they share no sample.
    """
    own_methods = _for_both("--method", methods)
    own_models = _for_both("--model", models)
    paths = with_suffixes(output, ".md", ".json") if output is not None else []
    for path in paths:
        check_writable(path)
    from lampe_eval.comparison.narrowing import Narrowing
    from lampe_eval.comparison.result_comparison import compare_results, read_result
    from lampe_eval.report.comparison_json import comparison_record
    from lampe_eval.report.comparison_report import (
        comparison_sections,
        print_sections,
        sections_to_markdown,
    )

    results = []
    for path, method, model in zip((first, second), own_methods, own_models, strict=True):
        results.append(read_result(path, Narrowing(method, model, task, length)))
    is_same = own_methods[0] == own_methods[1] and own_models[0] == own_models[1]
    if is_same and first.samefile(second):
        raise UserError(
            f"{first}: is given as A and as B; name another result, or two methods of a run with "
            "--method, given twice"
        )
    comparison = compare_results(*results)
    sections = list(comparison_sections(comparison))
    console = terminal.console()
    print_sections(sections, console)
    if paths:
        texts = (sections_to_markdown(sections), to_json(comparison_record(comparison)))
        for path, text in zip(paths, texts, strict=True):
            save_file(path, text)
        names = " and ".join(map(str, paths))
        console.print(f"written to {names}", soft_wrap=True, markup=False)


def _for_both(option: str, values: Sequence[str]) -> tuple[str, str]:
    """Return the values of an option for either result.

    Raises:
        UserError: for more than two.
    """
    if len(values) > 2:
        raise UserError(f"{option}: is given {len(values)} times; give it once, or for A and for B")
    if not values:
        return "", ""
    return values[0], values[-1]
