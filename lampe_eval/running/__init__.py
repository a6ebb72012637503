"""Runs: names resolved, samples drawn, batches given to workers, and records stored."""
