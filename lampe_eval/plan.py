"""A suite with every name looked up: what would run, known before anything is loaded."""

import hashlib
from array import array
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

import lampe
from lampe_eval import assets, models
from lampe_eval.benches import BENCHES, find_tasks
from lampe_eval.benches.bench import Bench, Sample, SampleRequest, Task
from lampe_eval.errors import UserError
from lampe_eval.method_specs import MethodSpec, parse_methods
from lampe_eval.models import ModelSource
from lampe_eval.plugins import load_plugins
from lampe_eval.prompts.protocol import Protocol
from lampe_eval.suite import Suite
from lampe_eval.texts import documents


@dataclass(frozen=True)
class Plan:
    """What a suite means."""

    suite: Suite
    sources: list[ModelSource]
    specs: list[MethodSpec]
    tasks: list[Task]
    protocols: Mapping[str, Protocol]
    built: Mapping[tuple[str, str], lampe.Method]

    def lengths(self, source: ModelSource, bench: str) -> tuple[int, ...]:
        """Longest first: what will not fit fails early."""
        window = source.geometry.window
        default = {windows * window for windows in self.protocols[bench].windows}
        return tuple(sorted(set(self.suite.lengths) or default, reverse=True))

    def samples(
        self,
        task: Task,
        length: int,
        tokenizer: PreTrainedTokenizerBase,
        *,
        release_prompts: bool = False,
        limit: int | None = None,
    ) -> list[Sample]:
        """The samples of a task at a length; all methods get the same ones (but see ``SampleRequest.release_prompts``)."""
        bench, suite = BENCHES[task.bench], self.suite
        draw = SampleRequest(
            tokenizer,
            length,
            limit or self.limit(task),
            self.protocols[task.bench],
            suite.seed,
            self._source(bench),
            suite.data_dir,
            release_prompts,
        )
        return [replace(sample, ids=array("i", sample.ids)) for sample in bench.samples(task, draw)]

    def release_prompts(self, task: Task, model: str, method: str) -> bool:
        """Whether a task's prompts are those that LaMPE's authors give to LaMPE alone."""
        built = self.built[model, method]
        return self.protocols[task.bench].release_prompts and built.has_release_prompts

    def limit(self, task: Task) -> int:
        """Samples of a task in a cell, at most."""
        return self.suite.limit or int(task.card.samples)

    @property
    def device(self) -> str:
        """What the model runs on, each replica of it where there are many."""
        if self.suite.devices:
            return "cpu" if self.suite.devices[0] == "cpu" else "cuda"
        return "cuda" if self.suite.engine == "ray" else device_of(self.suite.device)

    @property
    def batch(self) -> int | str | None:
        """Tokens of a batch, or "measured"; None for one sample at a time, as published numbers are made."""
        given = self.suite.max_batch_tokens
        if (
            given is None
            and self.device.startswith("cuda")
            and self.suite.protocol.partition(":")[0] == "fair"
        ):
            return "measured"
        return given if given != 1 else None

    @property
    def files(self) -> list[str]:
        """Names of the benchmark files that tasks and texts need, each once."""
        needed = [
            BENCHES[task.bench].required_files(
                task, self.protocols[task.bench], self._source(BENCHES[task.bench])
            )
            for task in self.tasks
        ]
        needed += [
            documents.required_files(self.suite.haystack),
            documents.required_files(self.suite.text),
        ]
        return list(dict.fromkeys(name for names in needed for name in names))

    def _source(self, bench: Bench) -> Path | None:
        """The user's text that a bench reads."""
        source: Path | None = (
            getattr(self.suite, bench.source_option) if bench.source_option else None
        )
        return source

    def _own_files(self, task: Task) -> list[Path]:
        return BENCHES[task.bench].user_files(task, self.protocols[task.bench], self.suite.data_dir)

    @property
    def config(self) -> dict[str, Any]:
        """Everything that a score depends on; the benchmark files have to be here."""
        suite = self.suite
        plugins = load_plugins(suite.plugin)
        return {
            "models": {source.name: source.described for source in self.sources},
            "methods": {
                spec.label: {
                    source.name: self.built[source.name, spec.label].settings
                    for source in self.sources
                }
                for spec in self.specs
            },
            "protocol": suite.protocol_label,
            "protocols": {
                bench: protocol.model_dump(mode="json")
                for bench, protocol in self.protocols.items()
            },
            "tasks": {task.full_name: task.card.model_dump(mode="json") for task in self.tasks},
            "files": {name: f"sha256:{assets.digest(name, suite.data_dir)}" for name in self.files},
            "own files": {
                task.full_name: documents.digest_of(files)
                for task in self.tasks
                if (files := self._own_files(task))
            },
            "lengths": {
                source.name: {bench: list(self.lengths(source, bench)) for bench in self.protocols}
                for source in self.sources
            },
            "limit": suite.limit,
            "seed": suite.seed,
            "haystack": suite.haystack and documents.digest(suite.haystack, suite.data_dir),
            "text": suite.text and documents.digest(suite.text, suite.data_dir),
            "attention": suite.attention,
            "device": self.device.partition(":")[0],
            "batch": self.batch,
            # Without plug-ins no key: runs that have none keep their configuration and folder.
            **({"plugins": plugins} if plugins else {}),
        }

    @property
    def folder(self) -> Path:
        """Where results go: as given, or named after the models and the configuration."""
        if self.suite.output:
            return self.suite.output
        digest = hashlib.sha256(repr(self.config).encode()).hexdigest()[:8]
        names = "+".join(source.name.replace("/", "--") for source in self.sources)
        return Path("results") / f"{names}-{digest}"


