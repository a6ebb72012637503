"""Code that puts a method to use as a run measured it: the same model, window, type and settings.

All of it is read from run.yaml. Cards and files may have changed since, which the code then says.
"""

import inspect
import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import transformers

import lampe
from lampe.methods import method_class
from lampe_eval import checkpoint_files, models, plugins
from lampe_eval.cards import ModelCard
from lampe_eval.errors import UserError
from lampe_eval.method_specs import DEFAULT_REFERENCE, parse_methods
from lampe_eval.records import ModelRecord
from lampe_eval.run_description import read_description
from lampe_eval.store import Store
from lampe_eval.suite import split_names


def usage(store: Store, model: str, label: str, length: int) -> Iterator[str]:
    """Yield the lines of Python that put a method to use, and the configuration that does so.

    Args:
        store: the run.
        model: name of the model in it.
        label: label of the method in it.
        length: tokens of prompts that the configuration is for; Python needs none.

    Raises:
        UserError: if the method is of a plug-in that is not loaded.
    """
    method = _method(store, model, label)
    card = _model_card(store, model)
    record = store.config["models"][model]
    yield from _python(store, card, record, method, model)
    configuration = _configuration(card, record, method, model, length)
    if configuration:
        yield ""
        yield (
            f"or without a patch, in the model's configuration; it is the rope of {length} "
            "tokens, which shorter prompts get too:"
        )
        yield configuration


def _method(store: Store, model: str, label: str) -> lampe.Method:
    """Return the method with the settings that the run stored."""
    (spec,) = parse_methods([label])
    try:
        name = spec.build({}).label
    except UserError as error:
        files = ", ".join(store.config.get("plugins", {}))
        hint = f"; the run was made with the plug-in {files}: give it by --plugin" if files else ""
        raise UserError(f"{error}{hint}") from None
    return lampe.method_of(name, **store.config["methods"][label][model])


def _model_card(store: Store, model: str) -> ModelCard | None:
    """Return the card of a run's model; None if nothing says where it is, or it is no more there.

    Tables name a model by its label, so what was given for it is sought in the run's history.
    """
    for name, label in _given_models(store):
        with suppress(UserError):
            card, own_label = checkpoint_files.find_model(name)
            if model == (label or own_label):
                return card
    with suppress(UserError):
        return checkpoint_files.find_model(model)[0]
    return None


def _given_models(store: Store) -> Iterator[tuple[str, str]]:
    """Yield what --model and --label were given by the sessions of a run, the latter or nothing."""
    for session in reversed(read_description(store.folder).get("history", [])):
        names = split_names(session["options"].get("model", []))
        labels = split_names(session["options"].get("label", [])) or [""] * len(names)
        yield from zip(names, labels, strict=False)


def _python(
    store: Store, card: ModelCard | None, record: ModelRecord, method: lampe.Method, model: str
) -> Iterator[str]:
    arguments = _loading_arguments(card, record, model)
    is_gguf = "gguf_file" in arguments and hasattr(transformers, "GgufConfig")
    given = ", ".join(f"{key}={value!r}" for key, value in arguments.items() if key != "path")
    if is_gguf:
        given += ", quantization_config=GgufConfig(dequantize=True)"
    for file in _plugin_files(method):
        yield "from pathlib import Path"
        yield "from lampe_eval.plugins import load_plugins"
        yield f"load_plugins([Path({str(file)!r})])"
    yield "import lampe"
    yield f"from transformers import AutoModelForCausalLM{', GgufConfig' if is_gguf else ''}"
    yield ""
    for problem in _problems(card, record, model):
        yield f"# {problem}"
    yield f"model = AutoModelForCausalLM.from_pretrained({arguments['path']!r}, {given})"
    settings = _changed_settings(method)
    if method.label == DEFAULT_REFERENCE and not settings:
        return
    settings["window"] = record["window"]
    # names of a composed method's settings have a dot, which no keyword may have
    dotted = any("." in key for key in settings)
    written = f"**{settings!r}" if dotted else ", ".join(f"{k}={v!r}" for k, v in settings.items())
    yield f"handle = lampe.patch(model, {method.label!r}, {written})"
    if any(
        each.get("plan_length") == "prompt+answer" for each in store.config["protocols"].values()
    ):
        yield (
            "# Plan for the answer too, as the run did: "
            "with handle.prompt(prompt_tokens, max_new_tokens): model.generate(...)"
        )


def _loading_arguments(
    card: ModelCard | None, record: ModelRecord, model: str
) -> Mapping[str, Any]:
    """Return the arguments by which transformers loads what was measured."""
    repository, _, commit = record["fingerprint"].partition("@")
    if commit:
        return {"path": repository, "revision": commit, "dtype": record["dtype"]}
    if card is None:
        return {"path": model, "dtype": record["dtype"]}
    arguments: dict[str, Any] = {"path": checkpoint_files.checkpoint_path(card)}
    file = checkpoint_files.gguf_file(card)
    dtype = record["dtype"]
    if file:
        arguments["gguf_file"] = file
        # which is what a run takes for it
        dtype = "float32" if dtype == "auto" else dtype
    return {**arguments, "dtype": dtype}


def _problems(card: ModelCard | None, record: ModelRecord, model: str) -> Iterator[str]:
    """Yield what is wrong with the model that the code loads."""
    if "@" in record["fingerprint"]:
        return
    if card is None:
        yield f"run.yaml does not say where {model} is, or it is there no more: put its path here"
        return
    folder = Path(checkpoint_files.checkpoint_path(card))
    if not folder.is_dir():
        return
    now = checkpoint_files.fingerprint(folder, checkpoint_files.gguf_file(card))
    if now != record["fingerprint"]:
        yield f"these weights ({now}) are not those that were measured ({record['fingerprint']})"


def _plugin_files(method: lampe.Method) -> list[str]:
    """Return the plug-ins that define a method, or a part of it."""
    classes = [method_class(name) for name in method.label.split("+")]
    modules = plugins.loaded_modules()
    files = [inspect.getfile(each) for each in classes if inspect.getmodule(each) in modules]
    return list(dict.fromkeys(files))


def _changed_settings(method: lampe.Method) -> dict[str, Any]:
    defaults = lampe.method_of(method.label).settings
    return {key: value for key, value in method.settings.items() if value != defaults[key]}


def _configuration(
    card: ModelCard | None, record: ModelRecord, method: lampe.Method, model: str, length: int
) -> str:
    """Return the rope parameters that do the same in transformers; empty if there are none."""
    if method.label == DEFAULT_REFERENCE or card is None:
        return ""
    try:
        source = models.describe_model(card, model, window=record["window"])
    except UserError:
        return ""
    resolved = method.resolved(source.geometry, length)
    parameters = resolved.rope_parameters(source.geometry, length)
    return json.dumps({"rope_parameters": dict(parameters)}) if parameters else ""
