"""Any images, given any others."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from medgen import Mode, ModeSettings, Problem, field, hookimpl, settings
from medgen.api.messages import as_toml

if TYPE_CHECKING:
    from medgen.api.recipe import Recipe

medgen_api = 1


@settings
class Images(ModeSettings):
    """Any images or masks by name, given any others."""

    images: tuple[str, ...] = field(help="names of the generated images and masks, as in [data]")
    condition: tuple[str, ...] = field((), help="names of the condition channels")
    pooled: bool = field(False, help="treat every image as a sample of its own with one channel")
    numbers: tuple[str, ...] | None = field(
        None, help="names of numbers that it is given too, such as position"
    )

    def check(self, recipe: Recipe) -> Iterator[Problem]:
        from medgen.data.scans.manifest_lines import (
            is_file_name,
        )  # NumPy is nothing for `medgen --help`

        if not self.images:
            what = "got [], expected at least one name"
            yield Problem("mode.images.images", what, "Name the images to generate")
        names = self.images + self.condition
        for name in names:
            if not is_file_name(name):
                what = f"got {as_toml(name)}, expected a name for files"
                yield Problem("mode.images", what, "Choose another in [data.files]")
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            what = f"got {', '.join(twice)} more than once"
            yield Problem("mode.images", what, "Name each once, in images or in condition")

    def build(self) -> Mode:
        return Mode(
            images=self.images,
            condition=self.condition,
            pooled=self.pooled,
            numbers=self.numbers or (),
        )


@hookimpl
def medgen_modes() -> dict[str, type]:
    return {"images": Images}
