"""Fitting a method to a model: LaMPE's mapping length, and every index method's attention_factor, to the prompt's length."""
