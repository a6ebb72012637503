"""Evaluation results as model repositories of the Hugging Face hub hold them.

Every benchmark with every method is a file of its own below `.eval_results/`, since a file states
one way of evaluating a model; method and settings are its notes.
"""

from collections.abc import Iterator

from lampe_eval.export.exported_run import ExportedCell, ExportedResults
from lampe_eval.file_io import safe_name
from lampe_eval.yaml_files import write_yaml

DATASETS = {
    "infinitebench": "xinrongzhang2022/InfiniteBench",
    "longbench": "zai-org/LongBench",
    "longbench-e": "zai-org/LongBench",
    "longbench-v2": "zai-org/LongBench-v2",
}
"""Data sets on the hub by benchmark; generated benchmarks have none, and stand under their name."""


def files(results: ExportedResults) -> dict[str, str]:
    """Return a file for each benchmark, by path."""
    # Imported here: the hub's library takes a while, and the other formats do not need it.
    from huggingface_hub import EvalResultEntry, eval_result_entries_to_yaml

    texts: dict[str, str] = {}
    for bench in results.benches:
        entries = [
            EvalResultEntry(
                dataset_id=DATASETS.get(bench, bench),
                task_id=f"{cell.cell.task}_{cell.cell.length}",
                value=cell.value,
                date=results.time.isoformat(),
                notes="; ".join(_notes(results, cell)),
            )
            for cell in results.cells
            if cell.cell.bench == bench
        ]
        path = f"{safe_name(results.model)}/.eval_results/{safe_name(f'{bench}_{results.method}')}"
        texts[f"{path}.yaml"] = write_yaml(eval_result_entries_to_yaml(entries))
    return texts


def _notes(results: ExportedResults, cell: ExportedCell) -> Iterator[str]:
    """Yield what a reader has to know of a number."""
    model = results.model_record
    settings = cell.resolved["settings"] if cell.resolved else results.settings
    yield f"method {results.method}"
    if settings:
        yield "settings " + ", ".join(f"{name}={value}" for name, value in settings.items())
    yield f"attention factor {cell.attention_factor}"
    yield f"{cell.metric}, {'higher' if cell.higher_is_better else 'lower'} is better"
    if cell.ci_low is not None and cell.ci_high is not None:
        yield f"95 % interval {cell.ci_low:.6g} to {cell.ci_high:.6g}"
    yield f"n = {cell.n}"
    yield f"{cell.cell.length} tokens"
    yield f"protocol {results.config['protocol']}"
    yield f"{cell.cell.bench}/{cell.cell.task} version {cell.version}"
    yield f"window {model['window']}, {model['dtype']}, weights {model['fingerprint']}"
    yield f"lampe-eval {results.version}"
