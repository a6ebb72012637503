"""Patching of a live transformers model: probing its layers, attention, and prompt tracking."""
