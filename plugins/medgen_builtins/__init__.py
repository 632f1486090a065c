"""Medgen's own plugins: a room per kind, a file per plugin, found by entry points like others."""
