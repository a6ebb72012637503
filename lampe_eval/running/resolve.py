"""Names of a suite, looked up without importing torch: a typing mistake is reported at once."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from lampe.backend_names import AUTO
from lampe.methods import ENTRY_POINTS as METHOD_ENTRY_POINTS
from lampe_eval import assets
from lampe_eval.benches import BENCHES, find_tasks
from lampe_eval.benches import ENTRY_POINTS as BENCH_ENTRY_POINTS
from lampe_eval.benches.bench import Task
from lampe_eval.cards import ModelCard, shipped_names
from lampe_eval.checkpoint_files import find_model, gguf_file
from lampe_eval.errors import UserError
from lampe_eval.method_specs import MethodSpec, parse_methods
from lampe_eval.plugins import load_plugins, package_versions
from lampe_eval.prompts.protocol import Protocol
from lampe_eval.running.stopping_rule import check_stopping
from lampe_eval.suite import Suite
from lampe_eval.texts import documents
from lampe_eval.texts.corpora import find_corpus


@dataclass(frozen=True)
class ResolvedSuite:
    """Suite with what its names mean.

    Attributes:
        suite: the suite as the user wrote it.
        model_cards: card of each model by the name that tables use.
        specs: methods, in the order of the tables.
        tasks: tasks, in the order of the tables.
        protocols: the protocol of each benchmark by the benchmark's name.
        plugins: sha256 of each plug-in by the name of its file, and version of each package whose
            entry points define a method or a benchmark of the suite, by the package's name.
    """

    suite: Suite
    model_cards: Mapping[str, ModelCard]
    specs: list[MethodSpec]
    tasks: list[Task]
    protocols: Mapping[str, Protocol]
    plugins: Mapping[str, str]


def resolve_suite(suite: Suite) -> ResolvedSuite:
    """Look up every name of a suite, once for the whole run.

    Raises:
        UserError: for the first name that does not exist, and for options that do not go together.
    """
    # Plug-ins define names, so they come before every look-up.
    plugin_files = load_plugins(suite.plugin)
    specs = resolve_methods(suite.method)
    if not specs:
        raise UserError("--method: no method given; see: lampe-eval list methods")
    tasks = find_tasks(suite.bench)
    protocols = {task.bench: BENCHES[task.bench].protocol(suite.protocol_label) for task in tasks}
    model_cards: dict[str, ModelCard] = {}
    if suite.label and len(suite.label) != len(suite.model):
        raise UserError(
            f"--label: {', '.join(suite.label)} for the models {', '.join(suite.model)}; "
            "give one label for each model"
        )
    for index, name in enumerate(suite.model):
        card, label = find_model(name)
        if suite.label:
            label = suite.label[index]
        # Tables and folders know a model by its label alone.
        if label in model_cards:
            raise UserError(
                f"--model: two models are called {label!r}; give each a --label of its own"
            )
        model_cards[label] = card
        for spec in specs:
            spec.build(card.settings)  # raises for settings that the method does not have
    assets.offline_folder(suite.data_dir)
    _check_texts(suite, tasks)
    _refuse_devices(suite)
    _refuse_vllm(suite, model_cards.values())
    tasks = _tasks_of_protocols(tasks, protocols, suite)
    check_stopping(suite, specs, tasks, protocols)
    plugins = {**plugin_files, **_outside_packages(specs, tasks)}
    return ResolvedSuite(suite, model_cards, specs, tasks, protocols, plugins)


def resolve_methods(texts: Iterable[str]) -> list[MethodSpec]:
    """Parse methods and look up their cards and settings.

    Raises:
        UserError: for a method, a setting or a value that does not exist.
    """
    specs = parse_methods(texts)
    for spec in specs:
        spec.build({})  # raises for an unknown name
    return specs


def _outside_packages(specs: Iterable[MethodSpec], tasks: Iterable[Task]) -> dict[str, str]:
    """Return the versions of the packages from which methods and benches come by entry points."""
    methods: set[str] = set()
    for spec in specs:
        methods.update(spec.name.split("+"))
    benches = {task.bench for task in tasks if BENCHES[task.bench].outside_folder}
    return {
        **package_versions(METHOD_ENTRY_POINTS, methods - {*shipped_names("methods")}),
        **package_versions(BENCH_ENTRY_POINTS, benches),
    }


def _check_texts(suite: Suite, tasks: list[Task]) -> None:
    """Refuse a text that no benchmark of the suite reads, or that does not exist."""
    used = {BENCHES[task.bench].source_option for task in tasks}
    for option in ("haystack", "text"):
        source: Path | None = getattr(suite, option)
        if source is None:
            continue
        if option not in used:
            raise UserError(
                f"--{option}: no bench of this run reads it; benches are {', '.join(suite.bench)}"
            )
        # Files of a corpus are fetched later.
        if not find_corpus(source):
            documents.text_files(source)


def _refuse_devices(suite: Suite) -> None:
    """Refuse options for devices that do not go together."""
    devices = suite.devices
    on_cpus = all(device == "cpu" for device in devices)
    on_gpus = all(device.isdecimal() for device in devices)
    if not (on_cpus or on_gpus):
        raise UserError(
            f"--devices: {','.join(devices)!r} is neither GPUs by number, as 0,1,2,3, nor cpu,cpu"
        )
    if suite.address and devices and not on_cpus:
        raise UserError(
            "--devices are GPUs of this machine; a cluster (--address) uses all of its GPUs, "
            "so leave --devices out"
        )
    if suite.address and suite.engine != "ray":
        raise UserError("--address is that of a Ray cluster; add --engine ray")
    spreads = suite.engine == "vllm" or (suite.uses_ray and not suite.runs_on_cpus)
    if suite.gpus_per_replica > 1 and not spreads:
        raise UserError(
            "--gpus-per-replica is for GPUs on Ray or in vLLM; add --engine ray or vllm, or "
            "--devices 0,1,2,3"
        )
    if suite.uses_ray and suite.device != "auto":
        raise UserError("--device is for a single process; with Ray it is --devices")


def _refuse_vllm(suite: Suite, cards: Iterable[ModelCard]) -> None:
    """Refuse what does not go with vLLM."""
    if suite.engine != "vllm":
        return
    if suite.devices or suite.device != "auto":
        raise UserError(
            "--engine vllm runs on the device that vLLM was built for; leave --device and "
            "--devices out"
        )
    if len(suite.model) > 1:
        # vLLM cannot start twice in a process.
        raise UserError(
            f"--model: {', '.join(suite.model)}: --engine vllm runs one model at a time; "
            "run each by itself, with the same --output"
        )
    if suite.attention != AUTO:
        raise UserError("--engine vllm has attention of its own; leave --attention out")
    if any(gguf_file(card) for card in cards):
        raise UserError("--engine vllm reads checkpoints in safetensors, not GGUF files")
    if suite.plugin and suite.gpus_per_replica > 1:
        # vLLM's worker processes cannot import the file.
        raise UserError(
            "--plugin: --engine vllm on several GPUs knows only methods of installed packages; "
            "make the plug-in one (docs/add-a-method.md)"
        )


def _tasks_of_protocols(
    tasks: list[Task], protocols: Mapping[str, Protocol], suite: Suite
) -> list[Task]:
    """Return the tasks that their protocols include.

    Raises:
        UserError: if a task that the user named is not among them.
    """
    included = [task for task in tasks if BENCHES[task.bench].has_task(task, protocols[task.bench])]
    for task in tasks:
        if task not in included and task.full_name in suite.bench:
            others = ", ".join(other.name for other in included)
            raise UserError(
                f"{task.full_name}: protocol {suite.protocol_label!r} has no such task; "
                f"name {task.bench} alone for those that it has{': ' + others if others else ''}"
            )
    return included
