"""Hold one run: state, folder, checkpoints, metrics."""
