"""Exports of runs: what the formats hold, and that they read back as the same scores."""

import dataclasses
import json
import math
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import jsonschema
import pytest
import yaml
from huggingface_hub import parse_eval_result_entries

from lampe_eval.commands.export import Format, export
from lampe_eval.errors import UserError
from lampe_eval.export import every_eval_ever, hugging_face, lm_eval
from lampe_eval.export.exported_run import ExportedResults, exported_results
from lampe_eval.results.cell_scores import score_run
from lampe_eval.results.gathered_runs import gather_runs
from lampe_eval.scoring.harness_files import find_harness_files, score_harness_files
from lampe_eval.store import Cell, Store
from tests.lampe_eval import stored_runs, synthetic_runs

MODEL = "llama3-8b-instruct"
TASKS = ("vt", "fwe", "niah_single_1")
LM_EVAL_SAMPLES = Path("/work/shared/data/parity2/formats/lm_eval")
METHOD = "lampe:variant=reference"
FORMATS: tuple[Format, ...] = ("lm-eval", "every-eval-ever", "hf")
ENVIRONMENT = {"lampe-eval": "0.2.0", "transformers": "5.23.0"}


@pytest.fixture(autouse=True)
def unsynced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Save time: synthetic samples need not survive a power cut."""
    monkeypatch.setattr("os.fsync", lambda _: None)


def _ruler(folder: Path) -> Store:
    """Store a run of two methods on three tasks of RULER at two lengths."""
    cells = [
        Cell(MODEL, method, "ruler", task, length)
        for method in ("original", METHOD)
        for task in TASKS
        for length in (4096, 8192)
    ]
    store = synthetic_runs.store(folder, cells, "official")
    return Store.create(folder, store.config, ENVIRONMENT)


def _of_method(store: Store, method: str) -> ExportedResults:
    found = exported_results(gather_runs([store.folder]))
    return next(results for results in found if results.method == method)


def _exported(store: Store, to: Format) -> dict[str, str]:
    folder = store.folder / "out"
    export(store.folder, to, folder)
    found = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_text() for path in found}


def _read_back(store: Store, bench: str = "") -> dict[str, dict[str, float]]:
    """Return the scores of the exported samples of a run as the reader of other harnesses has."""
    export(store.folder, "lm-eval", store.folder / "out")
    files, left_out = find_harness_files(store.folder / "out")
    scores = score_harness_files(files, bench, left_out)
    assert scores.left_out == ()
    return {task: dict(result.scores) for task, result in scores.items()}


@pytest.mark.parametrize(
    ("bench", "task"),
    [
        ("ruler", "vt"),
        ("niah", "multiquery"),
        ("longbench", "passage_retrieval_en"),
        ("leval", "quality"),
        ("infinitebench", "math_find"),
        ("ppl", "exact"),
        ("ppl", "dense"),
    ],
)
def test_lm_eval_samples_read_back_as_the_same_score(bench: str, task: str, tmp_path: Path) -> None:
    cell = Cell(MODEL, "original", bench, task, 32768)
    store = synthetic_runs.store(tmp_path, [cell], "fair")
    (score,) = score_run(store).scores["score"]
    ((name, scores),) = _read_back(store).items()
    assert name == f"{bench}_{task}_32768"
    # L-Eval rounds as its own code does.
    assert list(scores.values()) == [pytest.approx(score, abs=5e-3)]


def test_an_exported_task_can_be_scored_by_the_benchmarks_own_code(tmp_path: Path) -> None:
    store = _ruler(tmp_path)
    scores = score_run(store).scores
    expected = sorted(scores["score"])
    assert sorted(result["score"] for result in _read_back(store, "ruler").values()) == expected


def test_lm_eval_results_have_what_that_harness_writes(tmp_path: Path) -> None:
    results = _of_method(_ruler(tmp_path), METHOD)
    files = lm_eval.files(results)
    (path,) = (path for path in files if "/results_" in path)
    summary = json.loads(files[path])
    name = "ruler_vt_4096"
    cell = next(cell for cell in results.cells if cell.name == name)
    assert summary["results"][name] == {
        "recall,none": pytest.approx(cell.value / 100),
        "recall_stderr,none": pytest.approx((cell.stderr or 0) / 100),
    }
    assert summary["n-samples"][name] == {"original": 500, "effective": synthetic_runs.SAMPLES}
    assert (summary["versions"][name], summary["n-shot"][name]) == (1, 0)
    assert summary["higher_is_better"][name] == {"recall": True}
    assert summary["group_subtasks"]["ruler_4096"] == [f"ruler_{task}_4096" for task in TASKS]
    mean = sum(summary["results"][f"ruler_{task}_4096"]["recall,none"] for task in TASKS) / 3
    assert summary["groups"]["ruler_4096"]["mean of 3 tasks,none"] == pytest.approx(mean, abs=1e-4)
    averages = {(entry["name"], entry["length"]) for entry in summary["lampe_eval"]["averages"]}
    assert {("mean of 3 tasks", 4096), ("effective length", None)} <= averages
    assert summary["config"]["model_args"]["method"] == METHOD
    assert summary["config"]["model_args"]["method_settings"]["variant"] == "reference"
    assert summary["config"]["model_args"]["pretrained"] == results.hub_id
    assert "/" in results.hub_id
    metadata = summary["configs"][name]["metadata"]
    assert metadata["ci_low"] <= cell.value / 100 <= metadata["ci_high"]
    assert (metadata["protocol"], metadata["attention_factor"]) == ("official", "none")
    assert summary["lampe_eval"]["version"] == "0.2.0"
    assert summary["date"] == results.time.timestamp()


def test_lm_eval_has_a_folder_for_each_model_and_method(tmp_path: Path) -> None:
    paths = [Path(path) for path in _exported(_ruler(tmp_path), "lm-eval")]
    assert len({path.parent for path in paths}) == 2
    assert sum(path.name.startswith("results_") for path in paths) == 2
    assert sum(path.name.startswith("samples_") for path in paths) == 12


@pytest.mark.skipif(not LM_EVAL_SAMPLES.is_dir(), reason="needs files written by lm-eval")
def test_lm_eval_samples_have_the_keys_of_real_ones(tmp_path: Path) -> None:
    line = (next(LM_EVAL_SAMPLES.glob("samples_niah*"))).read_text().splitlines()[0]
    real = json.loads(line)
    files = lm_eval.files(_of_method(_ruler(tmp_path), METHOD))
    lines = next(text for path, text in files.items() if "samples_ruler_vt_" in path)
    ours = json.loads(lines.splitlines()[0])
    metrics = set(real["metrics"])
    assert set(ours) - set(ours["metrics"]) == set(real) - metrics
    assert {key: type(value) for key, value in ours.items() if key in real} == {
        key: type(value) for key, value in real.items() if key not in metrics
    }
    assert {"outputs", "max_length"} <= set(ours["doc"])


def test_a_perplexity_is_exported_in_its_own_direction(tmp_path: Path) -> None:
    store = stored_runs.losses(tmp_path, {"lampe": {512: [1.0, 2.0, 1.5]}})
    results = _of_method(store, "lampe")
    summary = json.loads(
        next(text for path, text in lm_eval.files(results).items() if "/results_" in path)
    )
    assert summary["results"]["ppl_exact_512"]["perplexity,none"] == pytest.approx(math.exp(1.5))
    assert summary["higher_is_better"]["ppl_exact_512"] == {"perplexity": False}
    (record,) = map(json.loads, every_eval_ever.files(results).values())
    (result,) = record["evaluation_results"]
    assert result["metric_config"]["lower_is_better"]
    assert result["score_details"]["score"] == pytest.approx(math.exp(1.5))
    (text,) = hugging_face.files(results).values()
    assert "lower is better" in yaml.safe_load(text)[0]["notes"]


def test_every_eval_ever_records_state_scores_and_conditions(tmp_path: Path) -> None:
    results = _of_method(_ruler(tmp_path), METHOD)
    ((path, text),) = every_eval_ever.files(results).items()
    record = json.loads(text)
    developer, model = results.hub_id.split("/")
    assert Path(path).parent == Path("data", "ruler", developer, model)
    assert record["schema_version"].startswith("0.2")
    assert record["model_info"]["id"] == results.hub_id
    details = record["model_info"]["additional_details"]
    assert details["fingerprint"] == results.model_record["fingerprint"]
    assert details["method"] == METHOD
    assert all(isinstance(value, str) for value in details.values())
    assert record["eval_library"]["version"] == "0.2.0"
    assert record["eval_library"]["additional_details"]["protocol"] == "official"
    by_name = {entry["evaluation_name"]: entry for entry in record["evaluation_results"]}
    entry, cell = by_name["ruler_vt_8192"], results.cells[1]
    uncertainty = entry["score_details"]["uncertainty"]
    assert entry["score_details"]["score"] == cell.value
    assert uncertainty["num_samples"] == cell.n
    interval = uncertainty["confidence_interval"]
    assert interval["lower"] <= cell.value <= interval["upper"]
    assert "ruler, mean of 3 tasks at 4096" in by_name


def test_an_export_that_is_made_again_has_the_same_names(tmp_path: Path) -> None:
    results = _of_method(_ruler(tmp_path), METHOD)
    assert every_eval_ever.files(results).keys() == every_eval_ever.files(results).keys()


SCHEMA = json.loads((Path(__file__).parent / "every_eval_ever_schema.json").read_text())


def _several_models(folder: Path) -> Store:
    tasks = [("ruler", "vt"), ("leval", "news_summ"), ("longbench-v2", "direct"), ("ppl", "dense")]
    cells = [Cell(model, "original", *task, 32768) for model in (MODEL, "pocket") for task in tasks]
    return synthetic_runs.store(folder, cells, "fair")


def _odd_names(folder: Path) -> Store:
    return stored_runs.run(folder, {"a/../b c": {512: [True]}, "é:x=1,y=2": {512: [False]}})


@pytest.mark.parametrize("to", FORMATS)
@pytest.mark.parametrize("make", [_ruler, _several_models, _odd_names])
def test_every_kind_of_run_is_exported_within_its_folder(
    make: Callable[[Path], Store], to: Format, tmp_path: Path
) -> None:
    files = _exported(make(tmp_path / "run"), to)
    assert files
    assert not [path for path in files if ".." in Path(path).parts]
    for path, text in files.items():
        if to == "every-eval-ever":
            jsonschema.validate(json.loads(text), SCHEMA)
        elif path.endswith(".json"):
            json.loads(text, parse_constant=pytest.fail)


@pytest.mark.parametrize(
    ("change", "named"), [({"stopping": "decide, margin 5"}, "decide"), ({"metric": "F1, all"}, "")]
)
def test_what_a_score_depends_on_is_exported(
    change: dict[str, str], named: str, tmp_path: Path
) -> None:
    gathered = gather_runs([stored_runs.run(tmp_path, {"lampe": {512: [True, False]}}).folder])
    scores = gathered.scores.assign(**change)
    (results,) = exported_results(dataclasses.replace(gathered, scores=scores))
    for files in (lm_eval.files, every_eval_ever.files, hugging_face.files):
        assert any(named in text for text in files(results).values())
    text = next(text for path, text in lm_eval.files(results).items() if "/results_" in path)
    assert all(key.count(",") == 1 for key in json.loads(text)["results"]["niah_grid_512"])
    (record,) = map(json.loads, every_eval_ever.files(results).values())
    jsonschema.validate(record, SCHEMA)


@pytest.mark.skipif(
    shutil.which("every_eval_ever") is None,
    reason="needs the program every_eval_ever, of the package every-eval-ever for Python 3.12",
)
@pytest.mark.parametrize("bench", ["ruler", "ppl"])
def test_every_eval_evers_own_program_accepts_the_records(bench: str, tmp_path: Path) -> None:
    store = (
        _ruler(tmp_path)
        if bench == "ruler"
        else stored_runs.losses(tmp_path, {"lampe": {512: [1.0, 2.0, 1.5]}})
    )
    paths = list(_exported(store, "every-eval-ever"))
    command = ["every_eval_ever", "validate", "--format", "json", *paths]
    done = subprocess.run(command, cwd=tmp_path / "out", capture_output=True, check=False)
    reports = json.loads(done.stdout)
    assert [report["errors"] for report in reports] == [[] for _ in paths]


def test_hugging_face_files_are_read_by_the_hubs_library(tmp_path: Path) -> None:
    store = _ruler(tmp_path)
    files = _exported(store, "hf")
    assert len(files) == 2
    assert {Path(path).parent.name for path in files} == {".eval_results"}
    results = _of_method(store, METHOD)
    text = next(text for path, text in files.items() if "lampe" in path)
    entries = parse_eval_result_entries(yaml.safe_load(text))
    numbers = [*results.cells, *results.averages]
    assert [entry.value for entry in entries] == [number.value for number in numbers]
    assert len({(entry.dataset_id, entry.task_id) for entry in entries}) == len(numbers)
    assert "mean_of_3_tasks_4096" in {entry.task_id for entry in entries}
    facts = (METHOD, "variant=reference", "protocol official", "95 % interval", "n = 4")
    more = ("attention factor", results.model_record["fingerprint"], "version 1", "lampe-eval 0.2")
    assert not [fact for fact in (*facts, *more) if fact not in (entries[0].notes or "")]


def test_a_model_without_an_id_is_named_where_records_need_its_developer(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _exported(stored_runs.run(tmp_path, {"lampe": {512: [True]}}), "every-eval-ever")
    (line,) = (line for line in capsys.readouterr().out.splitlines() if "model_info" in line)
    assert line.startswith("pocket:")


def test_a_benchmark_with_a_data_set_on_the_hub_names_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cells = [Cell(MODEL, "original", "longbench", "passage_retrieval_en", 32768)]
    (text,) = _exported(synthetic_runs.store(tmp_path / "a", cells, "fair"), "hf").values()
    assert yaml.safe_load(text)[0]["dataset"]["id"] == "zai-org/LongBench"
    assert "dataset.id" not in capsys.readouterr().out
    _exported(_ruler(tmp_path / "b"), "hf")
    assert "dataset.id" in capsys.readouterr().out


@pytest.mark.parametrize("outcome", ["failed", "left out", "missing"])
@pytest.mark.parametrize("to", FORMATS)
def test_a_sample_without_a_score_is_refused(outcome: str, to: Format, tmp_path: Path) -> None:
    answers = {"lampe": {512: [True, True, True]}, "yarn": {512: [True, True, True]}}
    store = stored_runs.run(tmp_path, answers)
    cell = Cell("pocket", "yarn", "niah", "grid", 512)
    if outcome == "missing":
        store.save_cells({**store.cells(), cell: 4})
    else:
        field = {"failed": "error", "left out": "skipped"}[outcome]
        store.append(cell, {**store.rows(cell)[0], field: "RuntimeError: no"})
    with pytest.raises(UserError) as caught:
        export(tmp_path, to, tmp_path / "out")
    for part in (f"1 {outcome}", cell.place, "at 512"):
        assert part in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_a_sample_that_half_a_surrogate_pair_spoils_is_exported(tmp_path: Path) -> None:
    store = stored_runs.run(tmp_path, {"lampe": {512: [True, True]}})
    cell = Cell("pocket", "lampe", "niah", "grid", 512)
    row = store.rows(cell)[0]
    store.append(cell, {**row, "prediction": "4821 \ud83d", "references": ["4821", "\ud83d"]})
    for to in FORMATS:
        export(tmp_path, to, tmp_path / to)


def test_intervals_are_those_of_the_scores(tmp_path: Path) -> None:
    gathered = gather_runs([stored_runs.run(tmp_path, {"lampe": {512: [True, False]}}).folder])
    scores = gathered.scores.assign(ci_low=12.5, ci_high=87.5)
    details = gathered.details.assign(ci_low=math.nan, ci_high=math.nan)
    (results,) = exported_results(dataclasses.replace(gathered, scores=scores, details=details))
    (cell,) = results.cells
    assert (cell.ci_low, cell.ci_high) == (12.5, 87.5)


def test_a_single_sample_has_no_uncertainty(tmp_path: Path) -> None:
    """Leave it out, or say it in the words of the format, which has no NaN."""
    store = stored_runs.run(tmp_path, {"lampe": {512: [True]}})
    results = _of_method(store, "lampe")
    cells = [
        dataclasses.replace(cell, stderr=None, ci_low=None, ci_high=None) for cell in results.cells
    ]
    results = dataclasses.replace(results, cells=cells)
    summary = next(text for path, text in lm_eval.files(results).items() if "/results_" in path)
    assert json.loads(summary)["results"]["niah_grid_512"]["recall_stderr,none"] == "N/A"
    (record,) = map(json.loads, every_eval_ever.files(results).values())
    uncertainty = record["evaluation_results"][0]["score_details"]["uncertainty"]
    assert uncertainty == {"num_samples": 1}
    (text,) = hugging_face.files(results).values()
    assert "interval" not in text
