"""What plugins are written against: hooks, interfaces, settings."""
