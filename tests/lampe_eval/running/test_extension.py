"""Extended runs: what is only more is added, what would change stored cells is refused by name."""

import datetime
import itertools
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from lampe_eval.benches import BENCHES, find_tasks
from lampe_eval.benches.bench import SampleRequest
from lampe_eval.commands.dry_run import dry_run_suite
from lampe_eval.commands.run import run_suite
from lampe_eval.commands.validate import validate_suite
from lampe_eval.errors import UserError
from lampe_eval.pocket import WEIGHTS
from lampe_eval.results.cell_scores import score_run
from lampe_eval.run_description import run_date
from lampe_eval.running.extension import extended
from lampe_eval.store import Cell, Store
from tests.lampe_eval.running.engine_faults import fault_at_answer
from tests.lampe_eval.stored_runs import configuration

Pocket = tuple[PreTrainedModel, PreTrainedTokenizerBase]
COSTS = ("seconds", "prefill_seconds", "decode_seconds", "peak_memory_bytes")
CARD = {"version": 1, "samples": 10}
STORED = configuration(
    methods={"lampe": {"pocket": {"head_tokens": 3}}},
    protocols={"niah": {"chat": "template"}},
    tasks={"niah/single": CARD},
    files={"niah/run.py": "sha256:1"},
    lengths={"pocket": {"niah": [512]}},
    limit=4,
    plugins={"my.py": "sha256:2"},
)
MODEL = STORED["models"]["pocket"]


def _stored(folder: Path, config: dict[str, Any]) -> Path:
    """Store a run with one sample."""
    store = Store.create(folder, config, {})
    cell = Cell("pocket", "lampe", "niah", "single", 512)
    store.append(cell, {"id": "a", "length": 512, "prompt_sha256": "0", "prompt_tokens": 9})
    return folder


@pytest.mark.parametrize(
    ("field", "now", "together"),
    [
        ("models", {"other": MODEL}, {"pocket": MODEL, "other": MODEL}),
        ("methods", {"pi": {"pocket": {}}}, {**STORED["methods"], "pi": {"pocket": {}}}),
        (
            "methods",
            {"lampe": {"other": {"head_tokens": 9}}},
            {"lampe": {"pocket": {"head_tokens": 3}, "other": {"head_tokens": 9}}},
        ),
        ("tasks", {"niah/grid": CARD}, {"niah/single": CARD, "niah/grid": CARD}),
        ("protocols", {"ppl": {}}, {"niah": {"chat": "template"}, "ppl": {}}),
        ("files", {}, STORED["files"]),
        ("files", {"ruler/x": "3"}, {**STORED["files"], "ruler/x": "3"}),
        ("plugins", {"b.py": "sha256:3"}, {**STORED["plugins"], "b.py": "sha256:3"}),
        ("lengths", {"pocket": {"niah": [1024, 256]}}, {"pocket": {"niah": [1024, 512, 256]}}),
        ("lengths", {"pocket": {"ppl": [512]}}, {"pocket": {"niah": [512], "ppl": [512]}}),
        ("limit", 5, 5),
        ("limit", None, None),
        # no stored task reads this text
        ("text", "own.txt sha256:4", "own.txt sha256:4"),
    ],
)
def test_what_is_only_more_is_added(tmp_path: Path, field: str, now: Any, together: Any) -> None:
    merged = extended(_stored(tmp_path, STORED), {**STORED, field: now})
    assert merged == {**STORED, field: together}


