"""Model card of an exported checkpoint: what it is, how it was made, how it is loaded."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")

CARD = """---
library_name: transformers
pipeline_tag: text-generation
{base_model}tags:
- long-context
- lampe
---

# {title}

The weights are those of `{source}`, unchanged. The method `{method}` changes what the model does
with positions, so that it reads prompts longer than the window on which it was trained. Nothing was
trained.

| | |
|---|---|
| method | `{method}` |
| settings | {settings} |
| window of the original model | {window} tokens |
| longest prompt | {longest} |
| exported by | lampe-eval {version} |

{how}

```python
from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained("PATH"{trust})
tokenizer = AutoTokenizer.from_pretrained("PATH"{trust})
```

Licence and limits are those of `{source}`. The export did not measure how well long prompts are
answered.
"""

CONFIGURED = """The method is part of the configuration (`rope_parameters`): any program that reads
those loads the checkpoint, and needs nothing else. The settings hold for all prompts, short ones
included."""

PATCHED = """The method is neither in the weights nor in the rope of the configuration. A few lines
of code in this checkpoint call lampe-eval, which patches the model while it loads: lampe-eval
{version} or later must be installed, and transformers must be allowed to run the code. Settings
that are not listed are derived from the window and, where the method says so, from the length of
each prompt. Programs that do not load models by transformers refuse the checkpoint."""


def model_card(record: Mapping[str, Any], max_length: int | None, *, is_patched: bool) -> str:
    """Return the model card in Markdown, with its metadata in YAML.

    Args:
        record: method, settings, window, version and source, as in the configuration.
        max_length: tokens of the longest prompt; None where it is not stated.
        is_patched: whether the model is patched while it loads.
    """
    settings = {name: value for name, value in record["settings"].items() if value is not None}
    repository = record["source"].partition("@")[0]
    return CARD.format(
        **{key: record[key] for key in ("method", "window", "version", "source")},
        # JSON texts are YAML texts.
        base_model=f"base_model: {json.dumps(repository)}\n"
        if HUB_ID.fullmatch(repository)
        else "",
        title=f"{Path(repository).name} with {record['method']}",
        settings=", ".join(f"`{name}={value}`" for name, value in settings.items()) or "none",
        longest=f"{max_length} tokens" if max_length else "not stated",
        how=(PATCHED if is_patched else CONFIGURED).format(version=record["version"]),
        trust=", trust_remote_code=True" if is_patched else "",
    )


def source_of(model: PreTrainedModel) -> str:
    """Return where a model comes from: hub id and commit, or the name of a folder."""
    name = str(model.name_or_path)
    if not name:
        return type(model).__name__
    path = Path(name)
    # The rest of a path says more about a machine than about a model.
    if path.is_dir() or not HUB_ID.fullmatch(name):
        return path.name
    commit = getattr(model.config, "_commit_hash", None)
    return f"{name}@{commit}" if commit else name
