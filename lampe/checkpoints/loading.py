"""Classes by which transformers loads an exported checkpoint: the original model, then patched.

Checkpoints name this module in a file of their own, so its name and its classes must stay.
"""

from importlib.metadata import version
from typing import Any

from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel

from lampe.errors import ExportError, LampeError
from lampe.methods import Method, method_of
from lampe.patching.patch import patch

DISTRIBUTION = "lampe-eval"
"""Name under which this package is installed."""
OTHER_CLASSES = {"vocab_size": "load it with AutoModelForCausalLM and trust_remote_code=True"}
"""Value that no model can be made of, for those who name the class of the original model.

Such a class would load its weights and skip the checkpoint's code.
"""


class LampeConfig(PreTrainedConfig):  # type: ignore[no-untyped-call]
    """Configuration of an exported checkpoint.

    It has a type of its own, which transformers does not know without the checkpoint's code: a
    checkpoint of a known type would load without that code, and then be silently unpatched.

    Attributes:
        text_config: configuration of the original model.
        lampe_export: method, settings and window, and the original configuration.
    """

    model_type = "lampe"
    sub_configs = {"text_config": AutoConfig}  # noqa: RUF012

    def __init__(self, lampe_export: dict[str, Any] | None = None, **options: Any) -> None:
        # transformers also makes configurations without values, to learn their defaults.
        original = None if lampe_export is None else AutoConfig.for_model(**lampe_export["config"])
        self.lampe_export = lampe_export
        self.text_config = original
        super().__init__(
            **{name: value for name, value in options.items() if name not in OTHER_CLASSES}
        )


class LampeForCausalLM(PreTrainedModel):  # type: ignore[no-untyped-call]
    """Loader of exported checkpoints, in place of a model class; it has no instances."""

    config_class = LampeConfig

    def __init__(self, *inputs: Any, **options: Any) -> None:
        raise ExportError(
            "an exported checkpoint is patched while it loads, so a model cannot be made of its "
            "configuration: call AutoModelForCausalLM.from_pretrained"
        )

    @classmethod
    def from_pretrained(  # type: ignore[override]
        cls, path: Any, *inputs: Any, config: Any = None, **options: Any
    ) -> Any:
        """Load the original model of an exported checkpoint, and patch it.

        Raises:
            ExportError: for a method or setting that the installed version does not have.
            UnsupportedModel: where the model cannot be patched exactly.
        """
        if not isinstance(config, LampeConfig):
            names = ("cache_dir", "force_download", "local_files_only", "token", "revision")
            of_hub = {name: options[name] for name in names if name in options}
            config = LampeConfig.from_pretrained(path, **of_hub)
        method = exported_method(config.lampe_export)
        loaded = AutoModelForCausalLM.from_pretrained(
            path, *inputs, config=config.text_config, **options
        )
        model = loaded[0] if isinstance(loaded, tuple) else loaded
        patch(model, method, window=config.lampe_export["window"])
        return loaded


def exported_method(record: dict[str, Any]) -> Method:
    """Return the method that a checkpoint's configuration names.

    Raises:
        ExportError: where the installed version does not have it, or one of its settings.
    """
    try:
        return method_of(record["method"], **record["settings"])
    except LampeError as error:
        raise ExportError(
            f"{error}: this checkpoint was exported by {DISTRIBUTION} {record['version']}, and "
            f"{version(DISTRIBUTION)} is installed; install that version or a later one"
        ) from None
