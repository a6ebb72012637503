"""Calibration: fits LaMPE's mapping length, DPE's group sizes and attention factors to a model."""
