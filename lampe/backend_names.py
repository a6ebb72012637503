"""Names of attention backends, which options are checked against before torch is imported."""

AUTO = "auto"
"""Name that stands for the first backend that can process a call."""
BACKEND_NAMES = ("triton", "flash", "blockwise", "dense")
"""Names of all backends, in the order in which "auto" tries them."""
