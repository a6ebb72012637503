"""Extension of a run: what is only more is added, what would change stored cells is refused.

Models, methods, tasks and lengths may be added, and the limit may grow. All else that scores depend
on is that of the run's first session. With a stopping rule the limit stays too, and to a run that
decides nothing is added.
"""

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, cast

from lampe_eval import checkpoint_files
from lampe_eval.benches import BENCHES
from lampe_eval.cards import ModelCard
from lampe_eval.errors import MAX_LISTED, UserError
from lampe_eval.records import RunConfiguration
from lampe_eval.running.resolve import ResolvedSuite
from lampe_eval.running.suite_configuration import suite_configuration
from lampe_eval.store import Store
from lampe_eval.suite import Suite

OPTIONS = {
    "models": "--model",
    "methods": "--method",
    "tasks": "--bench",
    "protocol": "--protocol",
    "limit": "--limit",
    "stopping": "stopping rule (--precision, --decide)",
    "seed": "--seed",
    "haystack": "--haystack",
    "text": "--text",
    "attention": "--attention",
    "device": "--device",
    "max_batch_tokens": "--max-batch-tokens",
    "plugins": "--plugin",
}
"""Options of the command line that set a field of the configuration."""
OPEN_LEVELS = {
    "models": 1,
    "methods": 2,
    "protocols": 1,
    "tasks": 1,
    "files": 1,
    "user_files": 1,
    "lengths": 2,
    "plugins": 1,
}
"""Fields of the configuration to which names may be added, and how many levels of names they have.

Settings of methods are by label, then by model; lengths are by model, then by benchmark.
"""
TEXTS = ("haystack", "text")
"""Fields that mean nothing to cells of benchmarks that do not read them."""


def refuse_changes(resolved: ResolvedSuite) -> None:
    """Refuse a suite that would change the run in its `--output`, as far as is known without torch.

    Raises:
        UserError: for the first difference.
    """
    folder = resolved.suite.output
    store = Store.with_samples(folder) if folder else None
    if store is None:
        return
    try:
        known: dict[str, Any] = dict(suite_configuration(resolved))
    except UserError:
        # A benchmark file that is not here yet is downloaded later, and anything else refused then.
        return
    suite = resolved.suite
    stored_models = store.config["models"]
    known["models"] = {
        name: {**stored_models[name], **_model_options(card, suite)}
        for name, card in resolved.model_cards.items()
        if name in stored_models
    }
    if suite.device != "auto":
        known["device"] = suite.device.partition(":")[0]
    _refuse_differences(store.folder, store.config, known)


def extended(folder: Path, current: RunConfiguration) -> RunConfiguration:
    """Return the configuration of a folder's run with what a session adds to it.

    Args:
        folder: the run's folder, which need not exist yet.
        current: the configuration of the session.

    Raises:
        UserError: for the first difference that would change stored cells.
    """
    store = Store.with_samples(folder)
    if store is None:
        return current
    stored = store.config
    _refuse_differences(folder, stored, current)
    merged: dict[str, Any] = dict(stored)
    session: dict[str, Any] = dict(current)
    for key, levels in OPEN_LEVELS.items():
        if key in session:
            merged[key] = _union(merged.get(key, {}), session[key], levels)
    merged["limit"] = session["limit"]
    for option in TEXTS:
        if not _reads(stored, option):
            merged[option] = session[option]
    return cast(RunConfiguration, merged)


def _model_options(card: ModelCard, suite: Suite) -> dict[str, Any]:
    """Return what options, card and files say of a model's record."""
    options: dict[str, Any] = {"dtype": suite.dtype or card.dtype}
    window = suite.window or card.window
    if window:
        options["window"] = window
    path = Path(checkpoint_files.checkpoint_path(card))
    if path.is_dir():
        gguf = checkpoint_files.gguf_file(card)
        options["fingerprint"] = checkpoint_files.fingerprint(path, gguf)
    return options


