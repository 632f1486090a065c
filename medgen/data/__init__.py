"""From folders of scans to slices: layouts, the NIfTI reader, the slice store, and demo data."""
