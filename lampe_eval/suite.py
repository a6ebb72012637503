"""Suite of a run: options of the command line, or keys of a ``--config`` file by the same names."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from lampe.backend_names import AUTO, BACKEND_NAMES
from lampe_eval.cards import Card, Dtype, plain_message
from lampe_eval.errors import UserError, suggestion

C = TypeVar("C", bound=Card)

MAX_LABEL = 100
"""Characters of the longest label of a model; a longer one fits no table."""
MAX_LENGTH = 16 * 1024**2
"""Tokens of the longest length; no benchmark is as long."""
DEVICE = re.compile(r"auto|(cpu|cuda|mps|xpu|hpu|npu|mtia|xla|meta)(:\d+)?")
"""Devices of torch that models can run on, by number where there are several."""
MAX_SAMPLES = 1_000_000
"""Samples of a cell; there are as many pocket texts of a seed."""
MAX_SEED = 2**63 - 1
MAX_BATCH_TOKENS = 2**31 - 1
"""Tokens of a batch; kernels index them by 32 bits."""
MAX_GPUS = 1024
"""GPUs of a replica; more than any machine has."""


def split_names(value: Any) -> tuple[str, ...]:
    """Return the names in one or several items; an item may hold names separated by commas.

    Raises:
        ValueError: for a name that is empty, or no text or number.
    """
    names: list[str] = []
    for item in value if isinstance(value, list | tuple) else [value]:
        if isinstance(item, bool) or not isinstance(item, str | int | float):
            raise ValueError(f"{item!r} is no name")
        names += [part.strip() for part in str(item).split(",")]
    if not all(names):
        raise ValueError(f"a name is empty in {','.join(names)!r}")
    return tuple(names)


def _lengths(value: Any) -> tuple[int, ...]:
    return tuple(parse_length(item) for item in split_names(value))


def _length(value: Any) -> Any:
    # A number is checked as a text is: YAML has both.
    return parse_length(str(value)) if isinstance(value, str | int) else value


def parse_length(text: str) -> int:
    """Return the tokens that ``4096``, ``4k`` (4096) or ``1m`` (1048576) stands for.

    Raises:
        ValueError: for any other text, and for more than `MAX_LENGTH`.
    """
    units = {"k": 1024, "m": 1024**2}
    number = text
    unit = 1
    if text[-1:].lower() in units:
        number = text[:-1]
        unit = units[text[-1].lower()]
    if not (number.isascii() and number.isdecimal()) or int(number) == 0:
        raise ValueError(f"{text!r} is not a length in tokens such as 4096, 4k or 1m")
    if int(number) * unit > MAX_LENGTH:
        raise ValueError(f"{text!r} is more than 16m tokens; no benchmark is as long")
    return int(number) * unit


def as_tuple(value: Any) -> Any:
    """Return one or several texts as a tuple; commas stay, as they also separate settings."""
    if isinstance(value, str):
        return (value,)
    return tuple(value) if isinstance(value, list) else value


def _device(name: str) -> str:
    if not DEVICE.fullmatch(name):
        raise ValueError(f"{name!r} is no device; use auto, cpu, cuda or cuda:0")
    return name


def _attention(name: str) -> str:
    known = (AUTO, *BACKEND_NAMES)
    if name not in known:
        hint = suggestion(name, known)
        raise ValueError(f"unknown backend {name!r}{hint}; one of: {', '.join(known)}")
    return name


def _threshold(value: Any) -> str:
    """Return a threshold as `exceeds_threshold` takes it."""
    text = {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)
    share = re.fullmatch(r"(\d+(?:\.\d+)?)%", text)
    if not (text in ("yes", "no") or text.isdecimal() or (share and float(share[1]) <= 100)):
        raise ValueError(
            f"{text!r} is none of yes, no, a count such as 5, or a share up to 100% such as 1%"
        )
    return text


def exceeds_threshold(threshold: str, failed: int, total: int) -> bool:
    """Return whether so many failed samples fail a run.

    Args:
        threshold: "yes" (one fails it), "no" (none does), a count as "5", or a share as "1%".
        failed: failed samples.
        total: all samples.
    """
    if failed == 0 or threshold == "no":
        return False
    # Multiplied, not divided: a run without samples has no share.
    if threshold.endswith("%"):
        return 100 * failed >= float(threshold[:-1]) * total
    return failed >= (1 if threshold == "yes" else int(threshold))


def validate_options(schema: type[C], options: Mapping[str, Any]) -> C:
    """Return options of the command line as a card.

    Args:
        schema: class of the card.
        options: values by name; those that are None keep their defaults.

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


def _labels(value: Any) -> tuple[str, ...]:
    """Return the labels of models in one or several items, separated by commas.

    Raises:
        ValueError: for a text that no table could show, or that names no folder.
    """
    items = value if isinstance(value, list | tuple) else [value]
    labels: list[str] = []
    for item in items:
        labels += [part.strip() for part in str(item).split(",")]
    for label in labels:
        fits = len(label) <= MAX_LABEL and label.isprintable() and "\\" not in label
        if not fits or not label.strip("."):
            raise ValueError(
                f"{label[:MAX_LABEL]!r} cannot name a model; give 1 to {MAX_LABEL} printable "
                "characters that are no backslash and not only dots"
            )
        if labels.count(label) > 1:
            raise ValueError(f"{label!r} names two models; give each a name of its own")
    return tuple(labels)


Names = Annotated[tuple[str, ...], BeforeValidator(split_names)]
Length = Annotated[int, BeforeValidator(_length)]
Lengths = Annotated[tuple[int, ...], BeforeValidator(_lengths)]
Device = Annotated[str, AfterValidator(_device)]
Attention = Annotated[str, AfterValidator(_attention)]