def _refuse_differences(folder: Path, stored: RunConfiguration, current: Mapping[str, Any]) -> None:
    """Refuse what would change stored cells, naming the first difference, options first.

    Args:
        folder: the run's folder.
        stored: the run's configuration.
        current: fields of the session's configuration, all or some.
    """
    before = _with_defaults(stored)
    current = _with_defaults(current)
    open_levels = {} if _compares_all(stored) else OPEN_LEVELS
    # Options come first, because they are what a user can change on the command line.
    for key in dict.fromkeys([*OPTIONS, *current]):
        if key not in current or not _decides_stored_cells(key, stored, current):
            continue
        changes = _changes(
            before.get(key, {}), current[key], OPTIONS.get(key, key), open_levels.get(key, 0)
        )
        for name, was, now in changes:
            raise UserError(
                f"{folder}: made with another configuration: {name} was {was}, now {now}; "
                "choose another --output"
            )


def _with_defaults(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a configuration with what it leaves out where nothing else was asked for."""
    protocols = {
        bench: {"plan": "prompt", **fields} for bench, fields in config["protocols"].items()
    }
    return {"stopping": {}, **config, "protocols": protocols}


def _decides_stored_cells(key: str, stored: RunConfiguration, current: Mapping[str, Any]) -> bool:
    """Return whether stored cells depend on a field that may differ."""
    if key == "lengths":
        return _compares_all(stored)
    if key == "limit":
        # With a rule, the random order of samples depends on how many there are.
        return "stopping" in stored or not _grows(stored, current["limit"])
    return key not in TEXTS or (_reads(stored, key) and _reads(current, key))


def _compares_all(stored: RunConfiguration) -> bool:
    """Return whether a run's decisions share one probability of error: no more may be added."""
    return "reference" in stored.get("stopping", {})


def _grows(stored: RunConfiguration, limit: int | None) -> bool:
    """Return whether every stored task has as many samples under a limit as before, or more."""
    before = stored["limit"]
    sizes = [card["samples"] for card in stored["tasks"].values()]
    return all((limit or size) >= (before or size) for size in sizes)


def _reads(config: Mapping[str, Any], option: str) -> bool:
    """Return whether a benchmark of a run reads the text of an option.

    Raises:
        UserError: for a benchmark whose plug-in is not loaded; the run's tables need it.
    """
    return option in {BENCHES[bench].source_option for bench in config["protocols"]}


def _union(before: Any, now: Any, levels: int) -> Any:
    """Return what two fields have together, of equal names the value before; lengths descend."""
    if levels:
        common = {key: _union(before[key], now[key], levels - 1) for key in before if key in now}
        return {**before, **now, **common}
    return sorted({*before, *now}, reverse=True) if isinstance(before, list) else before


def _changes(before: Any, now: Any, path: str, levels: int) -> Iterator[tuple[str, str, str]]:
    """Yield the innermost fields that differ with both values, or both lists of keys.

    Args:
        before: value of a stored field.
        now: its value in this session.
        path: name of the field.
        levels: levels of names that only one of both may have.
    """
    if not (isinstance(before, dict) and isinstance(now, dict)):
        if before != now:
            yield path, _shown(before), _shown(now)
    elif not levels and before.keys() != now.keys():
        yield path, _listed(before, now), _listed(now, before)
    else:
        for key in before:
            if key in now:
                yield from _changes(before[key], now[key], f"{path} {key}", max(0, levels - 1))


def _shown(value: Any) -> str:
    """Return a value of the configuration as a message shows it."""
    if value is None:
        return "not given"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _listed(names: Collection[str], others: Collection[str]) -> str:
    """Return names as a message lists them; of many, only those that are not among the others."""
    if len(names) <= MAX_LISTED:
        return ", ".join(names) or "nothing"
    return ", ".join(["...", *(name for name in names if name not in others)])
