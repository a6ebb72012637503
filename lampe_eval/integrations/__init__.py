"""Models of other harnesses: patched models as lm-evaluation-harness and inspect_ai load them."""
