"""Model and method as the arguments of another harness name them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedModel

import lampe
from lampe_eval.checkpoint_files import find_model
from lampe_eval.errors import UserError
from lampe_eval.method_specs import parse_methods
from lampe_eval.models import ModelSource, describe_model


@dataclass(frozen=True)
class PatchedSource:
    """Model whose weights are not loaded yet, with the method that it will be patched with.

    Attributes:
        source: the model.
        method: the method with all settings.
        attention: name of an attention backend, or "auto".
    """

    source: ModelSource
    method: lampe.Method
    attention: str

    @classmethod
    def of_arguments(
        cls,
        model: str,
        method: str,
        settings: Mapping[str, Any],
        *,
        window: int | None,
        dtype: str | None,
        attention: str,
    ) -> "PatchedSource":
        """Look up a model and a method.

        Args:
            model: card, card file, folder, GGUF file or hub id, as for `--model`.
            method: a method as for `--method`, such as "lampe" or "lampe:mapping_length=128".
            settings: further settings of the method by name.
            window: tokens of pretraining; overrides the card and the configuration.
            dtype: data type of the weights; overrides the card.
            attention: name of an attention backend, or "auto".

        Raises:
            UserError: for a name, a setting or a value that does not exist, or a model that cannot
                be used.
        """
        specs = parse_methods([method])
        if len(specs) != 1:
            raise UserError(f"method: {method!r} names {len(specs)} methods; give one")
        spec = specs[0].with_settings(**settings) if settings else specs[0]
        card, label = find_model(model)
        source = describe_model(card, label, window=window, dtype=dtype)
        return cls(source, spec.build(source.settings), attention)

    def patch(self, model: PreTrainedModel) -> lampe.Handle:
        """Patch the loaded model with the method.

        Raises:
            UserError: if the model cannot be patched with the method.
        """
        window = self.source.geometry.window
        try:
            return lampe.patch(model, self.method, window=window, attention=self.attention)
        except lampe.LampeError as error:
            label = self.method.label
            raise UserError(f"model {self.source.name!r} under {label!r}: {error}") from None
