"""Two results compared: runs of ours, prediction folders, and outputs of other harnesses."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import pytest

from lampe_eval.benches import BENCHES, find_tasks
from lampe_eval.commands.compare import compare
from lampe_eval.comparison.narrowing import Narrowing
from lampe_eval.comparison.prompt_texts import PromptText, removed_part, text_difference
from lampe_eval.comparison.result_comparison import ResultComparison, compare_results, read_result
from lampe_eval.comparison.run_settings import run_settings
from lampe_eval.comparison.scorers import BenchScorer
from lampe_eval.comparison.setting_lines import NOT_STATED, SettingLine
from lampe_eval.errors import UserError
from lampe_eval.file_io import sha256_of_text
from lampe_eval.prompts.protocol import Protocol, bench_protocols
from lampe_eval.store import Cell, Store
from tests.lampe_eval import stored_runs, synthetic_runs

SHARED = Path(__file__).parents[3] / "shared" / "data"
FORMATS = SHARED / "parity2" / "formats"
needs_shared = pytest.mark.skipif(not FORMATS.exists(), reason="needs published predictions")

TASKS = {
    "infinitebench": "passkey",
    "leval": "coursera",
    "longbench": "hotpotqa",
    "longbench-v2": "direct",
    "niah": "single",
    "ppl": "exact",
    "ruler": "niah_single_1",
}
PROTOCOLS = [(bench, name) for bench in TASKS for name in bench_protocols(BENCHES[bench].folder)]


@pytest.fixture(autouse=True)
def unsynced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Save time: synthetic samples need not survive a power cut."""
    monkeypatch.setattr("os.fsync", lambda _: None)


def compared(first: Path, second: Path, **narrowing: Any) -> ResultComparison:
    """Return the comparison of two results."""
    part = Narrowing(**narrowing)
    return compare_results(read_result(first, part), read_result(second, part))


def differing(comparison: ResultComparison) -> dict[str, SettingLine]:
    """Return the settings that differ by their names."""
    return {line.name: line for line in comparison.settings if line.differs}


def assert_parts_sum(comparison: ResultComparison) -> None:
    """Check that the parts of every difference sum to it."""
    for group in comparison.groups:
        assert group.split.parts
        assert sum(group.split.parts.values()) == pytest.approx(group.split.difference)


def other_value(annotation: Any, value: Any) -> Any:
    """Return another value that a field may have."""
    if isinstance(value, bool):
        return not value
    choices = list(_choices(annotation))
    others = [choice for choice in choices if choice != value]
    if value in choices and others:
        return others[0]
    if isinstance(value, Mapping):
        return {**value, "another": ["one"]}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [*value, 8 if get_args(annotation)[0] is int else "another"]
    if isinstance(value, str):
        return 7 if int in get_args(annotation) else "another"
    return 1 if value is None else value + 1


def _choices(annotation: Any) -> Iterator[Any]:
    if get_origin(annotation) is Literal:
        yield from get_args(annotation)
        return
    for part in get_args(annotation):
        yield from _choices(part)


@pytest.mark.parametrize(("bench", "name"), PROTOCOLS)
def test_every_field_of_every_protocol_is_compared(bench: str, name: str) -> None:
    protocol = BENCHES[bench].protocol(name)
    (task,) = find_tasks((f"{bench}/{TASKS[bench]}",))
    description: Any = {"config": stored_runs.configuration(), "environments": []}
    own = run_settings(description, [BenchScorer(task, protocol)], []).fields
    for field, declared in Protocol.model_fields.items():
        value = other_value(declared.annotation, getattr(protocol, field))
        changed = Protocol.model_validate(protocol.model_dump() | {field: value})
        other = run_settings(description, [BenchScorer(task, changed)], []).fields
        assert {key for key in own if own[key] != other[key]} == {f"protocol of {bench}: {field}"}


