"""The T1-weighted BRAVO image after contrast, given the lesion mask."""

from __future__ import annotations

from medgen import Mode, ModeSettings, field, hookimpl, settings

medgen_api = 1


@settings
class Bravo(ModeSettings):
    """The T1-weighted BRAVO image after contrast, given the lesion mask."""

    condition: tuple[str, ...] = field(("seg",), help="names of the condition masks")
    numbers: tuple[str, ...] | None = field(
        None, help="names of numbers that it is given too, such as position"
    )

    def build(self) -> Mode:
        return Mode(images=("bravo",), condition=self.condition, numbers=self.numbers or ())


@hookimpl
def medgen_modes() -> dict[str, type]:
    return {"bravo": Bravo}
