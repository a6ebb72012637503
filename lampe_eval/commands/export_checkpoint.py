"""Command `lampe-eval export MODEL --method M`: a checkpoint that loads with a method."""

import warnings
from pathlib import Path

import lampe
from lampe.checkpoints.draft_folder import refuse_output
from lampe.checkpoints.export import check_length
from lampe_eval import terminal
from lampe_eval.cards import ModelCard
from lampe_eval.errors import UserError, report_warning
from lampe_eval.method_specs import MethodSpec
from lampe_eval.models import describe_model, load_model
from lampe_eval.running.resolved_settings import warn_beyond_window


def export_checkpoint(
    model: tuple[ModelCard, str],
    spec: MethodSpec,
    output: Path,
    *,
    max_length: int | None,
    window: int | None,
    dtype: str | None,
    overwrite: bool,
) -> None:
    """Write a model with a method as a checkpoint, and print how it is loaded.

    Args:
        model: card of the model, and its name.
        spec: the method.
        output: folder to write.
        max_length: tokens of the longest prompt; None where it is not stated.
        window: tokens of pretraining; the model's own by default.
        dtype: data type of the weights; that of the model's card by default.
        overwrite: whether an exported checkpoint is replaced.

    Raises:
        UserError: if the model cannot be used, settings do not fit, or the folder cannot be
            written.
    """
    source = describe_model(*model, window=window, dtype=dtype)
    method = spec.build(source.settings)
    with warnings.catch_warnings(record=True) as caught:
        try:
            # Before weights load.
            refuse_output(output, overwrite)
            check_length(method, source.geometry, max_length)
            if max_length is not None:
                warn_beyond_window(spec.label, method, source.geometry, max_length)
            loaded, tokenizer = load_model(source, "cpu")
            folder = lampe.export(
                loaded,
                method,
                output,
                window=source.geometry.window,
                max_length=max_length,
                tokenizer=tokenizer,
                source=f"{source.name}@{source.commit}" if source.commit else source.name,
                overwrite=overwrite,
            )
        except lampe.LampeError as error:
            raise UserError(f"export: {error}") from None
    for warning in caught:
        if issubclass(warning.category, lampe.PositionWarning):
            report_warning(str(warning.message))
    console = terminal.console()
    needs_code = "auto_map" in (folder / "config.json").read_text(encoding="utf-8")
    how = (
        "patched while it loads: needs lampe-eval and trust_remote_code=True"
        if needs_code
        else "plain configuration: needs nothing but transformers"
    )
    console.print(f"written to {folder}: {spec.label}, {how}", soft_wrap=True, markup=False)