@pytest.mark.parametrize(
    ("field", "now", "named"),
    [
        ("seed", 1, r"--seed was 0, now 1"),
        ("protocol", "official", r"--protocol was fair, now official"),
        ("haystack", "own.txt sha256:4", r"--haystack was not given, now own.txt"),
        ("attention", "eager", r"--attention was auto, now eager"),
        ("device", "cuda", r"--device was cpu, now cuda"),
        ("max_batch_tokens", 7, r"--max-batch-tokens was not given, now 7"),
        ("limit", 3, r"--limit was 4, now 3"),
        ("models", {"pocket": {**MODEL, "fingerprint": "x"}}, r"pocket fingerprint was .*now x"),
        ("models", {"pocket": {**MODEL, "window": 8}}, r"pocket window was 256, now 8"),
        ("models", {"pocket": {**MODEL, "dtype": "float16"}}, r"dtype was float32, now float16"),
        (
            "methods",
            {"lampe": {"pocket": {"head_tokens": 4}}},
            r"--method lampe pocket head_tokens was 3, now 4",
        ),
        (
            "methods",
            {"lampe": {"pocket": {f"m{i}": 1 for i in range(9)}}},
            r"was head_tokens, now \.\.\., m0, m1, ",
        ),
        ("protocols", {"niah": {"chat": "none"}}, r"niah chat was template, now none"),
        ("tasks", {"niah/single": {**CARD, "version": 2}}, r"--bench niah/single version was 1"),
        ("files", {"niah/run.py": "sha256:9"}, r"files niah/run.py was sha256:1, now sha256:9"),
        ("plugins", {"my.py": "sha256:9"}, r"--plugin my.py was sha256:2, now sha256:9"),
    ],
)
def test_what_would_change_stored_cells_is_refused(
    tmp_path: Path, field: str, now: Any, named: str
) -> None:
    folder = _stored(tmp_path, STORED)
    before = (folder / "run.yaml").read_bytes()
    with pytest.raises(UserError, match=rf"{named}.*--output"):
        extended(folder, {**STORED, field: now})
    assert (folder / "run.yaml").read_bytes() == before


def test_a_bench_that_is_unknown_here_is_named(tmp_path: Path) -> None:
    folder = _stored(tmp_path, {**STORED, "protocols": {"niah": {}, "words": {}}})
    with pytest.raises(UserError, match=r"'words'.*--plugin"):
        extended(folder, STORED)


def test_a_session_without_the_stored_benches_keeps_their_text(tmp_path: Path) -> None:
    folder = _stored(tmp_path, {**STORED, "haystack": "own.txt sha256:4"})
    merged = extended(folder, {**STORED, "protocols": {"ppl": {}}, "text": "b.txt sha256:5"})
    assert (merged["haystack"], merged["text"]) == ("own.txt sha256:4", "b.txt sha256:5")


@pytest.fixture
def loaded(pocket: Pocket, monkeypatch: pytest.MonkeyPatch) -> None:
    """Load the model once for all tests."""
    monkeypatch.setattr("lampe_eval.models.load_model", lambda *_: pocket)


SMALL: dict[str, Any] = {"method": "original", "bench": "niah/single", "lengths": "256", "limit": 2}


def _run(folder: Path, **options: Any) -> int:
    return run_suite(validate_suite(None, {**SMALL, "output": folder, **options}))


def _records(folder: Path) -> dict[Cell, list[dict[str, Any]]]:
    """Return the records of a run, as they are stored but for what they cost."""
    store = Store(folder)
    records: dict[Cell, list[dict[str, Any]]] = {}
    for cell in store.cells():
        records[cell] = [{**row, **dict.fromkeys(COSTS)} for row in store.rows(cell)]
    return records


@pytest.mark.usefixtures("loaded")
def test_an_extended_run_equals_one_made_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = {"method": "original,pi", "bench": "niah/single,ppl", "lengths": "256,384"}
    _run(tmp_path / "whole", **whole)
    _run(tmp_path / "run", limit=1)
    _run(tmp_path / "run", method="pi", lengths="384", limit=1)
    assert len(_records(tmp_path / "run")) == 2

    def kill() -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        fault_at_answer(patch, 2, kill)
        with pytest.raises(KeyboardInterrupt):
            _run(tmp_path / "run", **whole)
    _run(tmp_path / "run", **whole)
    assert _records(tmp_path / "run") == _records(tmp_path / "whole")
    for name in ("scores.csv", "cells.jsonl"):
        assert (tmp_path / "run" / name).read_text() == (tmp_path / "whole" / name).read_text()
    history = yaml.safe_load((tmp_path / "run" / "run.yaml").read_text())["history"]
    assert [entry["added"]["cells"] for entry in history] == [1, 1, 6]
    assert [entry["added"].get("limit") for entry in history] == [1, None, 2]
    assert history[1]["options"]["method"] == ["pi"]
    assert (history[1]["added"]["methods"], history[1]["added"]["lengths"]) == (["pi"], [384])


