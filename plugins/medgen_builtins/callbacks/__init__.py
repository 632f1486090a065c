"""What takes part in a run."""
