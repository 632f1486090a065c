"""Weights that come along; each has a model card beside it."""