@pytest.mark.usefixtures("loaded")
def test_a_larger_limit_keeps_the_records_of_smaller_batches(tmp_path: Path) -> None:
    _run(tmp_path, max_batch_tokens=600)
    (before,) = _records(tmp_path).values()
    _run(tmp_path, max_batch_tokens=600, limit=3)
    (after,) = _records(tmp_path).values()
    assert [row for row in after if row in before] == before
    assert [row["batch_size"] for row in after] == [2, 2, 1]


@pytest.mark.usefixtures("loaded")
def test_nothing_stored_is_lost_by_a_session_with_less(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _run(tmp_path, method="original,pi", lengths="256,512")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    printed = capsys.readouterr().out
    assert _run(tmp_path, method="pi") == 0
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    again = capsys.readouterr()
    assert again.out == printed
    assert "2 of 2 samples" in again.err


@pytest.mark.usefixtures("loaded")
def test_cells_that_a_larger_limit_leaves_out_lack_samples(tmp_path: Path) -> None:
    _run(tmp_path, method="original,pi")
    assert _run(tmp_path, method="pi", limit=4) == 0
    scores = score_run(Store(tmp_path)).scores
    assert list(scores[["method", "n", "missing"]].itertuples(index=False, name=None)) == [
        ("original", 2, 2),
        ("pi", 4, 0),
    ]


@pytest.mark.usefixtures("loaded")
@pytest.mark.parametrize("removed", ["run.yaml", "cells.jsonl", ".lock", "samples", "run.log", "."])
def test_a_run_survives_the_removal_of_its_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, removed: str
) -> None:
    folder = tmp_path / "run"

    def remove() -> None:
        path = folder / removed
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)

    with monkeypatch.context() as patch:
        fault_at_answer(patch, 2, remove)
        code = _run(folder)
    is_lost = removed in ("samples", ".")
    assert code == int(is_lost)
    assert _run(folder) == 0
    assert [len(rows) for rows in _records(folder).values()] == [2]


def test_a_change_is_refused_without_torch(tmp_path: Path) -> None:
    _stored(tmp_path, STORED)
    script = (
        "import sys; from lampe_eval.cli import app\n"
        "from lampe_eval.errors import UserError\n"
        "try: app(standalone_mode=False)\n"
        "except UserError as error: print(error)\n"
        "assert 'torch' not in sys.modules"
    )
    arguments = ["run", "--output", str(tmp_path), "--bench", "niah/single"]
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=True
    )
    assert "--model pocket fingerprint was sha256:0, now sha256:" in done.stdout


@pytest.mark.usefixtures("loaded")
@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"seed": 1}, "--seed"),
        ({"dtype": "float16"}, "dtype"),
        ({"window": 128}, "window"),
        ({"haystack": "{folder}/own.txt"}, "--haystack"),
        ({"device": "cuda:1"}, "--device"),
        ({"limit": 1}, "--limit"),
        ({"model": "{folder}/pocket"}, "fingerprint"),
    ],
)
def test_a_change_is_refused_before_a_model_is_described(
    tmp_path: Path, options: dict[str, Any], named: str
) -> None:
    _run(tmp_path / "run")
    (tmp_path / "own.txt").write_text("The grass grows. " * 200)
    shutil.copytree(WEIGHTS, tmp_path / "pocket")
    (tmp_path / "pocket" / "model.safetensors").write_bytes(b"other")
    given = {
        key: value.format(folder=tmp_path) if isinstance(value, str) else value
        for key, value in options.items()
    }
    with pytest.raises(UserError, match=rf"{named}.* was .*--output"):
        validate_suite(None, {**SMALL, "output": tmp_path / "run", **given})


