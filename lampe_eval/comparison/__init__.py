"""Comparison of two results: in which settings, prompts, answers and scorers they differ."""
