"""Write docs/models.md: which types of model can be patched, and why the others cannot.

Run: python -m tools.supported_models_page > docs/models.md
"""

import transformers

from tests.architectures.shrink import types
from tests.architectures.verdicts import NOT_REPRODUCIBLE, REFUSED, SUPPORTED, UNTRIED, verdict

HEAD = """# Models

`lampe.patch` decides by probing the model you give it, never by its name. It runs a few tokens
twice, with the model's rotary modules and with those disabled, and compares what reaches each
layer's attention (`lampe/patching/layer_probe.py`). So a model that is not listed may well work,
and a model that cannot be patched exactly is refused with a reason.

- **A method changes the layers that attend beyond the model's window.** A layer with a sliding
  window or chunks no larger than that meets no distance that it was not trained on. It keeps its
  true distances, its own rope and its own limit. Where all rotated layers are like that, a method
  changes nothing, and `lampe.patch` warns of it.
- **A layer that does not rotate queries and keys stays as it is.** It has no positions to change.
- Where a model has several ropes, the method gets each one with its own base and width. Soft caps
  on logits, attention sinks, scaled queries, and norms of queries and keys before the rotation stay
  as the model has them.
- **A norm with weights after the rotation is refused** (Hunyuan's). Weights per dimension do not
  commute with a rotation, so the logits depend on more than the distance, and no relative position
  can replace the original one.

This list is generated from tiny random models of the types that transformers {version} offers, with
every field of their configurations at its default except for sizes:
`python -m tools.supported_models_page > docs/models.md`.
`tests/architectures` checks for each supported type: original positions equal the unpatched model;
LaMPE, SelfExtend and DCA equal the dense float64 oracle; answers through the KV cache equal
recomputation (except for {not_reproducible}, where they differ unpatched as well).
"""

SECTIONS = (
    (SUPPORTED, "Supported", "layers"),
    (REFUSED, "Refused", "reason"),
    (UNTRIED, "Not tried", "why there is no tiny model of it"),
)
"""State, title and second column of each section."""


def supported_models_page() -> str:
    """Return the page; it builds and probes a tiny model of every type."""
    verdicts = {name: verdict(name) for name in types()}
    not_reproducible = ", ".join(sorted(NOT_REPRODUCIBLE))
    parts = [HEAD.format(version=transformers.__version__, not_reproducible=not_reproducible)]
    for state, title, column in SECTIONS:
        rows: list[str] = []
        for name, outcome in verdicts.items():
            if outcome.state == state:
                rows.append(f"| {name} | {outcome.reason.replace('|', '/')} |")
        heading = f"## {title}: {len(rows)}\n\n| type | {column} |\n|---|---|\n"
        parts.append(heading + "\n".join(rows) + "\n")
    return "\n".join(parts)


if __name__ == "__main__":
    print(supported_models_page(), end="")
