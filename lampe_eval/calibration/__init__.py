"""Calibration: fits LaMPE's mapping length and any index method's attention factor to a model."""
