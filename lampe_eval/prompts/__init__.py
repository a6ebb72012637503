"""Protocols, chat templates, truncation and tokenization: how a message becomes token ids."""