@pytest.mark.parametrize("field", Protocol.model_fields)
def test_the_changed_field_of_a_protocol_is_named(field: str, tmp_path: Path) -> None:
    answers = {"original": {256: [True, False, True]}}
    own = stored_runs.run(tmp_path / "a", answers).config["protocols"]["niah"]
    value = other_value(Protocol.model_fields[field].annotation, own[field])
    stored_runs.run(tmp_path / "b", answers, protocols={"niah": {**own, field: value}})
    comparison = compared(tmp_path / "a", tmp_path / "b")
    assert set(differing(comparison)) - {"scorer"} == {f"protocol of niah: {field}"}
    assert_parts_sum(comparison)


def test_the_command_names_the_field(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    answers = {"original": {256: [True, False, True]}}
    fields = BENCHES["niah"].protocol("fair").model_dump(mode="json")
    stored_runs.run(tmp_path / "a", answers)
    stored_runs.run(tmp_path / "b", answers, protocols={"niah": fields | {"truncation": "left"}})
    output = tmp_path / "why.md"
    compare(tmp_path / "a", tmp_path / "b", (), (), "", None, output)
    printed = capsys.readouterr().out
    for text in (printed, output.read_text()):
        assert "truncation" in text
        assert "left" in text
        assert "plan_length" not in text
    record = json.loads((tmp_path / "why.json").read_text())
    named = {line["name"]: line for line in record["settings"] if line["differs"]}
    assert named["protocol of niah: truncation"]["b"] == "left"


def _numbers(record: Any) -> Iterator[float]:
    """Yield the numbers of a JSON value."""
    if isinstance(record, dict):
        for value in record.values():
            yield from _numbers(value)
    elif isinstance(record, list):
        for value in record:
            yield from _numbers(value)
    elif isinstance(record, float):
        yield record


def _needles(folder: Path, right: Sequence[bool]) -> Path:
    return stored_runs.run(folder, {"original": {256: list(right)}}).folder


def _losses(folder: Path, means: Sequence[float]) -> Path:
    return stored_runs.losses(folder, {"original": {256: means}}).folder


@pytest.mark.parametrize(
    ("make", "first", "second"),
    [
        (_needles, [True, False, True], [False, False, True]),
        (_needles, [True, True], [True, True]),
        (_losses, [1.0, 2.0, 1.5], [1.1, 1.9, 1.6]),
        (_losses, [1.0], [2.0]),
    ],
)
def test_the_json_has_what_is_printed(
    make: Any, first: Any, second: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = make(tmp_path / "a", first), make(tmp_path / "b", second)
    compare(*paths, (), (), "", None, tmp_path / "why")
    printed = capsys.readouterr().out
    record = json.loads((tmp_path / "why.json").read_text(), parse_constant=pytest.fail)
    assert all(name in printed for name in (record["a"]["name"], record["b"]["name"]))
    assert record["pairs"]["count"] == len(first)
    (task,) = record["tasks"]
    assert all(f"{number:.2f}" in printed for number in _numbers(task["parts"]))
    scores = [task["a"], task["b"], *next(iter(task["shared_scores"].values())).values()]
    for score in scores:
        assert f"{score['value']:.2f}" in printed
        # The perplexity of a single window has none.
        if len(first) > 1:
            assert score["ci_low"] <= score["value"] <= score["ci_high"]
        else:
            assert score["ci_low"] is None
    assert task["paired_test"]["samples"] == len(first)


CHANGES: dict[str, tuple[dict[str, Any], str]] = {
    "seed": ({"seed": 5}, "seed"),
    "limit": ({"limit": 9}, "limit"),
    "haystack": ({"haystack": "own.txt sha256:1"}, "haystack"),
    "text": ({"text": "own.txt sha256:1"}, "text"),
    "backend": ({"attention": "flash"}, "attention"),
    "device": ({"device": "cuda"}, "device"),
    "batches": ({"max_batch_tokens": 8192}, "max_batch_tokens"),
    "protocol": ({"protocol": "official"}, "protocol"),
    "files": ({"files": {"longbench/data.zip": "sha256:1"}}, "files.longbench/data.zip"),
    "plug-in": ({"plugins": {"mine.py": "sha256:1"}}, "plugins.mine.py"),
    "lengths": ({"lengths": {"pocket": {"niah": [256, 512]}}}, "lengths of niah"),
    "method setting": ({"methods": {"original": {"pocket": {"x": 1}}}}, "method setting x"),
}
for _field, _value in (("fingerprint", "sha256:1"), ("dtype", "bfloat16"), ("window", 512)):
    _model = {"fingerprint": "sha256:0", "dtype": "float32", "window": 256, _field: _value}
    CHANGES[_field] = ({"models": {"pocket": _model}}, f"model: {_field}")


@pytest.mark.parametrize("change", CHANGES)
def test_every_part_of_a_configuration_is_named(change: str, tmp_path: Path) -> None:
    changes, name = CHANGES[change]
    answers = {"original": {256: [True, False, True]}}
    stored_runs.run(tmp_path / "a", answers)
    other = stored_runs.run(tmp_path / "b", answers)
    Store.create(other.folder, {**other.config, **changes}, {})  # type: ignore[typeddict-item]
    assert name in differing(compared(tmp_path / "a", tmp_path / "b"))


def test_versions_cards_and_counts_are_named(tmp_path: Path) -> None:
    answers = {"original": {256: [True, False, True]}}
    a = stored_runs.run(tmp_path / "a", answers)
    tasks = {name: {**card, "digits": 9} for name, card in a.config["tasks"].items()}
    b = stored_runs.run(tmp_path / "b", {"original": {256: [True, False]}}, tasks=tasks)
    Store.create(b.folder, b.config, {"torch": "3.0"})
    names = differing(compared(a.folder, b.folder))
    assert {"version or machine: torch", "task niah/grid: digits", "number of samples"} <= set(
        names
    )


def test_methods_pair_by_their_names(tmp_path: Path) -> None:
    stored_runs.run(tmp_path / "a", {"pi": {256: [True]}, "yarn": {256: [True]}})
    stored_runs.run(tmp_path / "b", {"yarn": {256: [False]}, "ntk": {256: [False]}})
    comparison = compared(tmp_path / "a", tmp_path / "b")
    assert [group.setup for group in comparison.groups] == ["pocket · yarn"]


def test_two_methods_of_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stored_runs.run(tmp_path / "a", {"pi": {256: [True, True]}, "yarn": {256: [True, False]}})
    compare(tmp_path / "a", tmp_path / "a", ["pi", "yarn"], (), "", None, None)
    assert "+50.00" in capsys.readouterr().out


def _row(prompt: str, prediction: str, references: list[str], **more: Any) -> dict[str, Any]:
    about = {"id": "0", "length": 4096, "prompt_tokens": 9, "attention_factor": "none"}
    shown = {"prompt_start": prompt[:300], "prompt_end": prompt[-300:], "largest_position": 9.0}
    answer = {"prediction": prediction, "references": references, "extras": {}}
    return {**about, **shown, **answer, "prompt_sha256": sha256_of_text(prompt), **more}


def _own_run(folder: Path, cell: Cell, rows: Sequence[Mapping[str, Any]], **changes: Any) -> Path:
    """Store a run of one cell with these rows."""
    run = synthetic_runs.store(folder, [], "official", **_configuration(folder, cell), **changes)
    run.save_cells({cell: len(rows)})
    for row in rows:
        run.append(cell, {**row})  # type: ignore[typeddict-item]
    return folder


def _configuration(folder: Path, cell: Cell) -> dict[str, Any]:
    keys = ("models", "methods", "protocols", "tasks")
    template = synthetic_runs.store(folder.with_name("template"), [cell], "official").config
    return {key: template[key] for key in keys}  # type: ignore[literal-required]


def test_prompts_of_one_sample_split_from_answers(tmp_path: Path) -> None:
    cell = Cell("pocket", "original", "longbench", "hotpotqa", 4096)
    rows = [_row(f"Q{index}?\nA:", "Ilse", ["Ilse"], id=str(index)) for index in range(3)]
    others = [*rows[:1], {**rows[1], "prediction": "Otto"}]
    others.append(_row(r"Q2?\nA:", "Otto", ["Ilse"], id="2"))
    first = _own_run(tmp_path / "a", cell, rows)
    comparison = compared(first, _own_run(tmp_path / "b", cell, others))
    assert comparison.paired_by == {"prompt hash": 2, "id of the data row and reference": 1}
    (group,) = comparison.groups
    assert group.split.parts == {
        "samples": pytest.approx(0),
        "answer": pytest.approx(100 / 3),
        "prompt": pytest.approx(100 / 3),
    }
    assert group.test is not None
    assert (group.test.n, group.test.difference) == (2, pytest.approx(50))
    assert comparison.prompt is not None
    assert comparison.prompt.text is not None
    assert comparison.prompt.text.first == r"Q2?\nA:"
    assert comparison.prompt.text.second == r"Q2?\\nA:"
    assert comparison.prompt.text.column == 3
    assert "escaped" in differing(comparison)["line breaks"].second


def test_the_scorer_is_a_part_of_its_own(tmp_path: Path) -> None:
    # InfiniteBench's scorer and LaMPE's give the same answers other scores.
    cell = Cell("pocket", "original", "infinitebench", "longbook_choice_eng", 4096)
    rows = [_row("Q?", "B. seven, or C", ["seven", "B"]), _row("R?", "C", ["seven", "B"], id="1")]
    first = _own_run(tmp_path / "a", cell, rows)
    fields = BENCHES["infinitebench"].protocol("lampe").model_dump(mode="json")
    changes = _configuration(tmp_path / "b", cell) | {"protocols": {"infinitebench": fields}}
    run = synthetic_runs.store(tmp_path / "b", [], "lampe", **changes)
    run.save_cells({cell: 2})
    for row in rows:
        run.append(cell, {**row})  # type: ignore[typeddict-item]
    comparison = compared(first, tmp_path / "b")
    assert_parts_sum(comparison)
    (group,) = comparison.groups
    assert group.split.parts["answer"] == pytest.approx(0)
    assert group.split.parts["scorer"] == pytest.approx(group.split.difference)
    assert "protocol of infinitebench: scorer" in differing(comparison)


def _lm_eval_line(index: int, prompt: str, answer: str, score: float) -> str:
    arguments = {"until": ["\n"], "max_gen_toks": 32, "do_sample": True, "temperature": 0.7}
    document = {"question": f"Who is {index}?", "answers": ["Ilse"], "_id": f"a{index}"}
    line = {
        "doc_id": index,
        "doc": document | {"length": 9, "all_classes": None},
        "arguments": {"gen_args_0": {"arg_0": prompt, "arg_1": arguments}},
        "filtered_resps": [answer],
        "filter": "none",
        "metrics": ["qa_f1_score"],
        "qa_f1_score": score,
    }
    return json.dumps(line) + "\n"


def _lm_eval(folder: Path, lines: Sequence[str], results: Mapping[str, Any] | None = None) -> Path:
    folder.mkdir()
    path = folder / "samples_longbench_hotpotqa_2026-01-01T00-00-00.000000.jsonl"
    path.write_text("".join(lines))
    if results is not None:
        (folder / "results_2026-01-01T00-00-00.000000.json").write_text(json.dumps(results))
    return folder


RESULTS = {
    "results": {"longbench_hotpotqa": {"qa_f1_score,none": 0.5}},
    "configs": {"longbench_hotpotqa": {"doc_to_text": "{{context}}{{question}}", "num_fewshot": 0}},
    "config": {"model": "hf", "model_args": "pretrained=org/name,dtype=float16", "batch_size": 8},
    "chat_template": "{% for message in messages %}",
    "max_length": 4096,
    "lm_eval_version": "0.4.13",
}


def test_a_run_and_lm_eval(tmp_path: Path) -> None:
    cell = Cell("pocket", "original", "longbench", "hotpotqa", 4096)
    rows = [
        _row(
            f"<s>[INST]Long text. Who is {index}?\nAnswer:[/INST]",
            "Ilse",
            ["Ilse"],
            id=str(index),
            extras={"_id": f"a{index}", "length": 9, "all_classes": None},
        )
        for index in range(2)
    ]
    ours = _own_run(tmp_path / "ours", cell, rows)
    prompts = [rf"Who is {index}?\nAnswer:" for index in range(2)]
    lines = [_lm_eval_line(index, prompt, "Otto Ilse", 0.4) for index, prompt in enumerate(prompts)]
    comparison = compared(_lm_eval(tmp_path / "theirs", lines, RESULTS), ours)
    assert comparison.paired_by == {"question and reference": 2}
    assert_parts_sum(comparison)
    (group,) = comparison.groups
    parts = group.split.parts
    # lm-eval's stored score is lower than LongBench's own of the same answer, 2/3.
    assert parts["scorer"] == pytest.approx(40 - 200 / 3)
    assert parts["prompt"] == pytest.approx(200 / 3 - 100)
    lines_by_name = differing(comparison)
    expected = {
        "sampling": ("temperature 0.7", "greedy"),
        "dtype": ("float16", "bfloat16"),
        "begin of text": (NOT_STATED, "<s> once"),
        "chat template": ("none", "[INST]"),
        "line breaks": ("escaped", "as such"),
        "stops at": (r"'\n'", "end of text"),
        "batch size": ("8", "1"),
        "backend": ("hf", NOT_STATED),
        "versions": ("0.4.13", NOT_STATED),
        "max new tokens": ("32", NOT_STATED),
    }
    for name, values in expected.items():
        assert values[0] in lines_by_name[name].first, name
        assert values[1] in lines_by_name[name].second, name
    assert "max length" not in lines_by_name


def test_older_results_of_lm_eval_and_single_files(tmp_path: Path) -> None:
    line = json.loads(_lm_eval_line(0, "A text. Who is 0?", "Ilse", 1.0))
    line["arguments"] = [list(line["arguments"]["gen_args_0"].values())]
    older = _lm_eval(tmp_path / "older", [json.dumps(line)], RESULTS)
    newer = _lm_eval(tmp_path / "newer", [_lm_eval_line(0, "A text. Who is 0?", "Ilse", 1.0)])
    (results,), (samples,) = older.glob("results_*"), newer.glob("samples_*")
    comparison = compared(results, samples)
    assert comparison.paired_by == {"prompt hash": 1}
    assert all(line.second == NOT_STATED for line in differing(comparison).values())


def test_two_results_of_lm_eval_differ_in_every_setting(tmp_path: Path) -> None:
    prompts = ("A long text. Who is 0?", "text. Who is 0?")
    lines = [_lm_eval_line(0, prompt, "Ilse", 1.0) for prompt in prompts]
    first = _lm_eval(tmp_path / "a", lines[:1], RESULTS)
    second = _lm_eval(tmp_path / "b", lines[1:], {**RESULTS, "system_instruction": "Be brief."})
    names = differing(compared(first, second))
    assert set(names) == {"system_instruction", "truncation"}
    assert "left" in names["truncation"].second


@pytest.mark.parametrize(
    ("first", "second", "where"),
    [
        ("same start, A", "same start, B", "at character 13"),
        ("short", "short and long", "at character 6"),
        ("<s>text", "<s><s>text", "at character 4"),
        ("a\nb", r"a\nb", "at character 2"),
    ],
)
def test_the_first_difference_is_found(first: str, second: str, where: str) -> None:
    difference = text_difference(PromptText.of_text(first), PromptText.of_text(second))
    assert difference is not None
    assert difference.where == where


def test_equal_texts_and_other_tokenizers_begin_of_text_do_not_differ() -> None:
    text = PromptText.of_text("a prompt")
    assert text_difference(text, text) is None
    ours = PromptText("<s>a prompt", "<s>a prompt", whole=False, has_special_tokens=True)
    assert text_difference(ours, text) is None
    # What lies between a stored start and a stored end is not known.
    partial = PromptText("a pro", "mpt", whole=False, has_special_tokens=False)
    assert text_difference(partial, text) is None
    other_end = PromptText("a pro", "mpf", whole=False, has_special_tokens=False)
    assert text_difference(other_end, text) is not None


@pytest.mark.parametrize(
    ("shorter", "part"),
    [("cd efgh", "left"), ("ab cd", "right"), ("ab fgh", "middle"), ("xb fgh", ""), ("", "")],
)
def test_the_side_of_a_truncation_is_seen(shorter: str, part: str) -> None:
    longer = PromptText.of_text("ab cd efgh")
    assert removed_part(PromptText.of_text(shorter), longer) == part


def _empty_run(folder: Path) -> None:
    stored_runs.run(folder, {"original": {256: [None, None]}})


def _other_seed(folder: Path) -> None:
    cell = Cell("pocket", "original", "niah", "grid", 256)
    run = stored_runs.run(folder, {"original": {256: [True]}}, seed=7)
    run.append(cell, {**run.rows(cell)[0], "references": ["1"]})


def _two_methods(folder: Path) -> None:
    stored_runs.run(folder, {"pi": {256: [True]}, "yarn": {256: [True]}})


def _only_results(folder: Path) -> None:
    _lm_eval(folder, [], RESULTS)
    next(folder.glob("samples_*")).unlink()


def _two_models(folder: Path) -> None:
    for name in ("one", "two"):
        (folder / name).mkdir(parents=True)
        line = '{"pred": "x", "answers": ["y"], "length": 3, "all_classes": null}\n'
        (folder / name / "hotpotqa.jsonl").write_text(line)


def _named(name: str, content: str | bytes) -> Any:
    """Return a function that makes a folder with one file."""

    def make(folder: Path) -> None:
        folder.mkdir()
        (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)

    return make


def _foreign_files(folder: Path) -> None:
    folder.mkdir()
    (folder / "notes.jsonl").write_text('{"a": 1}\n')


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (_empty_run, "no scored sample"),
        (_other_seed, "seed"),
        (_two_methods, "--method"),
        (_only_results, "--log_samples"),
        (_two_models, "hotpotqa"),
        (_foreign_files, "lm-eval"),
        (_named("run.yaml", "config: ["), "run.yaml"),
        (_named("run.yaml", ""), "run.yaml"),
        (_named("hotpotqa.jsonl", b"\xff\x00"), r"hotpotqa.jsonl: cannot be read"),
        (_named("hotpotqa.jsonl", ""), "hotpotqa.jsonl"),
        (_named("hotpotqa.jsonl", '{"pred": "x", "answ'), "hotpotqa.jsonl:1"),
        (_named("hotpotqa.jsonl", '{"pred": "x"}'), "hotpotqa.jsonl:1.*answers"),
        (_named("samples_ruler_vt_2026-01-01T00-00-00.0.jsonl", '{"doc'), "jsonl:1"),
        (_named("samples_ruler_vt_2026-01-01T00-00-00.0.jsonl", '{"a": 1}'), "doc_id"),
        (_named("nq.json", '{"data": ['), "nq.json"),
        (_named("nq.json", '{"data": [3], "averaged_metrics": {"f1": 1}}'), "data"),
        (_named("predictions.csv", "a,b\n1,2\n"), "predicted_answer"),
        (_named("ruler_vt_4k.json", '{"0": {"prediction": 3, "gold": null}}'), "row 0"),
        (lambda folder: folder.mkdir(), "lm-eval"),
        (lambda _: None, "no such"),
    ],
)
def test_what_cannot_be_compared_is_said(make: Any, named: str, tmp_path: Path) -> None:
    stored_runs.run(tmp_path / "a", {"original": {256: [True]}})
    make(tmp_path / "b")
    with pytest.raises(UserError, match=named) as error:
        compare(tmp_path / "a", tmp_path / "b", (), (), "", None, None)
    assert str(tmp_path / "b") in str(error.value)


