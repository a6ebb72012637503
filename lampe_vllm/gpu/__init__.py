"""Attention of vLLM on a GPU: paged decode by a Triton kernel, prefill by the library's backends.

The kernel runs in Triton's interpreter and compiles for GPUs, but has not run on one. ``decode``,
``prefill`` and ``paged_cache`` know nothing of vLLM; ``step`` divides a step between them, and
``backend`` is what vLLM loads.
"""
