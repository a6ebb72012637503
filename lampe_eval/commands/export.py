"""Command `lampe-eval export`: results of a run in the format of another project.

The folder is checked before pandas is imported, which takes seconds.
"""

from pathlib import Path
from typing import Literal

from lampe_eval import terminal
from lampe_eval.file_io import save_files
from lampe_eval.store import Store

Format = Literal["lm-eval", "every-eval-ever", "hf"]


def export(run: Path, to: Format, output: Path | None) -> None:
    """Write the results of a run in another format, and print where they are.

    Args:
        run: folder of the run.
        to: the format.
        output: folder to write to; `export/<format>` in the run's folder by default.

    Raises:
        UserError: if the folder is no run, if a sample of the run has no score, or if a file
            cannot be written.
    """
    Store(run)  # raises for a folder that is no run
    from lampe_eval.export import every_eval_ever, hugging_face, lm_eval
    from lampe_eval.export.exported_run import exported_results
    from lampe_eval.results.gathered_runs import gather_runs

    gathered = gather_runs([run])
    writers = {
        "lm-eval": lm_eval.files,
        "every-eval-ever": every_eval_ever.files,
        "hf": hugging_face.files,
    }
    files: dict[str, str | bytes] = {}
    without_id: dict[str, None] = {}
    for results in exported_results(gathered):
        files |= writers[to](results)
        if "/" not in results.hub_id:
            without_id[results.model] = None
    folder = output or run / "export" / to
    save_files(folder, files, "choose another --output")
    lines = [*gathered.left_out, f"written to {folder}: {len(files)} files"]
    generated = sorted(set(gathered.scores["bench"]) - set(hugging_face.DATASETS))
    if to == "hf" and generated:
        lines.append(
            f"{', '.join(generated)}: no data set on the hub; write the id of yours into "
            "dataset.id before you upload"
        )
    if to == "every-eval-ever" and without_id:
        lines.append(
            f"{', '.join(without_id)}: no id on the hub; put the developer in place of "
            f"{every_eval_ever.UNKNOWN!r}, in model_info and in the path, before you send the files"
        )
    console = terminal.console()
    for line in lines:
        console.print(line, soft_wrap=True, markup=False)