@pytest.mark.parametrize("task", ["niah/single", "niah/grid", "ppl/exact", "ppl/dense", "ruler/vt"])
def test_a_larger_limit_has_the_samples_of_a_smaller_one(pocket: Pocket, task: str) -> None:
    (found,) = find_tasks([task])
    bench = BENCHES[found.bench]
    drawn: list[dict[str, list[int]]] = []
    for limit in (1, 2, 3, 7):
        request = SampleRequest(pocket[1], 2048, limit, bench.protocol("fair"))
        drawn.append({sample.id: list(sample.ids) for sample in bench.samples(found, request)})
    for fewer, more in itertools.pairwise(drawn):
        assert fewer.items() <= more.items()


def test_a_stored_sample_that_a_larger_limit_does_not_have_is_named(
    tmp_path: Path, loaded: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    _run(tmp_path)
    draw = BENCHES["niah"].samples
    monkeypatch.setattr(
        BENCHES["niah"], "samples", lambda *request: list(draw(*request))[1:], raising=False
    )
    with pytest.raises(UserError, match=r"niah/single at 256: sample 256/0/0 is stored.*--output"):
        _run(tmp_path, limit=4)


DATED = (
    "Today is {{ strftime_now('%d %b %Y') }}. {% for m in messages %}{{ m['content'] }}{% endfor %}"
)


@pytest.mark.usefixtures("loaded")
def test_the_date_of_a_run_stays_that_of_its_first_session(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def load_tokenizer(*_: Any) -> PreTrainedTokenizerBase:
        tokenizer = AutoTokenizer.from_pretrained(WEIGHTS)
        tokenizer.chat_template = DATED
        return tokenizer  # type: ignore[no-any-return]

    monkeypatch.setattr("lampe_eval.models.load_tokenizer", load_tokenizer)
    date = datetime.date(2024, 7, 3)
    with monkeypatch.context() as patch:
        patch.setattr("lampe_eval.running.runner.run_date", lambda folder, default: date)
        _run(tmp_path)
    before = _records(tmp_path)
    _run(tmp_path, limit=3)
    (rows,) = _records(tmp_path).values()
    assert [rows[:2]] == list(before.values())
    assert all("03 Jul 2024" in row["prompt_start"] for row in rows)
    capsys.readouterr()
    dry_run_suite(validate_suite(None, {**SMALL, "output": tmp_path, "limit": 3}))
    assert "03 Jul 2024" in capsys.readouterr().out
    assert yaml.safe_load((tmp_path / "run.yaml").read_text())["date"] == date
    today = datetime.datetime.now().astimezone().date()
    assert today <= run_date(tmp_path / "new") <= today + datetime.timedelta(days=1)


@pytest.mark.usefixtures("loaded")
def test_a_run_records_the_reference_before_it_has_results(tmp_path: Path) -> None:
    folder = tmp_path / "run"

    def recorded() -> str | None:
        return Store(folder).reference

    _run(folder, method="pi,lampe:mapping_length=128", limit=1)
    assert recorded() == "pi"
    _run(folder, method="original", limit=1)  # a later `original` does not replace it
    assert recorded() == "pi"
    before = (folder / "run.yaml").read_bytes()
    with pytest.raises(UserError, match="--reference") as refused:
        _run(folder, method="original", reference="yarn", limit=1)
    assert "one of: pi, lampe:mapping_length=128, original" in str(refused.value)
    assert (folder / "run.yaml").read_bytes() == before
    _run(folder, method="original", reference="lampe", limit=1)  # of an earlier session
    assert recorded() == "lampe:mapping_length=128"
    pairs = pd.read_csv(folder / "pairs.csv")
    assert set(pairs["reference"]) == {"lampe:mapping_length=128"}


def test_an_older_run_without_a_reference_is_read(tmp_path: Path) -> None:
    assert Store(_stored(tmp_path, STORED)).reference is None
