"""Weights that were trained on made-up heads of any contrast, and hold no patient."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from medgen import WeightsSettings, hookimpl, settings

medgen_api = 1

_HERE = Path(__file__).parent
_IMAGES = ("bravo", "t1_pre", "t1_gd", "flair")
"""Modes of one image given a mask and tissue."""


@settings
class Brain(WeightsSettings):
    """Autoencoders of brain slices and volumes, generators of both given masks and tissue, and what
    estimates tissue; see brain.md.
    """

    files: ClassVar[Mapping[str, Path]] = {
        "autoencoder": _HERE / "brain_autoencoder.safetensors",
        **dict.fromkeys(_IMAGES, _HERE / "brain_slice.safetensors"),
        "tissue": _HERE / "brain_tissue.safetensors",
        "insert": _HERE / "brain_insert.safetensors",
        "autoencoder_3d": _HERE / "brain_autoencoder_3d.safetensors",
        **{f"{image}_3d": _HERE / "brain_volume.safetensors" for image in _IMAGES},
    }


@hookimpl
def medgen_weights() -> dict[str, type]:
    return {"brain": Brain}
