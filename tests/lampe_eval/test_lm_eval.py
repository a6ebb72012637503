"""lm-evaluation-harness both ways: patched models in it, and its tasks in our runs."""

import csv
import importlib.util
import json
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import lampe
from lampe_eval.benches import find_tasks
from lampe_eval.benches.bench import ScoredText
from lampe_eval.checkpoint_files import find_model
from lampe_eval.cli import main
from lampe_eval.engine.local_engine import LocalEngine
from lampe_eval.errors import UserError
from lampe_eval.lm_eval_tasks import loading, metrics
from lampe_eval.models import describe_model, load_model

needs_lm_eval = pytest.mark.skipif(
    importlib.util.find_spec("lm_eval") is None, reason="lm_eval is not installed"
)
# Of the libraries that the harness imports.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")

WORDS = "red blue green small large cat dog tree house river stone light dark day night".split()
WORD_COUNTS = (5, 150, 7, 210, 40)
"""Words of each question: within and beyond the window of 256 tokens."""
TASKS = {
    "toy_choice": "output_type: multiple_choice\ndoc_to_text: '{{question}}'\n"
    "doc_to_choice: '{{choices}}'\ndoc_to_target: gold\nnum_fewshot: 1\nfewshot_split: test\n"
    "metric_list:\n  - metric: acc\n  - metric: acc_norm\n",
    "toy_generate": "output_type: generate_until\ndoc_to_text: '{{question}}'\n"
    "doc_to_target: answer\ngeneration_kwargs:\n  until: [' the']\n  max_gen_toks: 12\n"
    "metric_list:\n  - metric: exact_match\n",
    "toy_last_words": "output_type: loglikelihood\ndoc_to_text: '{{question}}'\n"
    "doc_to_target: ' {{answer}}'\nmetric_list:\n  - metric: perplexity\n"
    "    aggregation: perplexity\n    higher_is_better: false\n  - metric: acc\n"
    "    aggregation: mean\n    higher_is_better: true\n",
    "toy_rolling": "output_type: loglikelihood_rolling\ndoc_to_text: ''\n"
    "doc_to_target: '{{question}} {{question}} {{question}}'\nmetric_list:\n"
    "  - metric: word_perplexity\n  - metric: bits_per_byte\n",
}
"""Keys of each task's YAML file that are its own."""