def prepare(suite: Suite) -> Plan:
    """Looks up every name of a suite.

    Raises:
        UserError: for the first that does not exist or does not fit.
    """
    load_plugins(suite.plugin)
    backends = lampe.AUTO, *lampe.BACKENDS
    if suite.attention not in backends:
        raise UserError(
            f"--attention: unknown backend {suite.attention!r}; one of: {', '.join(backends)}"
        )
    device_of(suite.device)
    specs, tasks = parse_methods(suite.method), find_tasks(suite.bench)
    if not specs:
        raise UserError("--method: no method given; see: lampe-eval list methods")
    protocols = {task.bench: BENCHES[task.bench].protocol(suite.protocol_label) for task in tasks}
    sources = [
        models.find_model(name, window=suite.window, dtype=suite.dtype) for name in suite.model
    ]
    labels = [source.name for source in sources]
    for label in labels:
        if labels.count(label) > 1:
            raise UserError(
                f"--model: two models are called {label!r}; give each folder a name of its own"
            )
    built = {
        (source.name, spec.label): spec.build(source.settings)
        for source in sources
        for spec in specs
    }
    _refuse_unread(suite, tasks)
    _refuse_devices(suite)
    plan = Plan(suite, sources, specs, _possible(tasks, protocols, suite), protocols, built)
    _try_methods(plan)
    return plan


def _refuse_unread(suite: Suite, tasks: list[Task]) -> None:
    """Refuses a text that no bench of the suite reads."""
    read = {BENCHES[task.bench].source_option for task in tasks}
    for option in ("haystack", "text"):
        if getattr(suite, option) and option not in read:
            raise UserError(
                f"--{option}: no bench of this run reads it; benches are {', '.join(suite.bench)}"
            )


def _refuse_devices(suite: Suite) -> None:
    """Refuses devices that do not go together."""
    devices = suite.devices
    if not (
        all(device == "cpu" for device in devices) or all(device.isdecimal() for device in devices)
    ):
        raise UserError(
            f"--devices: {','.join(devices)!r} is neither GPUs by number, as 0,1,2,3, nor cpu,cpu"
        )
    if suite.address and devices and devices[0] != "cpu":
        raise UserError(
            "--devices are GPUs of this machine; of a cluster (--address) all are used, so leave it out"
        )
    if suite.address and suite.engine != "ray":
        raise UserError("--address is that of a Ray cluster; add --engine ray")
    on_ray = devices or suite.engine == "ray"
    if suite.gpus_per_replica > 1 and (not on_ray or devices[:1] == ("cpu",)):
        raise UserError(
            "--gpus-per-replica is for GPUs on Ray; add --engine ray, or --devices 0,1,2,3"
        )
    if on_ray and suite.device != "auto":
        raise UserError("--device is for a single process; with Ray it is --devices")


def _possible(tasks: list[Task], protocols: Mapping[str, Protocol], suite: Suite) -> list[Task]:
    """The tasks that their protocols have; one that was asked for by name has to be among them."""
    found = []
    for task in tasks:
        if BENCHES[task.bench].has_task(task, protocols[task.bench]):
            found.append(task)
        elif task.full_name in suite.bench:
            names = [
                other.name
                for other in tasks
                if BENCHES[other.bench].has_task(other, protocols[other.bench])
            ]
            raise UserError(
                f"{task.full_name}: protocol {suite.protocol_label!r} has no such task; "
                f"name {task.bench} alone for those that it has{': ' + ', '.join(names) if names else ''}"
            )
    return found


def _try_methods(plan: Plan) -> None:
    """Has every method encode every length, so that a setting that does not fit is found before anything is loaded."""
    for source in plan.sources:
        for spec in plan.specs:
            for length in sorted(
                {n for bench in plan.protocols for n in plan.lengths(source, bench)}
            ):
                try:
                    plan.built[source.name, spec.label].encode(source.geometry, length)
                except lampe.LampeError as error:
                    raise UserError(
                        f"method {spec.label!r} at length {length} on {source.name}: {error}"
                    ) from None


def device_of(name: str) -> str:
    """The device meant: "auto" is a GPU where there is one.

    Raises:
        UserError: for what is no device.
    """
    if name != "auto":
        try:
            return str(torch.device(name))
        except RuntimeError:
            raise UserError(
                f"--device: {name!r} is no device; use auto, cpu, cuda or cuda:0"
            ) from None
    return "cuda" if torch.cuda.is_available() else "cpu"
