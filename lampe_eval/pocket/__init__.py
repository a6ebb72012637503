"""Pocket model: a Llama of 2.6 million parameters that ships with the package.

It can do one thing well, which is to find what it has read, within a window of 256 tokens. That is
enough to see what a context extension method does beyond the window, in seconds, without a hub and
without an accelerator.
"""

from pathlib import Path

WEIGHTS = Path(__file__).parent / "weights"
"""Folder of the checkpoint, as `from_pretrained` of transformers takes it."""
