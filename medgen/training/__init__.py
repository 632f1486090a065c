"""The loop, and what is measured in it."""
