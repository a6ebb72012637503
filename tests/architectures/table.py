"""docs/models.md: which types of model can be patched, and why the others cannot.

Run: python -m tests.architectures.table > docs/models.md
"""

import transformers

from tests.architectures.shrink import types
from tests.architectures.verdicts import REFUSED, SUPPORTED, UNREPEATED, UNTRIED, verdict

HEAD = """# Models

`lampe.patch` decides by probing the model you give it, never by its name: it runs a few tokens twice, with the model's
rotary modules and with them silenced, and looks at what reaches each layer's attention (`lampe/patching/layer_probe.py`). So a model
that is not listed may well work, and one that cannot be done exactly is refused with a reason.

- **A method changes the layers that see further than the model's window.** A layer with a sliding window or chunks no
  larger than that meets no distance it was not trained on, and goes on as it was: true distances, its own rope, its own
  limit. Where all rotated layers are like that, a method changes nothing, and `lampe.patch` warns of it.
- **A layer that does not rotate queries and keys is left as it is.** It has no positions to change.
- Each rope of a model with several is told to the method with its own base and width. Soft caps on logits, attention
  sinks, scaled queries, and norms of queries and keys before the rotation stay as the model has them.
- **A norm with weights after the rotation is refused** (Hunyuan's). Weights by dimension do not commute with a
  rotation, so the logits are no function of the distance, and no relative position can say what they are elsewhere.

This list is generated from tiny random models of the types that transformers {version} offers, with every field of
their configurations as it is by default but for sizes: `python -m tests.architectures.table > docs/models.md`.
`tests/architectures` proves for each supported type: original positions equal the unpatched model; LaMPE, SelfExtend
and DCA equal the dense float64 oracle; answers through the cache equal recomputation (not of {unrepeated}, whose
own, unpatched, do not either).
"""


def document() -> str:
    """The whole file."""
    found = {name: verdict(name) for name in types()}
    parts = [
        HEAD.format(version=transformers.__version__, unrepeated=", ".join(sorted(UNREPEATED)))
    ]
    for state, title, column in (
        (SUPPORTED, "Supported", "layers"),
        (REFUSED, "Refused", "reason"),
        (UNTRIED, "Not tried", "why there is no tiny model of it"),
    ):
        rows = [
            f"| {name} | {each.said.replace('|', '/')} |"
            for name, each in found.items()
            if each.state == state
        ]
        parts.append(
            f"## {title}: {len(rows)}\n\n| type | {column} |\n|---|---|\n" + "\n".join(rows) + "\n"
        )
    return "\n".join(parts)


if __name__ == "__main__":
    print(document(), end="")
