"""Where in a scan the head is, and where air."""
