"""What is typed after `medgen`."""