def _words(rng: random.Random, count: int) -> str:
    return " ".join(rng.choice(WORDS) for _ in range(count))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with YAML files of tasks, whose data are in a JSON file."""
    path = tmp_path_factory.mktemp("tasks")
    rng = random.Random(7)
    rows: list[dict[str, Any]] = []
    for number, count in enumerate(WORD_COUNTS):
        choices = [_words(rng, 1), _words(rng, 3), _words(rng, 1)]
        gold = number % 3
        row = {"question": _words(rng, count), "choices": choices, "gold": gold}
        rows.append({**row, "answer": choices[gold]})
    data = path / "data.json"
    data.write_text(json.dumps(rows))
    source = (
        f"dataset_path: json\ndataset_kwargs:\n  data_files:\n    test: {data}\n"
        f"  cache_dir: {path / 'cache'}\ntest_split: test\nmetadata:\n  version: 1.0\n"
    )
    for name, text in TASKS.items():
        (path / f"{name}.yaml").write_text(f"task: {name}\n{source}{text}")
    return path


@pytest.fixture(scope="module")
def engine() -> Iterator[LocalEngine]:
    source = describe_model(*find_model("pocket"))
    engine = LocalEngine(*load_model(source, "cpu"))
    with engine.patched(lampe.method_of("lampe"), source.geometry.window, "auto"):
        yield engine


def _run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """Return the exit code of a command."""
    monkeypatch.setattr(sys, "argv", ["lampe-eval", *arguments])
    with pytest.raises(SystemExit) as stopped:
        main()
    return int(stopped.value.code or 0)


def _rows(output: Path) -> dict[str, list[dict[str, Any]]]:
    """Return the stored samples of a run by task, in the order of the data."""
    found: dict[str, list[dict[str, Any]]] = {}
    for path in sorted((output / "samples").rglob("*.jsonl")):
        for line in path.read_text().splitlines():
            row = json.loads(line)
            found.setdefault(row["cell"].split()[-1].rpartition("/")[2], []).append(row)
    return {
        task: sorted(rows, key=lambda row: int(row["id"].partition("/")[2]))
        for task, rows in found.items()
    }


# Without the harness.


def test_loglikelihoods_are_those_of_each_text_alone(engine: LocalEngine) -> None:
    rng = random.Random(1)
    ids = [rng.randrange(5, 90) for _ in range(300)]
    texts = [ScoredText(ids, 7), ScoredText([*ids[:40], 9], 1), ScoredText([*ids[:40], 8], 1)]
    for text, (found, greedy) in zip(texts, engine.loglikelihoods(texts), strict=True):
        with torch.no_grad():
            logits = engine.model(torch.tensor([text.ids[:-1]])).logits[0]
        log_probabilities = logits[-text.scored_tokens :].double().log_softmax(-1)
        targets = torch.tensor(text.ids[-text.scored_tokens :])
        expected = float(log_probabilities.gather(1, targets[:, None]).sum())
        assert found == pytest.approx(expected, abs=1e-4)
        assert greedy == bool((log_probabilities.argmax(-1) == targets).all())


def test_answers_end_before_a_stop_string(engine: LocalEngine) -> None:
    from lampe_eval.benches.bench import Prompt

    ids = engine.tokenizer("Long ago").input_ids
    free = Prompt("0", ids, 20, None)
    (whole,) = engine.answer([free])
    stop = whole.text[6:9]
    (cut,) = engine.answer([Prompt("0", ids, 20, None, stop_strings=(stop,))])
    assert cut.text == whole.text.partition(stop)[0]
    assert cut.tokens < whole.tokens


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (lambda values: sum(values) / len(values), "mean"),
        (lambda values: sorted(values)[len(values) // 2], None),
        (lambda pairs: sum(a == b for a, b in pairs), None),
    ],
)
def test_an_aggregation_is_known_by_what_it_does(function: Any, expected: str | None) -> None:
    assert metrics.aggregation_of(function) == expected


def test_metrics_of_a_cell() -> None:
    rows = [
        {"acc": 1.0, "word_perplexity": [-6.0, 3], "bleu": 20.0, "f1": [1, 0]},
        {"acc": 0.0, "word_perplexity": [-2.0, 1], "bleu": 40.0, "f1": [1, 1]},
    ]
    aggregations: Any = {"word_perplexity": "weighted_perplexity", "f1": None}
    found = metrics.estimates(aggregations, rows)
    assert {name: estimate.value for name, estimate in found.items()} == {
        "acc": 50.0,
        "word_perplexity": pytest.approx(7.389056),
    }
    assert metrics.other_means(aggregations, rows) == {"bleu": 30.0}


@pytest.mark.parametrize("arguments", [["run", "--bench", "lm-eval/x"], ["lm-eval", "ls"]])
def test_a_missing_harness_names_the_extra(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    monkeypatch.setattr("lampe_eval.lm_eval_tasks.package.find_spec", lambda name: None)
    loading._harness_index.cache_clear()
    assert _run(monkeypatch, *arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "lampe-eval[lm-eval]" in line


def test_a_bench_without_a_task() -> None:
    with pytest.raises(UserError, match="lm-eval/"):
        find_tasks(("lm-eval",))


# With it.


@needs_lm_eval
def test_names_after_a_task_are_tasks_too_unless_they_are_benches(folder: Path) -> None:
    names = [f"{folder}/{name}.yaml" for name in TASKS]
    found = find_tasks((f"lm-eval/{names[0]}", *names[1:], "ppl/exact"))
    assert [task.full_name for task in found] == [
        "lm-eval/toy_choice",
        "lm-eval/toy_generate",
        "lm-eval/toy_last_words",
        "lm-eval-ppl/toy_rolling",
        "ppl/exact",
    ]
    metrics_by_task = [task.card.metric for task in found[:4]]
    assert metrics_by_task == ["acc", "exact_match", "acc", "word_perplexity"]


@needs_lm_eval
class TestModel:
    """Tests of the model `lampe` in the harness."""

    @pytest.fixture(scope="class")
    def models(self) -> dict[int, Any]:
        from lampe_eval.integrations.lm_eval_model import LampeLM

        options = {"pretrained": "pocket", "method": "lampe", "mapping_length": 100}
        return {size: LampeLM(**options, device="cpu", batch_size=size) for size in (1, 8)}

    @pytest.fixture(scope="class")
    def results(self, models: dict[int, Any], folder: Path) -> dict[int, Any]:
        from lm_eval import simple_evaluate
        from lm_eval.tasks import TaskManager

        manager = TaskManager(include_path=str(folder), include_defaults=False)
        return {
            size: simple_evaluate(
                model=model, tasks=list(TASKS), task_manager=manager, bootstrap_iters=0
            )
            for size, model in models.items()
        }

    @pytest.mark.parametrize("task", TASKS)
    def test_batch_sizes_give_the_same_answers(self, results: dict[int, Any], task: str) -> None:
        alone, together = (
            [row["resps"] for row in results[size]["samples"][task]] for size in (1, 8)
        )
        assert len(alone) == len(WORD_COUNTS)
        if task == "toy_generate":
            assert alone == together
        for one, other in zip(_numbers(alone), _numbers(together), strict=True):
            assert one == pytest.approx(other, abs=1e-3)

    def test_log_likelihoods_are_those_of_a_patched_model(self, models: dict[int, Any]) -> None:
        """Rows of any length, also with tokens at their end that pad elsewhere."""
        rng = random.Random(3)
        lengths = (300, 12, 290, 12, 40)
        ids = [[rng.randrange(5, 90) for _ in range(length)] for length in lengths]
        pad = models[8].tokenizer.pad_token_id
        requests = [(None, row, [9, 0, pad, 0, pad]) for row in ids]
        found = models[8]._loglikelihood_tokens(requests, disable_tqdm=True)
        for (_, context, continuation), (value, _) in zip(requests, found, strict=True):
            whole = torch.tensor([context + continuation])
            model = models[1].model
            with torch.no_grad():
                logits = model(whole[:, :-1], attention_mask=torch.ones_like(whole[:, :-1])).logits
            log_probabilities = logits[0, -5:].log_softmax(-1)
            expected = log_probabilities.gather(1, whole[0, -5:, None]).sum()
            assert value == pytest.approx(float(expected), abs=1e-3)

    def test_prompts_beyond_the_window_are_not_cut(self, models: dict[int, Any]) -> None:
        assert models[1].max_length == 4 * 256

    @pytest.mark.parametrize(
        ("options", "named"),
        [
            ({"pretrained": "poket"}, "pocket"),
            ({"method": "lamp"}, "lampe"),
            ({"mapping_lenght": 3}, "mapping_lenght"),
            ({"method": "lampe,yarn"}, "lampe,yarn"),
            ({"max_length": "long"}, "long"),
            ({"peft": "adapter"}, "peft"),
        ],
    )
    def test_wrong_arguments(self, options: dict[str, Any], named: str) -> None:
        from lampe_eval.integrations.lm_eval_model import LampeLM

        with pytest.raises(UserError, match=named):
            LampeLM(**{"device": "cpu", **options})

    def test_a_run_has_the_answers_and_metrics_of_the_harness(
        self,
        results: dict[int, Any],
        folder: Path,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        output = tmp_path / "run"
        bench = "lm-eval/" + ",".join(f"{folder}/{name}.yaml" for name in TASKS)
        command = ["run", "--method", "lampe:mapping_length=100", "--bench", bench]
        command += ["--protocol", "official", "--output", str(output)]
        assert _run(monkeypatch, *command, "--limit", "2") == 0
        # The second session goes on from the first.
        assert _run(monkeypatch, *command, "--limit", str(len(WORD_COUNTS))) == 0
        rows = _rows(output)
        for task in TASKS:
            expected = results[1]["samples"][task]
            for row, sample in zip(rows[task], expected, strict=True):
                assert row["metrics"].keys() == set(sample["metrics"])
                for name, value in row["metrics"].items():
                    assert value == pytest.approx(sample[name], abs=1e-3), (task, name)
            if task == "toy_generate":
                assert [row["prediction"] for row in rows[task]] == [
                    sample["resps"][0][0] for sample in expected
                ]
        scores = (output / "scores.csv").read_bytes()
        by_task = {row["task"]: row for row in csv.DictReader(scores.decode().splitlines())}
        of_harness = results[1]["results"]
        for task in ("toy_choice", "toy_generate", "toy_last_words"):
            name = by_task[task]["metric"]
            share = float(by_task[task]["score"]) / 100
            assert share == pytest.approx(of_harness[task][f"{name},none"])
        perplexity = of_harness["toy_rolling"]["word_perplexity,none"]
        assert float(by_task["toy_rolling"]["score"]) == pytest.approx(perplexity, rel=1e-4)
        # A report needs neither the harness nor its data.
        monkeypatch.setattr("lampe_eval.lm_eval_tasks.package.find_spec", lambda name: None)
        assert _run(monkeypatch, "report", str(output)) == 0
        assert (output / "scores.csv").read_bytes() == scores


def _numbers(value: Any) -> list[float]:
    """Return the numbers in nested lists."""
    if isinstance(value, list | tuple):
        return [number for each in value for number in _numbers(each)]
    return [] if isinstance(value, str) else [float(value)]


@needs_lm_eval
@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"  - metric: acc\n  - metric: acc_norm\n": "  - metric: mcc\n"}, "mcc"),
        ({"data.json": "missing.json"}, "missing.json"),
        ({"task: toy_choice\n": ""}, "no key task"),
        ({"task: toy_choice\n": "task: [\n"}, "toy"),
    ],
)
def test_a_task_that_cannot_run(
    folder: Path, tmp_path: Path, changes: dict[str, str], named: str
) -> None:
    text = (folder / "toy_choice.yaml").read_text()
    for old, new in changes.items():
        assert old in text
        text = text.replace(old, new)
    path = tmp_path / "toy.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=named):
        find_tasks((f"lm-eval/{path}",))


@needs_lm_eval
def test_a_task_that_samples_is_refused_before_the_run(
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    text = (folder / "toy_generate.yaml").read_text()
    path = tmp_path / "toy.yaml"
    path.write_text(text.replace("max_gen_toks", "do_sample: true\n  max_gen_toks"))
    output = tmp_path / "run"
    assert _run(monkeypatch, "run", "--bench", f"lm-eval/{path}", "--output", str(output)) == 2
    assert "do_sample" in capsys.readouterr().err.splitlines()[-1]
    assert not output.exists()


def test_a_file_that_does_not_exist() -> None:
    with pytest.raises(UserError, match="no such file"):
        find_tasks(("lm-eval/missing.yaml",))
