"""Settings of a valid type that no run can have: each is refused in one line before anything is built."""

from __future__ import annotations

import pytest

from medgen.config.recipe import load

LATENT = ("bravo_rflow_latent", "space.latent.checkpoint=vae")
AXES = {
    "network.unet": ("bravo_rflow",),
    "network.autoencoder": ("vae_bravo",),
    "space.latent": LATENT,
    "space.space_to_depth": ("demo_joint",),
}


@pytest.mark.parametrize("table", AXES)
def test_the_number_of_axes_follows_from_the_data(table, medgen):
    """A recipe, or the one in a checkpoint, that still gives the right one loads, and shows none."""
    recipe, *more = AXES[table]
    assert load(recipe, [*more, f"{table}.spatial_dims=2"]) == load(recipe, more)
    result = medgen("train", recipe, *more, f"{table}.spatial_dims=3", "--dry-run")
    assert result.code == 2
    [line] = result.err.splitlines()
    assert (
        f"{table}.spatial_dims: got 3, but the data have 2 axes, from which it follows. Leave it out."
        in line
    )


def test_a_table_of_another_kind_never_had_a_number_of_axes(medgen):
    result = medgen("train", "bravo_rflow", "strategy.rflow.spatial_dims=2", "--dry-run")
    assert result.code == 2
    assert "strategy.rflow.spatial_dims: no such key" in result.err


@pytest.mark.parametrize(
    "setting", ["network.unet.dropout", "training.learning_rate", "strategy.rflow.logit_mean"]
)
def test_a_number_that_torch_cannot_hold_is_refused(setting, medgen):
    """Point 23."""
    result = medgen("train", "bravo_rflow", f"{setting}=1e300", "--dry-run")
    assert result.code == 2
    [line] = result.err.splitlines()
    assert f"{setting}: got 1e+300, expected a number" in line


def test_a_time_beyond_the_whole_is_refused(medgen):
    """Point 23: t is from 0 to 1."""
    result = medgen("train", "bravo_rflow", "strategy.rflow.t_min=2.0", "--dry-run")
    assert result.code == 2
    [line] = result.err.splitlines()
    assert "strategy.rflow.t_min: got 2.0, expected a number from 1e-06 to 1" in line


def test_a_network_that_no_memory_holds_is_no_bug(medgen, tiny):
    """Point 23: exit 7, although no step was tried."""
    result = medgen("train", "bravo_rflow", *tiny, "network.unet.channels=[8,1000000]", "--dry-run")
    assert result.code == 7
    [line] = [each for each in result.err.splitlines() if each.startswith("medgen: ")]
    assert "out of memory" in line
