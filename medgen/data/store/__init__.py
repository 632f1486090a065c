"""Slices and volumes as training reads them: made once, memory-mapped, found by content."""
