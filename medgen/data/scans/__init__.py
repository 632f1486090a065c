"""Scans as they lie on disk: found, read, checked."""
