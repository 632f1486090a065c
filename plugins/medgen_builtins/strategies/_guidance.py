"""The setting that all diffusion strategies share: how strongly they are guided by the mask."""

from __future__ import annotations

from medgen import field, ge


def guidance_field() -> float:
    """Declare the field `guidance` of a settings class."""
    return field(
        0.0,
        help="classifier-free guidance by the mask: how much further the prediction is taken from that for an empty mask;"
        " twice the time per step",
        check=ge(0),
    )
