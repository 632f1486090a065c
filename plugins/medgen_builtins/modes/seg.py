"""The lesion mask, from noise alone."""

from __future__ import annotations

from medgen import Mode, ModeSettings, field, hookimpl, settings

medgen_api = 1


@settings
class Seg(ModeSettings):
    """The lesion mask, from noise alone."""

    numbers: tuple[str, ...] | None = field(
        None, help="names of numbers that it is given too, such as position"
    )

    def build(self) -> Mode:
        return Mode(images=("seg",), numbers=self.numbers or ())


@hookimpl
def medgen_modes() -> dict[str, type]:
    return {"seg": Seg}
