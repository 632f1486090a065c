"""T1-weighted images before and after contrast, made together, given the lesion mask."""

from __future__ import annotations

from medgen import Mode, ModeSettings, field, hookimpl, settings

medgen_api = 1


@settings
class Dual(ModeSettings):
    """T1-weighted images before and after contrast, made together, given the lesion mask."""

    condition: tuple[str, ...] = field(("seg",), help="names of the condition masks")

    def build(self) -> Mode:
        return Mode(images=("t1_pre", "t1_gd"), condition=self.condition)


@hookimpl
def medgen_modes() -> dict[str, type]:
    return {"dual": Dual}
