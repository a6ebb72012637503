"""Write docs/models.md: which types of model can be patched, and why the others cannot.

Run: python -m tools.supported_models_page > docs/models.md
"""

import transformers

from tests.architectures.shrink import types
from tests.architectures.verdicts import NOT_REPRODUCIBLE, REFUSED, SUPPORTED, UNTRIED, verdict

HEAD = """# Models

`lampe.patch` decides by probing the model, never by its name. It runs a few tokens twice, once with
the model's rotary modules and once with them disabled, and looks at what reaches each layer's
attention (`lampe/patching/layer_probe.py`). A model that is not listed may therefore well work, and
one that cannot be patched exactly is refused with a reason.

- **A method changes the layers that see further than the model's window.** A layer with a sliding
  window or chunks no larger than that meets no distance it was not trained on. It stays as it was:
  true distances, its own rope, its own limit. Where all rotated layers are like that, a method
  changes nothing, and `lampe.patch` warns of it.
- **A layer that does not rotate queries and keys stays as it is.** It has no positions to change.
- A model with several ropes gives the method each of them with its own base and width. Soft caps on
  logits, attention sinks, scaled queries, and norms of queries and keys before the rotation stay as
  the model has them.
- **A norm with weights after the rotation is refused** (Hunyuan's). Weights by dimension do not
  commute with a rotation, so the logits are no function of the distance, and no relative position
  could describe them.

This list is generated from tiny random models of the types that transformers {version} offers, with
every field of their configurations at its default except sizes:
`python -m tools.supported_models_page > docs/models.md`.
`tests/architectures` proves for each supported type that original positions equal the unpatched
model, that LaMPE, SelfExtend and DCA equal the dense float64 oracle, and that answers through the
cache equal recomputation (except for {not_reproducible}, whose own answers, unpatched, do not
either).
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