def test_a_file_is_not_blamed_for_its_neighbour(tmp_path: Path) -> None:
    stored_runs.run(tmp_path / "a", {"original": {256: [True]}})
    _named("nq.json", '{"data": [')(tmp_path / "b")
    (tmp_path / "b" / "notes.txt").write_text("x")
    with pytest.raises(UserError, match=r"notes.txt: holds neither"):
        compare(tmp_path / "a", tmp_path / "b" / "notes.txt", (), (), "", None, None)


def test_a_result_is_not_compared_with_itself(tmp_path: Path) -> None:
    stored_runs.run(tmp_path / "a", {"original": {256: [True]}})
    (tmp_path / "b").symlink_to(tmp_path / "a")
    with pytest.raises(UserError, match="--method"):
        compare(tmp_path / "a", tmp_path / "b", (), (), "", None, None)


def test_a_missing_cell_is_named(tmp_path: Path) -> None:
    stored_runs.run(tmp_path / "a", {"original": {256: [True]}})
    with pytest.raises(UserError, match=r"--method other.*original"):
        compare(tmp_path / "a", tmp_path / "a", ["other"], (), "", None, None)
    with pytest.raises(UserError, match="--method"):
        compare(tmp_path / "a", tmp_path / "a", ["x", "y", "z"], (), "", None, None)


