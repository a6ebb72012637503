"""Scores, averages, differences and comparisons computed from stored samples."""
