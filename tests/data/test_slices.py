"""From volumes to slices: foreground, scale, masks, resampling, and the faults of a patient's files.

Covers: medgen.data.store.plane, medgen.data.store.preprocess, medgen.data.store.resample.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from data.cohort import write_volume

from medgen.api.tables import DataSettings, MaskSettings
from medgen.data.store.preprocess import Channel, Slices, binary, cut, foreground, scale, window
from medgen.data.store.resample import resample, weights
from medgen.errors import DataError

EVERY_LABEL = MaskSettings()


def ball(size: int = 32, radius: float = 0.7) -> np.ndarray:
    axis = np.linspace(-1, 1, size)
    x, y, z = np.meshgrid(axis, axis, axis, indexing="ij")
    return x**2 + y**2 + z**2 < radius**2


def resized(
    picture: np.ndarray, size: int, spacing: tuple[float, float] = (1.0, 1.0)
) -> np.ndarray:
    extent = max(count * mm for count, mm in zip(picture.shape, spacing, strict=True))
    sides = [
        weights(count, mm, extent, size) for count, mm in zip(picture.shape, spacing, strict=True)
    ]
    return resample(picture[None].astype(np.float32), *sides)[0]


def cut_channels(
    folder: Path, size: int = 16, axis: str = "axial", **volumes: np.ndarray
) -> Slices | list[str]:
    channels = [
        Channel.of(
            write_volume(folder / f"{name}.nii", data), EVERY_LABEL if name == "seg" else None
        )
        for name, data in volumes.items()
    ]
    return cut(channels, DataSettings(image_size=size, axis=axis))


# Intensities


@pytest.mark.parametrize("background", [0.0, -2.5, 7.0])
def test_a_constant_background_is_found_whatever_its_value(background):
    inside = ball()
    data = np.where(inside, np.random.default_rng(0).normal(0, 1, inside.shape), background)
    assert (foreground(data) == inside).all()


def test_a_head_in_noise_is_found_with_its_dark_inside():
    rng, inside, ventricle = np.random.default_rng(0), ball(), ball(radius=0.2)
    signal = np.where(inside & ~ventricle, 100.0, 0.0)
    data = np.abs(
        signal + rng.normal(0, 8, signal.shape) + 1j * rng.normal(0, 8, signal.shape)
    ).astype(np.float32)
    assert (foreground(data) == inside).mean() > 0.999


def test_padding_around_a_noisy_scan_is_not_taken_for_its_background():
    rng, inside = np.random.default_rng(0), ball()
    data = np.abs(np.where(inside, 100, 0) + rng.normal(0, 8, inside.shape)).astype(np.float32)
    padded = np.pad(data, 4)
    assert (foreground(padded) == np.pad(inside, 4)).mean() > 0.999


def test_percentiles_of_the_foreground_become_the_ends_and_the_background_minus_one():
    inside = np.arange(2000) >= 1000
    data = np.where(inside, np.arange(2000.0), 5e5).reshape(2000, 1, 1)
    scaled = scale(data, inside.reshape(data.shape), 10, 90).ravel()
    assert (scaled[:1000] == -1).all()
    assert scaled[[1000, 1999]].tolist() == [-1, 1]
    assert scaled[[1099, 1101]] == pytest.approx(-1, abs=0.01)
    assert scaled[[1898, 1900]] == pytest.approx(1, abs=0.01)
    assert scaled[1499:1501].mean() == pytest.approx(0, abs=2e-3)  # a voxel of rim is left out


def test_headroom_keeps_apart_what_is_brighter_than_the_upper_percentile():
    inside = np.ones((2000, 1, 1), bool)
    data = np.arange(2000.0).reshape(2000, 1, 1)
    low, high = window(data, inside, 10, 50)
    assert window(data, inside, 10, 50, 1.0) == pytest.approx((low, high + (high - low)))
    assert scale(data, inside, 10, 50).ravel()[1200] == 1
    roomy = scale(data, inside, 10, 50, headroom=1.0).ravel()
    assert roomy[[round(low), round(high), round(2 * high - low)]] == pytest.approx(
        [-1, 0, 1], abs=2e-3
    )


def test_a_mask_given_for_a_scan_is_refused(tmp_path):
    with pytest.raises(DataError, match="has no contrast, 99 % of its foreground is 1"):
        scale(ball().astype(np.float32), ball(), 0.5, 99.5)


def test_a_mask_is_every_label_or_those_that_are_named():
    data = np.array([0.0, 0.99999997, 2.0, 3.0])
    assert binary(data, ()).tolist() == [False, True, True, True]
    assert binary(data, (1, 3)).tolist() == [False, True, False, True]


# Resampling


@pytest.mark.parametrize("offset", [(0, 0), (1, 0), (1, 1), (2, 3)])
def test_a_lesion_of_9_by_9_keeps_its_area_within_a_ring_after_halving(offset):
    picture = np.zeros((64, 64))
    picture[20 + offset[0] : 29 + offset[0], 20 + offset[1] : 29 + offset[1]] = 1
    assert 16 <= np.count_nonzero(resized(picture, 32) > 0.5) <= 25


def test_a_slice_that_has_its_size_already_is_left_as_it_is():
    picture = np.random.default_rng(0).random((24, 24)).astype(np.float32)
    assert (resized(picture, 24) == picture).all()


def test_a_slice_is_padded_to_a_square_in_its_middle():
    picture = np.ones((8, 16), np.float32)
    assert (resized(picture, 16) == np.pad(picture, ((4, 4), (0, 0)))).all()


def test_a_disc_stays_a_disc_when_voxels_are_not_square():
    rows, columns = np.meshgrid(np.arange(40) * 2 + 1, np.arange(80) + 0.5, indexing="ij")
    disc = (rows - 40) ** 2 + (columns - 40) ** 2 < 25**2
    found = np.argwhere(resized(disc, 40, (2.0, 1.0)) > 0.5)
    height, width = np.ptp(found, axis=0) + 1
    assert abs(height - width) <= 1
    assert len(found) == pytest.approx(np.pi * 12.5**2, rel=0.05)


def test_stripes_too_fine_for_the_new_size_become_grey():
    stripes = np.tile([0.0, 1.0], (32, 16))
    assert resized(stripes, 8)[1:-1, 1:-1] == pytest.approx(0.5, abs=1e-6)


# A patient


def scan(size: int = 16) -> np.ndarray:
    return np.where(ball(size), np.random.default_rng(1).normal(500, 50, (size,) * 3), 0).astype(
        np.int16
    )


@pytest.mark.parametrize(("axis", "number"), [("sagittal", 0), ("coronal", 1), ("axial", 2)])
def test_slices_are_stacked_along_the_axis(tmp_path, axis, number):
    data = scan()
    data[:, 12:] = data[:, :, :5] = 0
    slices = cut_channels(tmp_path, axis=axis, bravo=data)
    shown = np.moveaxis(data, number, 0)
    expected = np.moveaxis(scale(data.astype(np.float32), data > 0, 0.5, 99.5), number, 0)
    assert slices.position.tolist() == np.flatnonzero(shown.any(axis=(1, 2))).tolist()
    assert slices.stacks[0] == pytest.approx(expected[slices.position], abs=1e-3)
    assert slices.foreground == pytest.approx((shown[slices.position] > 0).mean(axis=(1, 2)))


def test_the_background_is_exactly_minus_one_after_resampling(tmp_path):
    stack = cut_channels(tmp_path, size=11, bravo=scan()).stacks[0]
    assert stack.dtype == np.float16
    assert (stack[:, 0, 0] == -1).all()
    assert stack.max() <= 1


def test_slices_of_masks_alone_are_all_kept_and_count_as_foreground(tmp_path):
    seg = ball(16, 0.3).astype(np.uint8)
    slices = cut_channels(tmp_path, seg=seg)
    assert slices.position.tolist() == list(range(16))
    assert (slices.foreground == 1).all()
    assert slices.area[:, 0].tolist() == seg.sum(axis=(0, 1)).tolist()


def test_a_volume_of_another_shape_is_told_with_both_files_and_shapes(tmp_path):
    (fault,) = cut_channels(tmp_path, bravo=scan(), seg=ball(16)[:, :, :12].astype(np.uint8))
    assert str(fault).startswith(
        f"{tmp_path / 'seg.nii'}: has 16 x 16 x 12 voxels, but {tmp_path / 'bravo.nii'} has 16 x 16 x 16"
    )


def test_a_volume_at_another_place_is_told_with_both_files_and_places(tmp_path):
    paths = [
        write_volume(tmp_path / name, scan(), (1, 1, mm))
        for name, mm in (("a.nii", 1), ("b.nii", 1.1))
    ]
    (fault,) = cut([Channel(path) for path in paths], DataSettings())
    line = str(fault)
    assert "b.nii: spans (0, 0, 0) to (15, 15, 16.5) mm" in line
    assert "a.nii spans (0, 0, 0) to (15, 15, 15) mm" in line


def test_rounding_in_the_header_is_no_other_place(tmp_path):
    paths = [
        write_volume(tmp_path / name, scan(), (mm, 1, 1))
        for name, mm in (("a.nii", 1), ("b.nii", 1.0001))
    ]
    assert isinstance(cut([Channel(path) for path in paths], DataSettings()), Slices)


def test_every_faulty_file_of_a_patient_is_told(tmp_path):
    for name in ("a.nii", "b.nii"):
        (tmp_path / name).write_bytes(b"no scan")
    faults = cut([Channel(tmp_path / name) for name in ("a.nii", "b.nii")], DataSettings())
    assert [fault.where for fault in faults] == [tmp_path / name for name in ("a.nii", "b.nii")]
