"""A grid says where its points lie, whatever its number of axes."""

from __future__ import annotations

import pickle

import nibabel as nib
import numpy as np
import pytest

from medgen.api.tables import AXES
from medgen.data.grid import Grid
from medgen.data.scans.nifti import gate

OBLIQUE = np.array([[0.6, 0, -0.8, 3], [0, 2, 0, 4], [0.8, 0, 0.6, 5], [0, 0, 0, 1]])


@pytest.mark.parametrize("axis", AXES)
def test_a_grid_of_slices_knows_its_axis_and_its_millimetres(axis: str) -> None:
    grid = Grid.of_slices(128, 1.5, axis)
    assert (grid.shape, grid.spacing, grid.axis) == ((128, 128), (1.5, 1.5), axis)
    assert (grid.extent, grid.cell) == ((192.0, 192.0), 2.25)


@pytest.mark.parametrize(
    ("axis", "place"),
    [("sagittal", [0, 3, 8, 1]), ("coronal", [3, 0, 8, 1]), ("axial", [3, 8, 0, 1])],
)
def test_the_points_of_a_slice_lie_across_its_axis(axis: str, place: list[float]) -> None:
    grid = Grid.of_slices(16, 1.0, axis)
    assert (grid.affine @ [3, 8, 1]).tolist() == place


@pytest.mark.parametrize("axis", AXES)
def test_a_slice_as_a_volume_is_one_voxel_thick_and_lies_where_it_lay(axis: str) -> None:
    grid = Grid.of_slices(16, 2.0, axis)
    volume = grid.as_volume()
    across = AXES.index(axis)
    assert volume.shape == tuple(1 if each == across else 16 for each in range(3))
    assert volume.spacing == (2.0, 2.0, 2.0)
    assert np.array_equal(volume.affine, np.diag([2.0, 2.0, 2.0, 1.0]))
    assert volume.axis is None
    assert volume.as_volume() == volume


def test_a_volume_has_no_axis_of_its_slices_and_mm3() -> None:
    grid = Grid((4, 5, 6), (1.0, 2.0, 1.0), OBLIQUE)
    assert (grid.axis, grid.extent, grid.cell) == (None, (4.0, 10.0, 6.0), 2.0)
    assert Grid((4, 5), (1.0, 2.0), np.delete(OBLIQUE, 2, axis=1)).axis is None  # an oblique slice


def test_the_grid_of_a_file_is_where_its_header_says(tmp_path) -> None:
    nib.save(nib.Nifti1Image(np.ones((4, 5, 6), np.int16), OBLIQUE), tmp_path / "a.nii")
    grid = gate.place(tmp_path / "a.nii")
    assert sorted(grid.shape) == [4, 5, 6]
    assert isinstance(grid, Grid)
    corner = np.array([*(count - 1 for count in grid.shape), 1])
    assert np.allclose(
        np.linalg.norm(grid.affine @ corner - grid.affine[:, 3]),
        np.linalg.norm(OBLIQUE @ [3, 4, 5, 0]),
    )


def test_grids_are_equal_if_their_points_are() -> None:
    grid = Grid.of_slices(16, 2.0, "axial")
    assert grid == Grid.of_slices(16, 2.0, "axial")
    assert grid == pickle.loads(pickle.dumps(grid))
    others = [
        Grid.of_slices(17, 2.0, "axial"),
        Grid.of_slices(16, 2.1, "axial"),
        Grid.of_slices(16, 2.0, "coronal"),
    ]
    assert all(grid != other for other in others)


@pytest.mark.parametrize(
    ("grid", "words"),
    [
        (Grid.of_slices(128, 1.5, "axial"), "128 px of 1.5 mm"),
        (Grid((4, 5), (1.0, 1.23456), np.eye(4)[:, 1:]), "4 x 5 px of 1 x 1.23456 mm"),
        (Grid((64, 64, 32), (1.0, 1.0, 2.0), np.eye(4)), "64 x 64 x 32 px of 1 x 1 x 2 mm"),
    ],
)
def test_a_grid_in_a_message_is_short(grid: Grid, words: str) -> None:
    assert str(grid) == words
