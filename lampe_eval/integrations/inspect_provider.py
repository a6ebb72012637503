"""Entry point of inspect_ai: the model provider ``lampe``.

inspect_ai imports this file whenever it starts, so that it imports no torch.
"""

from inspect_ai.model import ModelAPI, modelapi


@modelapi(name="lampe")  # type: ignore[untyped-decorator]
def lampe() -> type[ModelAPI]:
    """Return the provider of `--model lampe/MODEL`."""
    from lampe_eval.integrations.inspect_model import LampeAPI

    return LampeAPI
