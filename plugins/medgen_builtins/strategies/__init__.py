"""Strategies: how it is trained and sampled."""
