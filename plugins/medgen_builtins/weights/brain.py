"""Weights that were trained on made-up heads of any contrast, and hold no patient."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from medgen import WeightsSettings, hookimpl, settings

medgen_api = 1

_HERE = Path(__file__).parent


@settings
class Brain(WeightsSettings):
    """Autoencoders of brain slices and volumes, and a generator of slices given masks; see brain.md."""

    files: ClassVar[Mapping[str, Path]] = {
        "autoencoder": _HERE / "brain_autoencoder.safetensors",
        **dict.fromkeys(("bravo", "t1_pre", "t1_gd", "flair"), _HERE / "brain_slice.safetensors"),
        "insert": _HERE / "brain_insert.safetensors",
        "autoencoder_3d": _HERE / "brain_autoencoder_3d.safetensors",
    }


@hookimpl
def medgen_weights() -> dict[str, type]:
    return {"brain": Brain}
