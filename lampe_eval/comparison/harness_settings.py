"""Settings that other harnesses state beside their samples."""

from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from lampe_eval.comparison.compared_results import StatedSettings, flattened, joined, text_of
from lampe_eval.errors import UserError
from lampe_eval.file_io import read_json
from lampe_eval.scoring.harness_files import Family
from lampe_eval.yaml_files import read_yaml

Records = Sequence[Mapping[str, Any]]

RESULTS_OF_LM_EVAL = frozenset(
    {
        "results",
        "groups",
        "group_subtasks",
        "higher_is_better",
        "samples",
        "date",
        "start_time",
        "end_time",
        "total_evaluation_time_seconds",
    }
)
"""Parts of lm-eval's results that are no settings."""


def _lm_eval(folder: Path, records: Records) -> StatedSettings:
    """Return the settings in lm-eval's results, and in the arguments of its samples."""
    results = _newest_json(folder, "results*.json")
    config = _mapping(results.get("config"))
    arguments = _model_arguments(config.get("model_args"))
    tasks = [_mapping(task) for task in _mapping(results.get("configs")).values()]
    generation = [lm_eval_arguments(record)[1] for record in records]
    has_template = bool(results.get("chat_template")) if results else None
    settings = {
        "model": joined([results.get("model_name") or arguments.get("pretrained")]),
        "weights": joined([config.get("model_sha") or config.get("model_revision")]),
        "dtype": joined([_dtype(config.get("model_dtype") or arguments.get("dtype"))]),
        "wording": joined([_repr(task.get("doc_to_text")) for task in tasks]),
        "examples in the prompt": joined([task.get("num_fewshot") for task in tasks]),
        "chat template": joined([_choice(has_template, "template", "none")]),
        "max length": joined([results.get("max_length")]),
        "max new tokens": joined([item.get("max_gen_toks") for item in generation]),
        "stops at": joined([_stops(item) for item in generation]),
        "sampling": joined([_sampling(item) for item in generation]),
        "backend": joined([config.get("model")]),
        "batch size": joined([config.get("batch_size")]),
        "seed": joined([config.get("random_seed")]),
        "versions": joined(
            [
                f"{name} {results[key]}"
                for name, key in (
                    ("lm-eval", "lm_eval_version"),
                    ("transformers", "transformers_version"),
                )
                if key in results
            ]
        ),
    }
    stated = {key: value for key, value in results.items() if key not in RESULTS_OF_LM_EVAL}
    fields = flattened(stated, "") if stated else {}
    for name in dict.fromkeys(chain.from_iterable(generation)):
        fields[f"generation: {name}"] = joined([item.get(name) for item in generation])
    return StatedSettings(settings, fields)


def _newest_json(folder: Path, pattern: str) -> Mapping[str, Any]:
    """Return the JSON object of the newest file of a pattern; empty if there is none."""
    for path in sorted(folder.rglob(pattern), reverse=True):
        try:
            return _mapping(read_json(path))
        except UserError:
            continue
    return {}


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _model_arguments(value: Any) -> Mapping[str, Any]:
    """Return lm-eval's `model_args`, a mapping or `name=value` with commas."""
    if isinstance(value, str):
        return dict(item.split("=", 1) for item in value.split(",") if "=" in item)
    return _mapping(value)


def lm_eval_arguments(record: Mapping[str, Any]) -> tuple[Any, Mapping[str, Any]]:
    """Return prompt and generation arguments of a row of lm-eval; None and empty without any.

    Older versions store them as a list, newer ones as `gen_args_0` with `arg_0` and `arg_1`.
    """
    arguments = record.get("arguments")
    requests = list(arguments.values()) if isinstance(arguments, Mapping) else arguments
    first = requests[0] if isinstance(requests, list) and requests else None
    values = list(first.values()) if isinstance(first, Mapping) else first
    if not isinstance(values, list) or len(values) < 2:
        return None, {}
    return values[0], _mapping(values[1])


