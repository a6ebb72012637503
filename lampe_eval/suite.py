"""A suite: what to run. The command line's options and a ``--config`` file say the same things by the same names."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import BeforeValidator, Field, ValidationError, model_validator

from lampe_eval.cards import Card, plain_message
from lampe_eval.errors import UserError

C = TypeVar("C", bound=Card)

MAX_LENGTH = 16 * 1024**2
"""Tokens of the longest length; no benchmark is as long."""


def split_names(value: Any) -> Any:
    """One item or several, each possibly several separated by commas."""
    items = value if isinstance(value, list | tuple) else [value]
    return [part.strip() for item in items for part in str(item).split(",") if part.strip()]


def _lengths(value: Any) -> list[int]:
    return [parse_length(item) for item in split_names(value)]


def _length(value: Any) -> Any:
    return parse_length(value) if isinstance(value, str) else value


def parse_length(text: str) -> int:
    """Tokens from ``4096``, ``4k`` (4096) or ``1m`` (1048576).

    Raises:
        ValueError: for anything else, or nothing, or more than ``LONGEST``.
    """
    units = {"k": 1024, "m": 1024**2}
    number, unit = (text[:-1], units[text[-1].lower()]) if text[-1:].lower() in units else (text, 1)
    if not number.isdecimal() or int(number) == 0:
        raise ValueError(f"{text!r} is not a length in tokens such as 4096, 4k or 1m")
    if int(number) * unit > MAX_LENGTH:
        raise ValueError(f"{text!r} is more than 16m tokens; no benchmark is as long")
    return int(number) * unit


def as_list(value: Any) -> Any:
    """One text or several, as they are: a method's settings have commas of their own."""
    return [value] if isinstance(value, str) else value


def _threshold(value: Any) -> str:
    """What ``fails`` takes; YAML reads a bare yes as true."""
    text = {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)
    share = re.fullmatch(r"(\d+(?:\.\d+)?)%", text)
    if not (text in ("yes", "no") or text.isdecimal() or (share and float(share[1]) <= 100)):
        raise ValueError(
            f"{text!r} is none of yes, no, a count such as 5, or a share up to 100% such as 1%"
        )
    return text


def exceeds_threshold(threshold: str, failed: int, total: int) -> bool:
    """Whether a run fails by its failed samples: "yes" by the first, "no" by none, "5" or "1%" from so many on."""
    if failed == 0 or threshold == "no":
        return False
    if threshold.endswith("%"):
        return 100 * failed >= float(threshold[:-1]) * total
    return failed >= (1 if threshold == "yes" else int(threshold))


def validate_options(schema: type[C], options: Mapping[str, Any]) -> C:
    """Options of the command line by name as a card; those that are None keep their defaults.

    Raises:
        UserError: for a value that an option cannot have.
    """
    try:
        return schema.model_validate(
            {key: value for key, value in options.items() if value is not None}
        )
    except ValidationError as error:
        fault = error.errors()[0]
        option = f"--{str(fault['loc'][0]).replace('_', '-')}: " if fault["loc"] else ""
        raise UserError(f"{option}{plain_message(fault)}") from None


Names = Annotated[tuple[str, ...], BeforeValidator(split_names)]
Length = Annotated[int, BeforeValidator(_length)]
Lengths = Annotated[tuple[int, ...], BeforeValidator(_lengths)]


class Suite(Card):
    """What to run.

    Attributes:
        model: cards, folders or hub ids.
        method: methods, each with settings behind a colon.
        bench: benches (their default tasks) or single tasks such as "niah/single".
        lengths: prompt and answer together, in tokens; by default what the protocol says, in windows of the model.
        protocol: how samples become prompts, as "fair", "official" or "fair:truncation=left".
        prompts: whose wording, before what the protocol says.
        plugin: Python files that define further methods and benches.
        limit: samples of a cell; each task has a number of its own by default.
        seed: of everything that is drawn.
        output: folder of the results; named after the configuration by default.
        haystack: text file or folder for needles; the pocket language by default.
        text: text file or folder for perplexity; the pocket language by default.
        data_dir: folder with benchmark files, looked at before the cache.
        window: tokens of pretraining, where the model's configuration is wrong about it.
        dtype: of the weights, as torch names it.
        device: as torch names it; "auto" takes a GPU where there is one.
        attention: backend of the library.
        max_batch_tokens: of a batch's prompts and answers; by default what free memory of a GPU has room for under
            protocol ``fair``, else one sample at a time.
        fail_on_error: from how many failed samples on the run fails: "yes", "no", a count, or a share as "1%".
        engine: "local" is this process, "ray" replicas of the model on many devices.
        devices: GPUs of this machine by number, or "cpu" for each process; a replica on each.
        address: of a Ray cluster, all of whose GPUs are used.
        gpus_per_replica: that one model is spread over.
    """

    model: Names = ("pocket",)
    method: Annotated[tuple[str, ...], BeforeValidator(as_list)] = ("original", "lampe")
    bench: Names = ("niah", "ppl")
    lengths: Lengths = ()
    protocol: str = "fair"
    prompts: str | None = None
    plugin: Annotated[tuple[Path, ...], BeforeValidator(as_list)] = ()
    limit: int | None = Field(default=None, ge=1)
    seed: int = Field(default=0, ge=0)
    output: Path | None = None
    haystack: Path | None = None
    text: Path | None = None
    data_dir: Path | None = None
    window: Length | None = Field(default=None, ge=1)
    dtype: str | None = None
    device: str = "auto"
    attention: str = "auto"
    max_batch_tokens: int | None = Field(default=None, ge=1)
    fail_on_error: Annotated[str, BeforeValidator(_threshold)] = "yes"
    engine: Literal["local", "ray"] = "local"
    devices: Names = ()
    address: str | None = None
    gpus_per_replica: int = Field(default=1, ge=1)

    @model_validator(mode="before")
    @classmethod
    def _keys_as_options(cls, given: dict[str, Any]) -> dict[str, Any]:
        """Keys may have the hyphens of the options whose names they are."""
        named = {str(key).replace("-", "_"): value for key, value in given.items()}
        if len(named) < len(given):
            raise ValueError("a key stands twice, with hyphens and with underscores")
        return named

    @classmethod
    def from_options(cls, options: Mapping[str, Any]) -> Self:
        """A suite from options by name; those that are None keep their defaults.

        Raises:
            UserError: for a value that an option cannot have.
        """
        return validate_options(cls, options)

    @property
    def protocol_label(self) -> str:
        """The protocol with the wording, as tables call it."""
        if self.prompts is None:
            return self.protocol
        return f"{self.protocol}{',' if ':' in self.protocol else ':'}prompts={self.prompts}"
