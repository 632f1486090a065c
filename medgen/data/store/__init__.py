"""Slices as training reads them: made once, memory-mapped, found by content."""
