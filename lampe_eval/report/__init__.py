"""Rendering of results as tables, pictures and pages; nothing is computed here."""
