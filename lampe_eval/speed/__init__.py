"""What methods cost beside plain attention: time of a prompt and of an answer's tokens, and memory."""
