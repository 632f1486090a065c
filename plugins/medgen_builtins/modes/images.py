"""Any images, given any others."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from medgen import Mode, ModeSettings, field, hookimpl, settings
from medgen.api.settings import as_toml

if TYPE_CHECKING:
    from medgen.api.recipe import Recipe

medgen_api = 1


@settings
class Images(ModeSettings):
    """Any images or masks by name, given any others."""

    images: tuple[str, ...] = field(help="names of the generated images and masks, as in [data]")
    condition: tuple[str, ...] = field((), help="names of the condition channels")
    pooled: bool = field(False, help="treat every image as a sample of its own with one channel")

    def check(self, recipe: Recipe) -> Iterator[str]:
        from medgen.evaluation.manifest_lines import is_file_name  # NumPy is nothing for `medgen --help`

        if not self.images:
            yield "mode.images.images: got [], expected at least one name. Name the images to generate."
        names = self.images + self.condition
        for name in names:
            if not is_file_name(name):
                yield f"mode.images: got {as_toml(name)}, expected a name for files. Choose another in [data.files]."
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            yield f"mode.images: got {', '.join(twice)} more than once. Name each once, in images or in condition."

    def build(self) -> Mode:
        return Mode(images=self.images, condition=self.condition, pooled=self.pooled)


@hookimpl
def medgen_modes() -> dict[str, type]:
    return {"images": Images}
