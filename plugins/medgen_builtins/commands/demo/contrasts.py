"""How the sequences show each tissue."""

from __future__ import annotations

from typing import NamedTuple


class Contrast(NamedTuple):
    """A sequence: each tissue's signal relative to white matter, its noise and sharpness."""

    csf: float
    grey: float
    oedema: float
    rim: float
    core: float
    vessel: float
    noise: float
    blur: float
    """Standard deviation of the point spread, mm."""


CONTRASTS = {
    "bravo": Contrast(
        csf=0.22, grey=0.66, oedema=0.72, rim=1.55, core=0.55, vessel=1.4, noise=0.028, blur=0.5
    ),
    "t1_pre": Contrast(
        csf=0.32, grey=0.74, oedema=0.76, rim=0.74, core=0.52, vessel=0.0, noise=0.028, blur=0.8
    ),
    "t1_gd": Contrast(
        csf=0.32, grey=0.76, oedema=0.78, rim=1.5, core=0.56, vessel=1.1, noise=0.028, blur=0.8
    ),
    "flair": Contrast(
        csf=0.22, grey=1.24, oedema=1.85, rim=1.45, core=1.15, vessel=0.0, noise=0.033, blur=0.9
    ),
}
