"""Built-in features: what sets of images are compared by."""
