"""Modes: what is generated, given what."""
