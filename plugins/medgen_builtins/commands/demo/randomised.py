"""Made-up patients of no sequence in particular: contrast, bias field, noise, resolution, size of
the head and skull drawn anew (domain randomisation, Billot et al. 2023, SynthSeg).

What learns from them, such as an autoencoder, works on any sequence, and holds no person.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medgen_builtins.commands.demo.atlas import (
    Grid,
    Rng,
    Volume,
    load_atlas,
    noise_field,
    sample,
    warp,
)
from medgen_builtins.commands.demo.contrasts import CONTRASTS, Contrast
from medgen_builtins.commands.demo.disease import Disease, draw_lesions, grow
from medgen_builtins.commands.demo.patient import TISSUE, scan, show
from medgen_builtins.commands.demo.tissue import Tissue, distance_to, make_tissue

SPACINGS = (1.5, 3.0)
"""At which a head is made, mm. All are written as if at the same spacing: heads of other sizes."""
SHELLS = ((1.0, 4.0), (3.0, 7.0), (3.0, 8.0))
"""How thick CSF, skull and scalp are around the brain, mm."""


def draw_contrast(rng: Rng) -> Contrast:
    """A sequence that no scanner has; signals relative to white matter, which is 1."""
    csf, grey, oedema, rim, core, vessel = rng.uniform(0.1, 1.8, 6)
    noise, blur = 0.06 * rng.uniform() ** 2, rng.uniform(0.2, 1.3)
    return Contrast(csf, grey, oedema, rim, core, vessel, noise, blur)


def make_randomised(seed: int, index: int) -> dict[str, NDArray[Any]]:
    """Make all volumes of one patient by name: int16 images of unlike contrast, that of tissues as
    `tissue`, and the uint8 mask `seg`. Heads are of other sizes in voxels.
    """
    rng = np.random.default_rng([seed, index, 1])
    grid = Grid.of(float(np.exp(rng.uniform(*np.log(SPACINGS)))))
    tissue = make_tissue(rng, grid, sample(load_atlas(), warp(rng, grid)))
    disease = grow(rng, grid, tissue, draw_lesions(rng, grid, tissue))
    texture = noise_field(rng, grid, 5)
    shells = _shells(rng, grid, tissue) if rng.uniform() < 0.5 else None
    images = {name: _image(rng, grid, tissue, disease, texture, shells) for name in CONTRASTS}
    return images | {TISSUE: tissue.image(), "seg": disease.mask.astype(np.uint8)}


def _image(
    rng: Rng, grid: Grid, tissue: Tissue, disease: Disease, texture: Volume, shells: Volume | None
) -> NDArray[np.int16]:
    contrast = draw_contrast(rng)
    signal = show(rng, contrast, tissue, disease, texture)
    inside = tissue.brain.astype(np.float32)
    if shells is not None:
        levels = [contrast.csf, rng.uniform(0, 0.4), rng.uniform(0.3, 2.0)]
        around = sum(level * shell for level, shell in zip(levels, shells, strict=True))
        signal = np.where(tissue.brain, signal, around * (1 + 0.15 * texture))
        inside = np.ones_like(inside)
    signal = ndimage.gaussian_filter(signal, contrast.blur / grid.spacing * 2)
    signal *= np.exp(rng.uniform(0.05, 0.35) * noise_field(rng, grid, 110))
    return scan(rng, signal, contrast.noise, inside)


def _shells(rng: Rng, grid: Grid, tissue: Tissue) -> Volume:
    """The share of CSF, skull and scalp in each voxel outside the brain, `[3, *shape]`."""
    distance = distance_to(tissue.brain, grid)
    uneven = np.exp(0.35 * noise_field(rng, grid, 40))
    ends = np.cumsum([rng.uniform(*shell) for shell in SHELLS])
    starts = [0.0, *ends[:-1]]
    depth = distance / uneven
    return np.stack(
        [((depth > a) & (depth <= b)).astype(np.float32) for a, b in zip(starts, ends, strict=True)]
    )
