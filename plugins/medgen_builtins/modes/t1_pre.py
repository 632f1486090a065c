"""The T1-weighted image before contrast, given the lesion mask."""

from __future__ import annotations

from medgen import Mode, ModeSettings, field, hookimpl, settings

medgen_api = 1


@settings
class T1Pre(ModeSettings):
    """The T1-weighted image before contrast, given the lesion mask."""

    condition: tuple[str, ...] = field(("seg",), help="names of the condition masks")
    numbers: tuple[str, ...] | None = field(
        None, help="names of numbers that it is given too, such as position"
    )

    def build(self) -> Mode:
        return Mode(images=("t1_pre",), condition=self.condition, numbers=self.numbers or ())


@hookimpl
def medgen_modes() -> dict[str, type]:
    return {"t1_pre": T1Pre}
