"""The space of Haar wavelet coefficients."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from conftest import RECIPES
from medgen_builtins.spaces._wavelet import WaveletSpace, analyse
from medgen_builtins.spaces.wavelet import Wavelet

from medgen.api.tables import DataSettings
from medgen.api.values import Batch, Draws, Mode
from medgen.config.recipe import load
from medgen.errors import RecipeError

DRAWS = Draws(torch.zeros(2), torch.zeros(2))
SIZES = [(1, (6, 4)), (2, (8, 4)), (3, (16, 8)), (1, (4, 2, 6)), (2, (8, 4, 4))]


def build(levels: int, axes: int) -> WaveletSpace:
    mode = Mode(images=("a", "b"), condition=("seg",))
    return Wavelet(levels=levels).build(mode, torch.device("cpu"), axes)


@pytest.mark.parametrize(("levels", "size"), SIZES)
def test_an_image_comes_back(levels: int, size: tuple[int, ...]) -> None:
    """An image of two or three axes comes back, and its samples have the shape that the space says."""
    space, image = build(levels, len(size)), torch.rand(2, 2, *size) * 2 - 1
    z = space.encode(space.prepare(image), DRAWS)
    assert tuple(z.shape[1:]) == space.shape(size)
    assert z.shape[1] == space.channels == 2 * 2 ** (levels * len(size))
    assert Wavelet(levels=levels).spatial(size) == tuple(z.shape[2:])
    assert torch.allclose(space.decode(z), image, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("levels", "size"), SIZES)
def test_the_transform_is_orthonormal(levels: int, size: tuple[int, ...]) -> None:
    """Its matrix times its transpose is one: noise stays white, and errors are those of pixels."""
    count = torch.Size(size).numel()
    basis = torch.eye(count, dtype=torch.float64).reshape(count, 1, *size)
    matrix = analyse(basis, levels).flatten(1)
    one = torch.eye(count, dtype=torch.float64)
    assert torch.allclose(matrix @ matrix.T, one, rtol=0, atol=1e-12)


def test_a_block_becomes_its_average_and_its_differences() -> None:
    """By hand, after Haar: of [[a, b], [c, d]] half of a+b+c+d, a-b+c-d, a+b-c-d, a-b-c+d."""
    z = analyse(torch.tensor([[[[1.0, 2.0], [4.0, 8.0]]]]), 1)
    assert z.flatten().tolist() == pytest.approx([7.5, -2.5, -4.5, 1.5])


def test_a_second_level_splits_the_averages_and_folds_the_differences() -> None:
    x = torch.randn(1, 1, 4, 8, 4)
    once, twice = analyse(x, 1), analyse(x, 2)
    assert torch.equal(twice[:, :8], analyse(once[:, :1], 1))
    differences = twice[:, 8:].reshape(1, 7, 2, 2, 2, 1, 2, 1)  # channel, place in a block, block
    assert torch.equal(differences[0, :, 1, 0, 1, 0, 1, 0], once[0, 1:, 1, 2, 1])


def test_what_is_constant_has_an_average_alone() -> None:
    z = analyse(torch.full((1, 1, 8, 8, 8), -1.0), 2)
    assert torch.allclose(z[:, 0], torch.tensor(-8.0))  # the root of 64 voxels
    assert not z[:, 1:].any()


def test_conditions_are_transformed_like_the_image_and_none_stay_none() -> None:
    space, mask = build(2, 2), torch.randn(2, 1, 8, 12)
    assert torch.equal(space.condition(mask), analyse(mask, 2))
    assert space.condition_channels == 16
    assert space.condition(torch.zeros(2, 0, 8, 12)).shape == (2, 0, 2, 3)


@pytest.mark.parametrize(("size", "mistakes"), [(64, 0), (62, 1), ((16, 18, 16), 1)])
def test_sizes_that_cannot_be_halved_are_mistakes(size: Any, mistakes: int) -> None:
    recipe: Any = SimpleNamespace(data=DataSettings(image_size=size))
    found = [str(each) for each in Wavelet(levels=2).check(recipe)]
    assert len(found) == mistakes
    assert all("a multiple of 2^space.wavelet.levels = 4" in each for each in found)


def test_lesions_are_not_painted_in_it() -> None:
    """A coefficient is of several pixels, and all but a lesion has to stay as it is."""
    with pytest.raises(RecipeError, match=r"space\.wavelet: mixes a lesion with what lies around"):
        load(RECIPES / "insert_rflow.toml", ("space=wavelet",))


def test_the_channels_are_measured_and_kept_in_checkpoints() -> None:
    """Mean and standard deviation over all batches; a checkpoint from before that has none."""
    space, parts = build(1, 3), torch.randn(3, 2, 2, 4, 4, 4)
    assert space.moments is None
    space.calibrate(Batch(part, torch.zeros(2, 0, 4, 4, 4)) for part in parts)
    z = analyse(parts.flatten(0, 1), 1).transpose(0, 1).flatten(1)
    again = build(1, 3)
    again.load_state_dict(space.state_dict())
    assert again.moments is not None
    assert torch.allclose(again.moments[0], z.mean(1), atol=1e-6)
    assert torch.allclose(again.moments[1], z.std(1, correction=0), atol=1e-6)
    older = build(1, 3)
    older.load_state_dict({})
    assert older.moments is None


def test_a_constant_channel_has_a_spread_to_divide_by() -> None:
    space = build(1, 2)
    space.calibrate([Batch(torch.full((1, 2, 4, 4), -1.0), torch.zeros(1, 0, 4, 4))])
    assert space.moments is not None
    assert torch.allclose(space.moments[1], torch.full((8,), 1e-3))


def fitting(images: int, fits: bool = True) -> WaveletSpace:
    mode = Mode(images=("a", "b")[:images], condition=("seg", "tissue"))
    return Wavelet(levels=2, fit_given=fits).build(mode, torch.device("cpu"), 2)


@pytest.mark.parametrize("images", [1, 2])
def test_a_fit_takes_what_is_given_out_of_the_spread(images: int) -> None:
    """Images that are 2 seg - 0.5 tissue + 0.3 and some noise: a fit leaves the noise, and its mean
    is that of the sample.
    """
    space, given = fitting(images), torch.randn(6, 2, 16, 16)
    noise = 0.1 * torch.randn(6, images, 16, 16)
    image = 2 * given[:, :1] - 0.5 * given[:, 1:] + 0.3 + noise
    space.calibrate(Batch(image[part], given[part]) for part in (slice(3), slice(3, 6)))
    assert space.slopes is not None
    assert torch.allclose(space.slopes, torch.tensor([2.0, -0.5]).expand(16 * images, 2), atol=0.1)
    numbers = torch.randn(6, 3, 4, 4)  # what else a network is given
    found = space.moments_given(torch.cat([space.condition(given), numbers], 1))
    assert found is not None
    mean, deviation = found
    left = space.encode(image, DRAWS) - mean
    assert left.std() < 0.12
    assert torch.allclose(deviation, left.transpose(0, 1).flatten(1).std(1), rtol=0.1)
    again = fitting(images)
    again.load_state_dict(space.state_dict())
    assert torch.equal(again.moments_given(space.condition(given))[0], mean)


def test_without_a_fit_the_mean_is_the_same_for_all_samples() -> None:
    """As it is for checkpoints from before there was one."""
    space, given = fitting(1, fits=False), torch.randn(4, 2, 16, 16)
    space.calibrate([Batch(given[:, :1], given)])
    assert space.moments_given(space.condition(given)) is space.moments
    assert set(space.state_dict()) == {"mean", "deviation"}
    older = fitting(1)
    older.load_state_dict(space.state_dict())
    assert older.moments_given(space.condition(given)) is older.moments


def test_a_mask_that_is_never_set_does_not_spoil_a_fit() -> None:
    space, tissue = fitting(1), torch.randn(4, 1, 16, 16)
    space.calibrate([Batch(tissue, torch.cat([torch.full_like(tissue, -1.0), tissue], 1))])
    assert space.slopes is not None
    assert torch.isfinite(space.slopes).all()
    assert torch.allclose(space.slopes[:, 1], torch.ones(16), atol=0.01)
