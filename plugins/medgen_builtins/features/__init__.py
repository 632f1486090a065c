"""Features: what images are compared by, `[n, d]`."""
