"""Recipes and plugins: from TOML to settings objects."""
