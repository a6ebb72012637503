"""Time and memory of methods relative to plain attention, for a prompt and an answer's tokens."""
