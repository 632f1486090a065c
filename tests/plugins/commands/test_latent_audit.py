"""The audit: its figures are those of the definition, and its verdict says what is lost.

Covers: medgen_builtins._similarity, medgen_builtins.commands._latent_figures.
"""

from __future__ import annotations

import json

import latents
import numpy as np
import pytest
import torch
from medgen_builtins._similarity import ssim
from medgen_builtins.commands import _latent_figures
from medgen_builtins.spaces._codec import Moments


@pytest.fixture
def audited(tmp_path, monkeypatch, medgen, tiny):
    """`audited(recipe, mode, *overrides of the autoencoder)`: the figures, and what was printed."""
    (tmp_path / "installed").mkdir()
    latents.install(tmp_path / "installed", monkeypatch)

    def run(recipe, mode, *overrides, given=()):
        path = latents.write_autoencoder(tmp_path / "ae.pt", mode, *overrides)
        options = (
            "space=latent",
            f"space.latent.checkpoint={path}",
            "network.unet.attention=[false,false]",
            *given,
        )
        result = medgen("latent-audit", recipe, *tiny, *options, "--json", tmp_path / "audit.json")
        assert result.code == 0, result.err
        return json.loads((tmp_path / "audit.json").read_text()), result.out

    return run


def test_an_autoencoder_that_loses_nothing_has_a_good_ceiling(audited):
    figures, out = audited("bravo_rflow", "bravo", "network.patches.logvar=-20.0")
    assert figures["image"]["psnr"] > 60
    assert figures["image"]["ssim"] > 0.999
    assert figures["lesion"]["psnr"] > 60
    seen = [row for row in figures["sizes"] if row["visible"]]
    assert seen
    assert all(row["survive"] == 1 and row["kept"] == pytest.approx(1, abs=0.01) for row in seen)
    assert "A good ceiling" in figures["verdict"]
    assert "lesions of every size survive" in figures["verdict"]
    assert figures["verdict"] in out


def test_one_that_keeps_one_value_of_16_is_called_poor_and_its_lost_lesions_are_named(audited):
    figures, _ = audited("dual_rflow", "dual", "network.patches.latent_channels=1")
    assert figures["image"]["psnr"] < 20
    assert figures["verdict"].startswith("A poor ceiling")
    assert "px are lost" in figures["verdict"]


def test_noise_and_dead_channels_are_told(audited):
    """A log-variance of 0 is a variance of 1, far above that of the means of the stand-in."""
    figures, _ = audited("bravo_rflow", "bravo", "network.patches.logvar=8.0")
    assert all(row["noise"] > 0.99 and row["dead"] for row in figures["channels"])
    assert "16 of 16 channels dead" in figures["verdict"]
    assert all(row["std"] == pytest.approx(np.exp(4), rel=0.02) for row in figures["channels"])


def test_a_model_of_masks_is_audited_on_its_masks(audited):
    figures, _ = audited("seg_rflow", "seg", "network.patches.logvar=-20.0")
    assert any(row["visible"] for row in figures["sizes"])
    assert figures["lesion"]["psnr"] > 60


def test_a_scan_that_is_given_is_no_lesion_to_audit(audited):
    """Issue 10, point 20."""
    figures, _ = audited("bravo_rflow", "bravo", given=('mode.bravo.condition=["t1_pre"]',))
    assert figures["lesion"] is None
    assert not any(row["lesions"] for row in figures["sizes"])
    figures, _ = audited("bravo_rflow", "bravo", given=('mode.bravo.condition=["t1_pre","seg"]',))
    assert any(row["lesions"] for row in figures["sizes"])


def test_a_recipe_that_is_not_in_latents_is_a_mistake(medgen, tiny):
    result = medgen("latent-audit", "bravo_rflow", *tiny)
    assert (result.code, "space.pixel: has no latents, expected [space.latent]" in result.err) == (
        2,
        True,
    ), result


def test_ssim_is_monais_away_from_the_border():
    from monai.metrics.regression import compute_ssim_and_cs

    one, two = torch.rand(2, 3, 2, 32, 32) * 2 - 1
    options = {"kernel_size": (11, 11), "kernel_sigma": (1.5, 1.5), "data_range": 2.0}
    expected, _ = compute_ssim_and_cs(one, two, 2, **options)
    torch.testing.assert_close(ssim(one, two)[..., 5:-5, 5:-5], expected, atol=1e-4, rtol=1e-4)
    assert ssim(one, one).min() > 0.9999


def test_lesions_are_counted_by_size_with_the_contrast_that_they_keep():
    real, mask = np.zeros((32, 32), np.float32), np.zeros((32, 32), bool)
    mask[4:6, 4:6] = mask[16:22, 16:22] = True
    real[mask] = 1.0
    made = real.copy()
    made[4:6, 4:6] = 0.25
    found = list(_latent_figures.parts_of(mask, ~mask))
    lesions = [
        (
            int(lesion.sum()),
            _latent_figures.contrast(real, lesion, ring),
            _latent_figures.contrast(made, lesion, ring),
        )
        for lesion, ring in found
    ]
    rows = {row["from"]: row for row in _latent_figures.sizes(lesions)}
    assert (rows[1]["kept"], rows[1]["survive"], rows[1]["lesions"]) == (0.25, 0.0, 1)
    assert (rows[25]["kept"], rows[25]["survive"], rows[25]["lesions"]) == (1.0, 1.0, 1)
    assert rows[5]["lesions"] == 0


def test_moments_are_those_of_all_parts_together():
    mean, logvar = torch.randn(2, 40, 3, 4, 4)
    parts = Moments()
    for start in (0, 7):
        parts.add(
            mean[start : start + 33 if start else 7], logvar[start : start + 33 if start else 7]
        )
    shift, signal, noise = parts.read()
    torch.testing.assert_close(shift.float(), mean.mean((0, 2, 3)))
    torch.testing.assert_close(signal.float(), mean.var((0, 2, 3), correction=0))
    torch.testing.assert_close(noise.float(), logvar.exp().mean((0, 2, 3)))
