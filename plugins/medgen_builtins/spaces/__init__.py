"""Spaces: where it is diffused."""
