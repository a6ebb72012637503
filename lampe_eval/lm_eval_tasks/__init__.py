"""Tasks of lm-evaluation-harness: their data, prompts, requests and metrics; extra ``lm-eval``."""
