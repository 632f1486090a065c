"""The operating system as it is: files, locks, streams, signals, and names in any encoding."""
