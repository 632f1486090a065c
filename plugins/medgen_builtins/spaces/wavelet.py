"""Diffusion of Haar wavelet coefficients: a small grid, nothing lost.

As wavelet diffusion has it (Friedrich et al. 2024, "WDM: 3D Wavelet Diffusion Models for
High-Resolution Medical Image Synthesis"), with the orthonormal wavelet of Haar (1910). White noise
stays white and distances stay what they are: the signal-to-noise ratio at each time, and an MSE,
are those of the pixels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from medgen import Mode, Problem, Space, SpaceSettings, between, field, hookimpl, settings
from medgen.api.tables import sides, size_text

if TYPE_CHECKING:
    import torch

    from medgen.api.recipe import Recipe

medgen_api = 1


@settings
class Wavelet(SpaceSettings):
    """Haar wavelet coefficients of 2^levels pixels a side as channels of one: lossless, and
    4^levels times (in volumes 8^levels) fewer positions to compute.
    """

    measures = True

    levels: int = field(
        1,
        help="halvings of a side: each splits the averages of the one before",
        check=between(1, 12),
    )
    fit_given: bool = field(
        False,
        help="for strategy.rflow.prediction=residual: the guess of each channel follows from the same channel of masks and"
        " images that are given, by a linear fit, so that the network adds what a fit lacks; where images are, such as"
        " tissues, it learns detail sooner",
    )

    output = "fit_given"

    def spatial(self, size: Sequence[int]) -> tuple[int, ...]:
        """Return the spatial size of an encoded sample, for the checks of a recipe."""
        return tuple(length // 2**self.levels for length in size)

    def check(self, recipe: Recipe) -> Iterator[Problem]:
        expected = f"a multiple of 2^space.wavelet.levels = {2**self.levels}"
        for key, size in recipe.data.sizes.items():
            if any(side % 2**self.levels for side in sides(size)):
                what = f"got {size_text(size)}, expected {expected}"
                yield Problem(key, what, "Change one of them")

    def build(self, mode: Mode, device: torch.device, axes: int = 2) -> Space:
        from medgen_builtins.spaces._wavelet import WaveletSpace

        return WaveletSpace(mode, self.levels, axes, device, self.fit_given)


@hookimpl
def medgen_spaces() -> dict[str, type]:
    return {"wavelet": Wavelet}
