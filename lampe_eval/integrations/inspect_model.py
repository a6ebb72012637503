"""Models of inspect_ai that are patched with a method: its Hugging Face provider, then a patch.

inspect eval task.py --model lampe/pocket -M method=lampe -M mapping_length=128
"""

from typing import Any

from inspect_ai.model import ChatMessage, GenerateConfig, ModelOutput
from inspect_ai.model._providers.hf import HuggingFaceAPI
from inspect_ai.tool import ToolChoice, ToolInfo

from lampe.backend_names import AUTO
from lampe_eval.errors import UserError
from lampe_eval.integrations.patched_source import PatchedSource

PROVIDER_ARGUMENTS = {
    "device",
    "tokenizer",
    "batch_size",
    "chat_template",
    "use_chat_template",
    "tokenizer_call_args",
    "enable_thinking",
    "hidden_states",
}
"""Model arguments of the Hugging Face provider; others are settings of the method."""


class LampeAPI(HuggingFaceAPI):  # type: ignore[misc]
    """Hugging Face model of inspect_ai, patched with a method; answers are greedy by default.

    Args:
        model_name: card, card file, folder or hub id, as for `lampe-eval run --model`.
        base_url: not used.
        api_key: token for the hub.
        config: settings of generation; a temperature above 0 samples.
        method: a method, also with settings: "lampe:mapping_length=128".
        window: tokens of pretraining, where the configuration states a wrong number.
        dtype: data type of the weights; by default that of the model's card.
        attention: name of an attention backend, or "auto".
        model_args: arguments of the Hugging Face provider; others are settings of the method.

    Raises:
        UserError: for a name, a setting or a value that does not exist, or a model that cannot be
            patched.
    """

    def __init__(
        self,
        model_name: str,
        base_url: str | None = None,
        api_key: str | None = None,
        config: GenerateConfig | None = None,
        *,
        method: str = "lampe",
        window: int | None = None,
        dtype: str | None = None,
        attention: str = AUTO,
        **model_args: Any,
    ) -> None:
        own = {name: value for name, value in model_args.items() if name in PROVIDER_ARGUMENTS}
        settings = {name: value for name, value in model_args.items() if name not in own}
        patched = PatchedSource.of_arguments(
            model_name, method, settings, window=window, dtype=dtype, attention=attention
        )
        source = patched.source
        if source.gguf:
            raise UserError(
                f"{source.file}: inspect_ai's Hugging Face provider reads no GGUF files; give a "
                "checkpoint in safetensors"
            )
        super().__init__(
            model_name,
            base_url,
            api_key,
            config or GenerateConfig(),
            model_path=source.path,
            revision=source.revision,
            dtype=source.dtype,
            do_sample=False,
            **own,
        )
        patched.patch(self.model.eval())

    async def generate(
        self,
        input: list[ChatMessage],
        tools: list[ToolInfo],
        tool_choice: ToolChoice,
        config: GenerateConfig,
    ) -> ModelOutput:
        """Return an answer; inspect_ai's provider samples unless it is told not to."""
        # Read before the first await of the call below, so that calls do not mix.
        self.do_sample = bool(config.temperature)
        # transformers refuses a temperature of 0.
        greedy_or_set = config.model_copy(update={"temperature": config.temperature or None})
        return await super().generate(input, tools, tool_choice, greedy_or_set)
