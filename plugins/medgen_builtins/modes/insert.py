"""Lesions in given scans: a lesion and a margin around it are generated, given its mask and the
rest of the scan.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from medgen import Mode, ModeSettings, Problem, field, gt, hookimpl, settings
from medgen.api.messages import as_toml

if TYPE_CHECKING:
    from medgen.api.recipe import Recipe

medgen_api = 1
MIXING = ("latent", "wavelet")
"""Spaces of which a value is of several pixels."""


@settings
class Insert(ModeSettings):
    """Lesions in given scans, for `medgen insert`: only a lesion and a margin around it are
    generated.
    """

    images: tuple[str, ...] = field(
        ("bravo",), help="names of the images that lesions are painted into, together"
    )
    mask: str = field("seg", help="name of the mask of the whole lesion")
    parts: tuple[str, ...] = field(
        (), help='names of masks of its parts, which the model is given too: ["core", "edema"]'
    )
    margin: float = field(
        4.0, help="mm around a lesion, within the head, that are generated with it", check=gt(0)
    )
    numbers: tuple[str, ...] | None = field(
        None, help='names of numbers that it is given too: none or ["contrast"]'
    )

    def check(self, recipe: Recipe) -> Iterator[Problem]:
        if not self.images or self.mask in self.images or len(set(self.images)) < len(self.images):
            expected = f"at least one image, each once, and not the mask {self.mask}"
            what = f"got {as_toml(list(self.images))}, expected {expected}"
            yield Problem("mode.insert.images", what, "Name the images to paint")
        names = (self.mask, *self.parts)
        if set(self.parts) & {self.mask, *self.images} or len(set(names)) < len(names):
            what = (
                f"got {as_toml(list(self.parts))}, expected other masks than {self.mask}, each once"
            )
            yield Problem("mode.insert.parts", what, "Name the masks of the lesion's parts")
        if recipe.data.crop != "lesions":
            what = f'got {as_toml(recipe.data.crop)}, expected "lesions", which mode.insert learns from'
            yield Problem("data.crop", what, "Set it")
        if recipe.strategy is not None and recipe.strategy.unconditional:
            what = "is given no mask, which mode.insert paints by"
            yield Problem(f"strategy.{recipe.names['strategy']}", what, "Use rflow or ddpm")
        if (space := recipe.names.get("space")) in MIXING:
            what = "mixes a lesion with what lies around it, which mode.insert leaves as it is"
            yield Problem(f"space.{space}", what, "Use space.pixel or space.space_to_depth")

    def build(self) -> Mode:
        return Mode(
            images=self.images,
            condition=(self.mask, *self.parts),
            margin=self.margin,
            numbers=self.numbers or (),
        )


@hookimpl
def medgen_modes() -> dict[str, type]:
    return {"insert": Insert}