class Options(Card):
    """Base of the options of a command, none of which may be empty."""

    @field_validator("*", mode="before")
    @classmethod
    def _refuse_empty(cls, value: Any, info: ValidationInfo) -> Any:
        """Refuse empty texts: as a path, one would be the current folder."""
        items = value if isinstance(value, list | tuple) else [value]
        blank = any(isinstance(item, str) and not item.strip() for item in items)
        if blank and info.field_name != "about":
            raise ValueError("is empty; give a value, or leave it out")
        return value


class Suite(Options):
    """Settings of a run, by the names of the command line's options.

    Attributes:
        model: cards, card files, folders or hub ids.
        label: names of the models in tables and folders, one for each; by default those of their
            cards, folders or hub ids.
        method: methods, each with settings behind a colon.
        reference: method that the others are compared with; by default `original`, if it is one of
            them, else the first.
        bench: benchmarks (their default tasks) or single tasks such as "niah/single".
        lengths: tokens of prompt and answer together; by default multiples of the model's window
            that the protocol sets.
        protocol: how samples become prompts, such as "fair", "official" or "fair:truncation=left".
        prompts: wording of the prompts; overrides the protocol's.
        plugin: Python files that define more methods and benchmarks.
        limit: most samples of a cell; by default each task has its own number.
        precision: points; a cell stops when its interval is narrower than plus or minus these.
        decide: whether methods stop when they are shown to be better or worse than the reference,
            or equivalent to it.
        margin: points within which a method counts as equivalent; by default 5.
        seed: seed of everything that is drawn at random.
        output: folder of the results; by default named after the configuration.
        haystack: text file, folder or corpus that needles are hidden in; by default the pocket
            language.
        text: text file, folder or corpus for perplexity; by default the pocket language.
        data_dir: folder with benchmark files, searched before the cache.
        available: whether to leave out the tasks whose files are not on this machine.
        window: tokens of pretraining, for models whose configuration states a wrong number.
        dtype: data type of the weights as torch names it.
        device: device as torch names it; "auto" is a GPU if there is one.
        attention: attention backend.
        max_batch_tokens: most tokens of a batch, prompts and answers together. By default what
            fits the free memory of a GPU under protocol ``fair``, else one sample at a time.
        fail_on_error: how many failed samples fail the run: "yes" (one), "no" (none), a count
            such as "5", or a share such as "1%".
        engine: "local" for this process, "ray" for replicas of the model on many devices, "vllm"
            for vLLM in this process.
        devices: GPUs of this machine by number, or "cpu" for each process; each gets a replica.
        address: address of a Ray cluster, all of whose GPUs are used.
        gpus_per_replica: GPUs that one model is spread over.
    """

    model: Names = ("pocket",)
    label: Annotated[tuple[str, ...], BeforeValidator(_labels)] = ()
    method: Annotated[tuple[str, ...], BeforeValidator(as_tuple)] = ("original", "lampe")
    reference: str | None = None
    bench: Names = ("niah", "ppl")
    lengths: Lengths = ()
    protocol: str = "fair"
    prompts: str | None = None
    plugin: Annotated[tuple[Path, ...], BeforeValidator(as_tuple)] = ()
    limit: int | None = Field(default=None, ge=1, le=MAX_SAMPLES)
    precision: float | None = Field(default=None, gt=0, lt=50)
    decide: bool = False
    margin: float | None = Field(default=None, gt=0, lt=100)
    seed: int = Field(default=0, ge=0, le=MAX_SEED)
    output: Path | None = None
    haystack: Path | None = None
    text: Path | None = None
    data_dir: Path | None = None
    available: bool = False
    window: Length | None = Field(default=None, ge=1)
    dtype: Dtype | None = None
    device: Device = "auto"
    attention: Attention = AUTO
    max_batch_tokens: int | None = Field(default=None, ge=1, le=MAX_BATCH_TOKENS)
    fail_on_error: Annotated[str, BeforeValidator(_threshold)] = "yes"
    engine: Literal["local", "ray", "vllm"] = "local"
    devices: Names = ()
    address: str | None = None
    gpus_per_replica: int = Field(default=1, ge=1, le=MAX_GPUS)

    @model_validator(mode="before")
    @classmethod
    def _keys_as_options(cls, given: dict[str, Any]) -> dict[str, Any]:
        """Accept keys with hyphens, as the options are written."""
        named = {str(key).replace("-", "_"): value for key, value in given.items()}
        if len(named) < len(given):
            raise ValueError("a key stands twice, with hyphens and with underscores")
        return named

    @classmethod
    def from_options(cls, options: Mapping[str, Any]) -> Self:
        """Return a suite from options by name; those that are None keep their defaults.

        Raises:
            UserError: for a value that an option cannot have.
        """
        return validate_options(cls, options)

    @property
    def given_options(self) -> dict[str, Any]:
        """Return the options that were given, as a run records them; its folder may be moved."""
        return self.model_dump(mode="json", exclude_unset=True, exclude={"output"})

    @property
    def uses_ray(self) -> bool:
        """Return whether replicas on Ray run the samples, rather than this process."""
        return self.engine == "ray" or bool(self.devices)

    @property
    def runs_on_cpus(self) -> bool:
        """Return whether replicas on Ray run on CPUs."""
        return self.devices[:1] == ("cpu",)

    @property
    def protocol_label(self) -> str:
        """Return the protocol with the wording of prompts, as tables show it."""
        if self.prompts is None:
            return self.protocol
        separator = "," if ":" in self.protocol else ":"
        return f"{self.protocol}{separator}prompts={self.prompts}"