@needs_shared
def test_lm_eval_against_our_run_of_the_same_rows(tmp_path: Path) -> None:
    # One prompt and answer as theirs, and one of ours.
    (path,) = (FORMATS / "lm_eval").glob("samples_longbench_hotpotqa_*")
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines():
        record = json.loads(line)
        prompt = record["arguments"]["gen_args_0"]["arg_0"]
        document = record["doc"]
        keys = ("_id", "length", "all_classes")
        rows.append(
            _row(
                f"<s>{prompt}",
                record["filtered_resps"][0],
                document["answers"],
                id=str(record["doc_id"]),
                extras={key: document[key] for key in keys},
            )
        )
    rows[1] = {**rows[1], "prediction": "Ilse", "prompt_end": "another end"}
    cell = Cell("pocket", "original", "longbench", "hotpotqa", 4096)
    ours = _own_run(tmp_path / "ours", cell, rows)
    comparison = compared(FORMATS / "lm_eval", ours)
    assert comparison.paired_by == {"question and reference": 2}
    (group,) = comparison.groups
    assert_parts_sum(comparison)
    assert group.split.first.value == pytest.approx(45)
    assert group.split.second.value == pytest.approx(70)
    parts = group.split.parts
    assert parts["scorer"] == pytest.approx(0)
    assert parts["prompt or answer"] == pytest.approx(0)
    assert parts["prompt"] == pytest.approx(-25)
    assert "sampling" not in differing(comparison)
    assert differing(comparison)["begin of text"].second.startswith("<s> once")


@needs_shared
@pytest.mark.parametrize("family", ["helmet", "kvpress", "lm_eval", "opencompass"])
def test_each_harness_is_like_itself(family: str) -> None:
    comparison = compared(FORMATS / family, FORMATS / family)
    assert len(comparison.pairs) == len(comparison.first.samples)
    assert not differing(comparison)
    for group in comparison.groups:
        assert group.split.difference == pytest.approx(0)


@needs_shared
def test_two_published_prediction_folders() -> None:
    folder = SHARED / "longbench"
    names = ("preds_LongAlpaca-7B-16k", "preds_llama2-7b-chat-4k")
    comparison = compared(*(folder / name for name in names), task="hotpotqa")
    assert comparison.paired_by == {"reference and length of the text": 200}
    (group,) = comparison.groups
    published = [json.loads((folder / name / "result.json").read_text()) for name in names]
    scores = [result["hotpotqa"] for result in published]
    assert [group.split.first.value, group.split.second.value] == pytest.approx(scores, abs=0.005)
    assert_parts_sum(comparison)
    assert group.test is not None
    test = group.test
    assert test.interval is not None
    low, high = test.interval
    assert 0 < low < test.difference < high
    assert "model" in differing(comparison)
