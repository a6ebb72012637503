"""Patching of a live transformers model: probe its layers, attach attention, follow a prompt."""
