"""Metrics of the benchmarks, estimates of cells, and scoring of prediction files."""
