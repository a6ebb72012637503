"""Checkpoints that carry a method: written by ``lampe.export``, and patched while they load."""
