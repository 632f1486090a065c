"""The lesion mask, from noise alone."""

from __future__ import annotations

from medgen import Mode, ModeSettings, hookimpl, settings

medgen_api = 1


@settings
class Seg(ModeSettings):
    """The lesion mask, from noise alone."""

    def build(self) -> Mode:
        return Mode(images=("seg",))


@hookimpl
def medgen_modes() -> dict[str, type]:
    return {"seg": Seg}
