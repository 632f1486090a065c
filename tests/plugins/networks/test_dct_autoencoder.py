"""The autoencoder of a block transform: what it keeps, where it begins, and what is refused.

Covers: medgen_builtins.networks._dct_autoencoder.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from medgen_builtins.networks._dct_autoencoder import DctAutoencoder, dct_basis
from medgen_builtins.networks.dct_autoencoder import DctAutoencoder as Settings
from scipy import fft

FACTOR = 4


def plain(network: DctAutoencoder) -> DctAutoencoder:
    """Without what is learned."""
    torch.nn.init.zeros_(network.restore[-1].weight)
    return network


@pytest.mark.parametrize("axes", [2, 3])
def test_the_basis_is_that_of_scipy_in_order_of_frequency(axes):
    count = FACTOR**axes
    basis = dct_basis(FACTOR, axes, count).reshape(count, *(FACTOR,) * axes).numpy()
    places = []
    for image in basis:
        spectrum = fft.dctn(image, norm="ortho")
        assert np.isclose(np.abs(spectrum).max(), 1, atol=1e-6)
        assert np.isclose(np.square(spectrum).sum(), 1, atol=1e-6)
        places.append(np.unravel_index(spectrum.argmax(), spectrum.shape))
    assert len(set(places)) == count
    frequencies = [sum(int(k) ** 2 for k in place) for place in places]
    assert frequencies == sorted(frequencies)


@pytest.mark.parametrize("space", [(8, 12), (8, 4, 12)])
def test_all_coefficients_give_the_image_back(space):
    axes = len(space)
    network = plain(DctAutoencoder(axes, 2, FACTOR, FACTOR**axes, 4, 1))
    image = torch.randn(3, 2, *space, generator=torch.Generator().manual_seed(0))
    mean, logvar = network.encode(image)
    assert mean.shape == (3, network.latent_channels, *(side // FACTOR for side in space))
    assert float(logvar.exp().max()) < 1e-12
    assert torch.allclose(network.decode(mean), image, atol=1e-5)


def test_what_is_dropped_is_what_the_latents_say_nothing_of():
    """The decoded image has the same latents, and no image with them is nearer to zero."""
    network = plain(DctAutoencoder(2, 1, FACTOR, 8, 4, 1))
    image = torch.randn(2, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    mean, _ = network.encode(image)
    back = network.decode(mean)
    assert torch.allclose(network.encode(back)[0], mean, atol=1e-5)
    lost = (image - back).square().sum()
    assert torch.isclose(image.square().sum(), back.square().sum() + lost, rtol=1e-5)


def test_training_begins_near_the_plain_transform():
    torch.manual_seed(0)
    network = DctAutoencoder(2, 1, FACTOR, 8, 16, 2)
    image = torch.rand(2, 1, 16, 16) * 2 - 1
    mean, _ = network.encode(image)
    learned = network.decode(mean)
    assert torch.allclose(learned, plain(network).decode(mean), atol=0.05)


def test_it_trains(medgen, tiny, tmp_path):
    options = ("network=dct_autoencoder", "network.dct_autoencoder.channels=8")
    options = (*options, "network.dct_autoencoder.blocks=1", "losses.kl=false", "training.steps=2")
    small = [each for each in tiny if not each.startswith("network.")]
    done = medgen("train", "demo_vae", *small, *options, f"run.dir={tmp_path / 'run'}")
    assert done.code == 0, done


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("data.image_size=18", "got 18, expected a multiple of 4"),
        ("network.dct_autoencoder.latent_channels=17", "expected at most 16"),
    ],
)
def test_what_cannot_be_is_refused(given, said, medgen):
    done = medgen("train", "demo_vae", "network=dct_autoencoder", given, "--dry-run")
    assert done.code == 2
    assert said in done.err


def test_the_settings_build_for_any_number_of_axes():
    for axes in (2, 3):
        assert Settings().build(1, 1, axes).axes == axes
