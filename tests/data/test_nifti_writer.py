"""What is known of a file before it is written is what is read of it."""

from __future__ import annotations

import numpy as np

from medgen.data.grid import Grid
from medgen.data.store.nifti_writer import as_written, read_slice, write_slice


def test_an_image_as_it_is_written_is_what_is_read(tmp_path):
    values = np.random.default_rng(0).uniform(-1, 1, (16, 16)).astype(np.float32)
    values[0, :2] = -1, 1
    write_slice(tmp_path / "bravo.nii.gz", values, False, Grid.of_slices(16, 1.0, "axial"))
    read = read_slice(tmp_path / "bravo.nii.gz")
    assert as_written(values).tobytes() == read.tobytes()
    assert (read != values).any()
