"""New lesions in real scans: where they go, what they look like, and files that differ from the
host nowhere else.
"""
