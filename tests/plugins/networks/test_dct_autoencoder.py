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


def drawn(z: torch.Tensor, seed: int = 0):
    """Noise of the shape of latents, anew at each call."""
    generator = torch.Generator().manual_seed(seed)
    return lambda: torch.randn(z.shape, generator=generator)


@torch.no_grad()
@pytest.mark.parametrize("axes", [2, 3])
def test_texture_has_the_strength_of_the_noise_that_is_lost(axes):
    """Noise in half of an image comes back there as strong as it was, and nowhere else."""
    network = plain(DctAutoencoder(axes, 2, FACTOR, 3, 4, 1, texture=True))
    side = {2: 128, 3: 32}[axes]
    image = 0.05 * torch.randn(2, 2, *(side,) * axes, generator=torch.Generator().manual_seed(0))
    image[:, 1] *= 2
    image[..., : side // 2] = 0.5
    z = network.encode(image)[0]
    assert z.shape[1] == network.latent_channels == 2 * (3 + 1)
    smooth = network.decode(z)
    rough = network.textured(smooth, z, drawn(z))
    quiet, noisy = (slice(0, side // 2), slice(side // 2, side))
    assert torch.allclose(rough[..., quiet], smooth[..., quiet], atol=1e-5)
    for channel in range(2):
        own, made = (each[:, channel, ..., noisy].std() for each in (image, rough))
        assert float(made / own) == pytest.approx(1, abs=0.05)
        assert float(smooth[:, channel, ..., noisy].std() / own) < 0.6
    added = (rough - smooth)[..., noisy]
    lost = (image - smooth)[..., noisy]
    assert abs(float((added * lost).mean() / added.std() / lost.std())) < 0.05  # another noise
    assert torch.allclose(network.encode(rough)[0][:, :3], z[:, :3], atol=1e-5)  # and nothing else


@torch.no_grad()
def test_texture_is_that_of_its_draws_and_leaves_the_rest_as_it_is():
    torch.manual_seed(0)
    network = DctAutoencoder(2, 1, FACTOR, 8, 16, 2, texture=True)
    bare = DctAutoencoder(2, 1, FACTOR, 8, 16, 2)
    bare.load_state_dict(network.state_dict())
    image = torch.rand(2, 1, 16, 16) * 2 - 1
    z, without = network.encode(image)[0], bare.encode(image)[0]
    assert torch.equal(z[:, :8], without)
    smooth = network.decode(z)
    assert torch.equal(smooth, bare.decode(without))
    one, again, other = (network.textured(smooth, z, drawn(z, seed)) for seed in (0, 0, 1))
    assert torch.equal(one, again)
    assert not torch.allclose(one, other)
    assert bare.textured(smooth, without, drawn(z)) is smooth


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
        (
            "network.dct_autoencoder.latent_channels=16 network.dct_autoencoder.texture=true",
            "network.dct_autoencoder.texture: is on, but all 16 coefficients",
        ),
    ],
)
def test_what_cannot_be_is_refused(given, said, medgen):
    done = medgen("train", "demo_vae", "network=dct_autoencoder", *given.split(), "--dry-run")
    assert done.code == 2
    assert said in done.err


def test_the_settings_build_for_any_number_of_axes():
    for axes in (2, 3):
        assert Settings().build(1, 1, axes).axes == axes
