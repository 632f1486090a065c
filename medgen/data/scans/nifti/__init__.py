"""The gate that every scan passes."""
