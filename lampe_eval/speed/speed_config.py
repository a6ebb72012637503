"""What a user asks of ``lampe-eval speed``, checked before anything runs."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BeforeValidator, Field, model_validator

from lampe_eval.cards import Card, shipped_names
from lampe_eval.errors import UserError, unknown_name
from lampe_eval.method_specs import MethodSpec, parse_methods
from lampe_eval.suite import Length, Lengths, Names, as_list, validate_options


class SpeedConfig(Card):
    """What to measure.

    Attributes:
        model: card, folder or hub id of a checkpoint; "pocket" by default.
        shape: instead of a model, one of ``configs/shapes`` with random weights, which cost what others do.
        layers: of the shape, fewer than it has.
        method: methods, each with settings behind a colon.
        lengths: of prompts, in tokens.
        attention: backends; every method is measured with each.
        pairs: of plain attention and the method, each of which gives a ratio.
        chunk: tokens of a prompt that are read at a time; all by default.
        window: tokens of pretraining, where the model's configuration is wrong about it.
        dtype: of the weights; by default the checkpoint's, of a shape bfloat16 on a GPU and float32 elsewhere.
        device: as torch names it; "auto" takes a GPU where there is one.
        output: folder of the results.
        plugin: Python files that define further methods.
    """

    model: str | None = None
    shape: str | None = None
    layers: int | None = Field(default=None, ge=1)
    method: Annotated[tuple[str, ...], BeforeValidator(as_list)] = (
        "original",
        "selfextend",
        "dca",
        "lampe",
    )
    lengths: Annotated[Lengths, Field(min_length=1)] = (4096, 16_384)
    attention: Annotated[Names, Field(min_length=1)] = ("auto",)
    pairs: int = Field(default=3, ge=1)
    chunk: int | None = Field(default=None, ge=1)
    window: Length | None = Field(default=None, ge=1)
    dtype: str | None = None
    device: str = "auto"
    output: Path | None = None
    plugin: Annotated[tuple[Path, ...], BeforeValidator(as_list)] = ()

    @model_validator(mode="after")
    def _agree(self) -> Self:
        if self.layers and not self.shape:
            raise ValueError("--layers is for a --shape; a checkpoint has its own")
        if self.shape and self.model:
            raise ValueError("--shape takes the place of a --model: give one of them")
        return self

    @classmethod
    def from_options(cls, options: Mapping[str, Any]) -> Self:
        """An order from options by name; those that are None keep their defaults.

        Raises:
            UserError: for a value that an option cannot have, and a name that does not exist.
        """
        order = validate_options(cls, options)
        if order.shape and order.shape not in shipped_names("shapes"):
            raise unknown_name(
                "shape", order.shape, shipped_names("shapes"), "the files in configs/shapes"
            )
        if not order.specs:
            raise UserError("--method: no method given; see: lampe-eval list methods")
        return order

    @property
    def specs(self) -> list[MethodSpec]:
        """The methods."""
        return parse_methods(self.method)

    @property
    def checkpoint(self) -> str:
        """The model, where no shape takes its place."""
        return self.model or "pocket"

    @property
    def name(self) -> str:
        """What is measured, as tables call it."""
        layers = f", {self.layers} of its layers" if self.layers else ""
        return f"shape {self.shape}{layers}" if self.shape else self.checkpoint

    @property
    def folder(self) -> Path:
        """Where results go."""
        return self.output or Path("results/speed") / (self.shape or Path(self.checkpoint).stem)