def _dtype(value: Any) -> str | None:
    return str(value).removeprefix("torch.") if value else None


def _choice(value: Any, if_true: str, if_false: str) -> str | None:
    """Return the words for a stated value; None where nothing is stated."""
    if value is None:
        return None
    return if_true if value else if_false


def _repr(value: Any) -> str | None:
    return None if value is None else repr(value)


def _stops(arguments: Mapping[str, Any]) -> str | None:
    if "until" not in arguments:
        return None
    until = arguments["until"]
    texts = until if isinstance(until, list) else [until]
    return " or ".join(["end of text", *(repr(text) for text in texts)])


def _sampling(arguments: Mapping[str, Any]) -> str | None:
    """Return how an answer's tokens are chosen; None where nothing says it."""
    if not arguments.keys() & {"do_sample", "temperature"}:
        return None
    temperature = arguments.get("temperature", 1.0)
    if not arguments.get("do_sample", temperature != 0):
        return "greedy"
    names = [name for name in ("temperature", "top_p", "top_k") if name in arguments]
    return "sampled, " + ", ".join(f"{name} {arguments[name]}" for name in names)


def _helmet(folder: Path, records: Records) -> StatedSettings:
    """Return the arguments that HELMET's outputs hold."""
    arguments: list[Mapping[str, Any]] = []
    for path in sorted(folder.rglob("*.json")):
        try:
            stated = _mapping(_mapping(read_json(path)).get("args"))
        except UserError:
            continue
        if stated:
            arguments.append(stated)

    def values(name: str) -> list[Any]:
        return [stated.get(name) for stated in arguments]

    chat = [_choice(value, "template", "none") for value in values("use_chat_template")]
    stops = [
        _choice(value, "end of text or line break", "end of text")
        for value in values("stop_newline")
    ]
    settings = {
        "model": joined(values("model_name_or_path")),
        "chat template": joined(chat),
        "examples in the prompt": joined(values("shots")),
        "max length": joined(values("input_max_length")),
        "max new tokens": joined(values("generation_max_length")),
        "stops at": joined(stops),
        "sampling": joined([_sampling(stated) for stated in arguments]),
        "seed": joined(values("seed")),
    }
    names = dict.fromkeys(chain.from_iterable(arguments))
    return StatedSettings(settings, {name: joined(values(name)) for name in names})


def _kvpress(folder: Path, records: Records) -> StatedSettings:
    """Return kvpress' configuration, and the columns that are settings."""
    config: Mapping[str, Any] = {}
    for path in sorted(folder.rglob("config.yaml")):
        try:
            config = _mapping(read_yaml(path).value)
        except UserError:
            continue
    ratios = [record.get("compression_ratio") for record in records]
    settings = {
        "model": joined([config.get("model")]),
        "method": joined([config.get("press_name")]),
        "max length": joined([config.get("max_context_length")]),
        "max new tokens": joined([record.get("max_new_tokens") for record in records]),
        "seed": joined([config.get("seed")]),
    }
    fields = flattened(config, "") if config else {}
    return StatedSettings(settings, fields | {"compression_ratio": joined(ratios)})


def _opencompass(folder: Path, records: Records) -> StatedSettings:
    """Return what OpenCompass' rows say; its configuration is a program."""
    roles = []
    for record in records:
        prompt = record.get("origin_prompt")
        turns = prompt if isinstance(prompt, list) else []
        roles.append(text_of([turn.get("role") for turn in turns if isinstance(turn, dict)]))
    chat = ["none" if role == "none" else f"turns of {role}" for role in roles]
    return StatedSettings({"model": folder.resolve().name, "chat template": joined(chat)}, {})


HARNESS_SETTINGS: Mapping[Family, Callable[[Path, Records], StatedSettings]] = {
    "lm-eval": _lm_eval,
    "helmet": _helmet,
    "kvpress": _kvpress,
    "opencompass": _opencompass,
}
"""What each harness states, from its folder and the records of its rows."""
