"""vLLM plug-in: serves a model under a method of ``lampe``, in vLLM as it is.

vLLM loads ``plugin.register`` in every process by an entry point. It does nothing unless a model's
configuration has the key ``lampe`` (``--hf-overrides``); ``lampe-eval serve`` writes it.
"""
