"""The autoencoder: its shapes, its memory, and the checks that come before it is built.

Covers: medgen_builtins.networks._gradient_checkpointing, medgen_builtins.networks._monai_autoencoder,
medgen_builtins.networks._norms.
"""

from __future__ import annotations

import pytest
import torch
from medgen_builtins.networks._norms import count_groups
from medgen_builtins.networks.autoencoder import Autoencoder

from medgen.config.recipe import load
from medgen.errors import RecipeError


@pytest.fixture
def network():
    torch.manual_seed(0)
    return Autoencoder(channels=(8, 16, 16), num_res_blocks=1, latent_channels=3).build(2, 2)


def test_shapes_are_those_of_the_contract(network):
    image = torch.randn(2, 2, 16, 24)
    mean, logvar = network.encode(image)
    assert mean.shape == logvar.shape == (2, 3, 4, 6)
    assert (network.latent_channels, network.factor) == (3, 4)
    assert network.decode(mean).shape == image.shape


def test_attention_adds_weights_and_keeps_shapes():
    plain, attending = (
        Autoencoder(channels=(8, 8), num_res_blocks=1, attention=flag).build(1, 1)
        for flag in (False, True)
    )
    assert len(attending.state_dict()) > len(plain.state_dict())
    assert attending.encode(torch.randn(1, 1, 8, 8))[0].shape == (1, 4, 4, 4)
    assert attending.decode(torch.zeros(1, 4, 4, 4)).shape == (1, 1, 8, 8)


@pytest.mark.parametrize(
    ("widths", "groups"),
    [((64, 128, 256), 16), ((32, 64), 8), ((256,), 32), ((48, 96), 12), ((3,), 1)],
)
def test_groups_divide_every_width_and_hold_four_channels(widths, groups):
    assert count_groups(widths) == groups


def test_checkpointing_changes_no_output_no_gradient_and_no_name_and_keeps_less():
    results, kept = [], []
    for checkpointing in (False, True):
        torch.manual_seed(0)
        made = Autoencoder(channels=(8, 16), num_res_blocks=1, checkpointing=checkpointing).build(
            1, 1
        )
        sizes = []
        with torch.autograd.graph.saved_tensors_hooks(
            lambda each, to=sizes: to.append(each.numel()) or each, lambda x: x
        ):
            output = made.decode(made.encode(torch.randn(2, 1, 16, 16))[0])
        output.square().mean().backward()
        results.append(
            {"output": output, **{name: weight.grad for name, weight in made.named_parameters()}}
        )
        kept.append(sum(sizes))
    assert results[0].keys() == results[1].keys()
    assert all(
        torch.equal(each, results[1][name]) for name, each in results[0].items() if each is not None
    )
    assert kept[1] < 0.5 * kept[0]


WRONG = {
    "data.image_size=30": "data.image_size: got 30, expected a multiple of 4",
    "network.autoencoder.norm_groups=7": "network.autoencoder.channels[0]: got 64, expected a multiple of",
    "network.autoencoder.channels=[]": "network.autoencoder.channels: got [], expected at least one level",
}


@pytest.mark.parametrize("change", WRONG)
def test_what_cannot_be_built_is_a_mistake_of_the_recipe(change):
    with pytest.raises(RecipeError) as caught:
        load("vae_bravo", [change, "losses.perceptual=false"])
    assert WRONG[change] in str(caught.value)
