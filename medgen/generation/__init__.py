"""Image and mask pairs from trained models."""
