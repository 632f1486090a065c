"""The head is found whole, and nothing else, in every background that scans have.

Covers: medgen.data.store.foreground.air, medgen.data.store.foreground.detect, medgen.data.store.foreground.fills,
medgen.data.store.head,
medgen.data.store.foreground.head_in_noise, medgen.data.store.nifti_writer, medgen.data.store.foreground.restless_air.
"""

from __future__ import annotations

import numpy as np
import pytest
from data.cohort import write_volume
from scipy import ndimage

from medgen.api.tables import DataSettings
from medgen.data.grid import Grid
from medgen.data.store.foreground.detect import (
    BORDERED,
    CONSTANT,
    CONSTANTS,
    NOISE,
    NONE,
    RESTLESS,
    detect,
)
from medgen.data.store.nifti_writer import write_slice
from medgen.data.store.preprocess import Channel, Slices, cut, window

SHAPE = (52, 60, 40)


def grid(shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    return np.stack(np.meshgrid(*[np.linspace(-1, 1, side) for side in shape], indexing="ij"))


def ellipsoid(*radii: float, shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    return (
        np.hypot.reduce([axis / radius for axis, radius in zip(grid(shape), radii, strict=True)])
        < 1
    )


HEAD, VENTRICLE = ellipsoid(0.55, 0.6, 0.65), ellipsoid(0.1, 0.2, 0.2)


def signal() -> np.ndarray:
    texture = ndimage.gaussian_filter(np.random.default_rng(0).normal(size=SHAPE), 1.5)
    return np.where(HEAD & ~VENTRICLE, 300 + 60 * texture / texture.std(), 0)


def noisy(sigma: float = 8) -> np.ndarray:
    rng = np.random.default_rng(1)
    return np.hypot(signal() + rng.normal(0, sigma, SHAPE), rng.normal(0, sigma, SHAPE)).astype(
        np.float32
    )


def rotated(data: np.ndarray, fill: float = 0, order: int = 1) -> np.ndarray:
    return ndimage.rotate(data.astype(np.float32), 8, (1, 2), reshape=False, order=order, cval=fill)


x, y, z = grid()
FIELDS = {
    "circle": x**2 + y**2 < 1,
    "left": x > -0.85,
    "one row": np.arange(SHAPE[0])[:, None, None] + 0 * x > 0,
    "frame": (np.abs([x, y, z]) < 0.9).all(axis=0),
    "gradwarp": (np.abs(x) < 0.85 + 0.14 * (y**2 + z**2))
    & (np.abs(y) < 0.85 + 0.14 * (x**2 + z**2)),
    "oblique": np.abs(x + 0.4 * y + 0.3 * z) < 1.1,
}


def require_head(data: np.ndarray, head: np.ndarray, control: np.ndarray, background: str) -> None:
    """The head's share, and the two percentiles, within 10 % of what they are without a border."""
    found = detect(data)
    assert found.background == background
    assert found.inside.sum() == pytest.approx(head.sum(), rel=0.1)
    assert (found.inside & head).sum() > 0.95 * head.sum()
    low, high = window(control, head, 0.5, 99.5)
    assert window(data, found.inside, 0.5, 99.5) == pytest.approx(
        (low, high), abs=0.1 * (high - low)
    )


@pytest.mark.parametrize("fill", [0, -1, 5])
@pytest.mark.parametrize("field", FIELDS)
def test_noise_inside_a_border_is_not_the_head(field, fill):
    """Point 1: a border of constants around a scan with noise, whatever its shape and its value."""
    data = noisy()
    require_head(np.where(FIELDS[field], data, fill), HEAD, data, BORDERED)


@pytest.mark.parametrize("fill", [0, -1, 5])
@pytest.mark.parametrize("field", ["circle", "frame"])
@pytest.mark.parametrize("sigma", [0.5, 8])
def test_noise_of_a_rotated_scan_inside_a_border_is_not_the_head(sigma, field, fill):
    """Point 1: interpolated noise, with edges between it and the border, as whole numbers, inside a second border."""
    data = np.rint(rotated(noisy(sigma), fill))
    head = rotated(HEAD, order=0) > 0.5
    require_head(
        np.where(FIELDS[field], data, fill), head, np.rint(rotated(noisy(sigma))), BORDERED
    )


@pytest.mark.parametrize("sigma", [0.5, 1, 8])
def test_noise_of_whole_numbers_is_not_the_head(sigma):
    """Point 1: most of the noise may be one value, which is no constant background."""
    data = np.floor(noisy(sigma)).astype(np.int16)
    require_head(data, HEAD, data, NOISE)


def test_the_border_of_a_normalised_scan_may_lie_between_air_and_head():
    """Point 1: z-scores of all voxels, then zeros around them."""
    data = noisy()
    data = (data - data.mean()) / data.std()
    require_head(np.where(FIELDS["circle"], data, 0), HEAD, data, BORDERED)


AIRS = {
    "magnitudes": (lambda data: data, -1024),
    "scaled": (lambda data: data / 300 - 1, -10),
    "z-score": (lambda data: (data - data.mean()) / data.std(), -5),
    "CT": (
        lambda data: np.where(HEAD, data, np.random.default_rng(2).normal(-1000, 8, SHAPE)),
        -3024,
    ),
}


@pytest.mark.parametrize("field", ["circle", "frame", "left"])
@pytest.mark.parametrize("kind", AIRS)
def test_a_border_far_darker_than_the_air_is_not_what_air_is_judged_by(kind, field):
    """Air that is much closer to the head than to the border is as even as air, and not tissue."""
    change, fill = AIRS[kind]
    data = change(noisy())
    require_head(np.where(FIELDS[field], data, fill), HEAD, data, BORDERED)


@pytest.mark.parametrize("kind", ["magnitudes", "scaled", "CT"])
def test_the_edge_between_air_and_a_far_darker_border_may_be_interpolated(kind):
    change, fill = AIRS[kind]
    data = change(noisy())
    turned = rotated(np.where(FIELDS["circle"], data, fill), fill)
    require_head(turned, rotated(HEAD, order=0) > 0.5, rotated(data, fill), BORDERED)


@pytest.mark.parametrize(
    ("grey", "white", "fill"), [(600, 800, 0), (-0.4, 0.9, -4), (100, 900, -1000)]
)
def test_an_even_rim_of_tissue_is_no_air(grey, white, fill):
    """The darkest tissue, in noise of a clean scan, and nothing darker in it."""
    data = np.where(HEAD, brain(white, grey, white), fill).astype(np.float32)
    found = detect(data)
    assert found.background == CONSTANT
    assert (found.inside == HEAD).all()


def test_the_window_leaves_out_what_interpolation_made_of_the_rim():
    """A scan without skull, turned: half-bright voxels at its edge are no dark tissue."""
    data = np.where(HEAD, np.random.default_rng(0).normal(500, 50, SHAPE), 0)
    turned = rotated(data)
    low, high = window(data, HEAD, 0.5, 99.5)
    assert window(turned, detect(turned).inside, 0.5, 99.5) == pytest.approx(
        (low, high), abs=0.3 * (high - low)
    )


def test_a_head_without_enough_voxels_beneath_its_rim_is_windowed_whole():
    data, inside = np.zeros((9, 9, 9)), np.zeros((9, 9, 9), bool)
    inside[4:6, 2:7, 2:7] = True
    data[inside] = np.arange(50)
    assert window(data, inside, 0, 100) == (0, 49)


def uniform_t1(shape, padding=0):
    """A head and noise as in the uniform image of MP2RAGE: a ratio, of noise and noise where there is no signal."""
    rng, along = (
        np.random.default_rng(0),
        [np.arange(0.5 - side / 2, side / 2) * 2 / side for side in shape],
    )
    radius = np.sqrt(sum((axis / 0.8) ** 2 for axis in np.meshgrid(*along, indexing="ij")))
    one, two, three, four = rng.normal(size=(4, *shape))
    noise = (one * two + three * four) / (one**2 + two**2 + three**2 + four**2)
    tissue = np.where(radius < 0.2, -0.4, np.where(radius < 0.85, 0.25, -0.3)) + rng.normal(
        0, 0.02, shape
    )
    data = np.rint(4095 * (np.where(radius < 1, tissue, noise) + 0.5))
    return np.pad(data, padding).astype(np.float32), np.pad(radius < 1, padding)


@pytest.mark.parametrize(
    ("shape", "padding"),
    [((72, 80, 64), 0), ((64, 72, 60), 7), ((96, 96, 12), 0), ((96, 96, 1), 0)],
)
def test_the_head_in_noise_of_the_full_range_is_what_varies_least(shape, padding):
    """MP2RAGE: what stands out of such noise is the noise."""
    data, head = uniform_t1(shape, padding)
    found = detect(data)
    assert found.background == RESTLESS
    assert 2 * np.count_nonzero(found.inside & head) / (found.inside.sum() + head.sum()) > 0.93


def test_a_head_in_noise_as_bright_as_itself_is_found():
    """As of quotients of two scans."""
    data = np.where(HEAD, noisy() / 800, np.random.default_rng(3).uniform(-0.5, 0.5, SHAPE))
    found = detect(data.astype(np.float32))
    assert found.background == RESTLESS
    assert 2 * np.count_nonzero(found.inside & HEAD) / (found.inside.sum() + HEAD.sum()) > 0.93


@pytest.mark.parametrize("inner", [-0.5, -4.0, 9.0])
def test_of_two_constant_backgrounds_neither_is_the_head(inner):
    """Point 1: the head is exact, with its dark inside."""
    rng = np.random.default_rng(0)
    data = np.where(FIELDS["circle"], np.where(HEAD, rng.normal(0, 1, SHAPE), inner), 0)
    found = detect(data.astype(np.float32))
    assert found.background == CONSTANTS
    assert (found.inside == HEAD).all()


def test_the_edge_between_two_constant_backgrounds_is_not_the_head():
    """Point 1: a normalised scan without skull, rotated with zeros around it."""
    data = np.where(HEAD, np.random.default_rng(0).normal(0, 1, SHAPE), -4)
    found = detect(rotated(data))
    assert found.background == CONSTANTS
    assert found.inside.sum() == pytest.approx((rotated(HEAD) > 1e-3).sum(), rel=0.02)


def brain(dark: float, grey: float, white: float, ring: float = 0.85) -> np.ndarray:
    """A brain without skull: grey rim, white matter, dark ventricles, in float32 noise; NaN outside."""
    values = np.where(ellipsoid(0.55 * ring, 0.6 * ring, 0.65 * ring), white, grey)
    values = np.where(VENTRICLE, dark, values) + np.random.default_rng(0).normal(
        0, 0.03 * abs(white), SHAPE
    )
    return np.where(HEAD, values, np.nan)


BRAINS = {
    "T1": (200, 600, 800),
    "FLAIR": (60, 550, 400),
    "T2": (1000, 450, 250),
    "z-score": (-3, -0.4, 0.9),
}


@pytest.mark.parametrize("field", ["whole", "axial", "coronal", "sagittal", "cropped"])
@pytest.mark.parametrize("background", [0.0, -4.0, 7.0])
@pytest.mark.parametrize("contrast", BRAINS)
def test_a_head_on_a_constant_is_all_that_differs_from_it(contrast, background, field):
    """Points 1 and 2: exact, whatever the constant, also in slabs of any axis and a cropped head."""
    data = np.nan_to_num(brain(*BRAINS[contrast]), nan=background).astype(np.float32)
    part = {
        "whole": np.s_[:],
        "axial": np.s_[:, :, 18:23],
        "coronal": np.s_[:, 30:31],
        "sagittal": np.s_[24:29],
        "cropped": np.s_[20:, 12:, :25],
    }[field]
    found = detect(data[part])
    assert found.background == CONSTANT
    assert (found.inside == HEAD[part]).all()


@pytest.mark.parametrize(
    "part", [np.s_[:, :, 18:23], np.s_[:, 28:32], np.s_[25:26], np.s_[26:], np.s_[:, :, 20:]]
)
def test_the_dark_inside_of_a_head_in_noise_is_kept_where_the_volume_ends(part):
    """Point 2: slabs, single slices and a field of view that ends in the ventricle."""
    found = detect(noisy()[part])
    assert found.background == NOISE
    assert (found.inside & VENTRICLE[part]).sum() > 0.99 * VENTRICLE[part].sum()
    assert (found.inside == HEAD[part]).mean() > 0.995


@pytest.mark.parametrize("kind", [np.uint8, np.int16])
def test_a_drawing_of_a_head_is_found_whole(kind):
    """Point 1: a constant rim of the head is no second background."""
    values = np.where(ellipsoid(0.45, 0.5, 0.55), 200, 150)
    data = np.where(HEAD, np.where(VENTRICLE, 50, values), 0).astype(kind)
    assert (detect(data).inside == HEAD).all()


def test_a_volume_of_tissue_alone_has_no_background():
    assert detect(
        np.random.default_rng(0).normal(500, 5, (6, 6, 6)) + 9 * np.eye(6)
    ).background in (NONE, NOISE)


def test_tiny_volumes_have_a_foreground():
    rng = np.random.default_rng(0)
    for _ in range(300):
        data = rng.integers(0, 3, rng.integers(1, 5, 3)) * rng.random()
        if np.ptp(data):
            assert detect(data.astype(np.float32)).inside.any()


@pytest.mark.parametrize("axis", ["axial", "coronal", "sagittal"])
@pytest.mark.parametrize(("white", "grey", "dark"), [(0.5, 0.1, -0.8), (-0.1, 0.2, -0.95)])
def test_what_was_written_as_a_pair_comes_back(tmp_path, white, grey, dark, axis):
    """Point 2: the very values, within the rounding of int16 and float16, and not scaled a second time."""
    g, h = np.meshgrid(*[np.linspace(-1, 1, 64)] * 2, indexing="ij")
    radius, inner = np.hypot(g / 0.75, h / 0.85), np.hypot(g / 0.15, h / 0.3)
    values = np.where(inner < 1, dark, np.where(radius < 0.8, white, grey))
    values += np.random.default_rng(0).normal(0, 0.03, values.shape)
    picture = np.where(radius < 1, np.clip(values, -0.99, 1), -1)
    write_slice(tmp_path / "bravo.nii.gz", picture, False, Grid.of_slices(64, 3.0, axis))
    back = cut([Channel(tmp_path / "bravo.nii.gz")], DataSettings(image_size=64, axis=axis))
    assert isinstance(back, Slices)
    assert np.abs(back.stacks[0][0] - picture).max() < 0.0016
    assert back.foreground[0] == pytest.approx((radius < 1).mean())
    assert back.background == [CONSTANT]


def test_another_scan_of_whole_numbers_is_scaled(tmp_path):
    """Point 2: only what medgen wrote is read as it is."""
    picture = np.where(HEAD, np.random.default_rng(0).integers(300, 500, SHAPE), 0)[
        :, :, 20:21
    ].astype(np.int16)
    slices = cut([Channel(write_volume(tmp_path / "a.nii", picture))], DataSettings(image_size=60))
    assert isinstance(slices, Slices)
    assert (slices.stacks[0].min(), slices.stacks[0].max()) == (-1, 1)
