"""Tests, which never connect to a hub; their threads wait without spinning, as in the program."""

import contextlib
import os

import torch

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

if not torch.cuda.is_available():
    # Triton decides at import whether a kernel is interpreted. Without a GPU, the kernels of its
    # own library have to be: import them while the variable is set.
    os.environ["TRITON_INTERPRET"] = "1"
    with contextlib.suppress(ImportError):
        import triton.language  # noqa: F401
    del os.environ["TRITON_INTERPRET"]
