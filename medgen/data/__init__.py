"""From folders of scans to slices: layouts, the NIfTI reader and the slice store."""
