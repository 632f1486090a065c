"""Features of a network taught on the spot from real heads: it knows anatomy, not photographs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from medgen import Extractor, FeaturesSettings, field, ge, gt, hookimpl, settings

if TYPE_CHECKING:
    import torch

medgen_api = 1


@settings
class Taught(FeaturesSettings):
    """Four halvings taught on real heads to tell a slice's place, up from down, scrambled anatomy,
    blur and noise.
    """

    steps: int = field(700, help="training steps", check=ge(1))
    batch_size: int = field(64, help="slices of a step", check=gt(0))
    noise: float = field(
        0.3, help="largest standard deviation of the noise added, of a range of 2", check=gt(0)
    )
    blur: float = field(1.5, help="largest standard deviation of the blur, px", check=gt(0))

    anatomy = True

    def build(self, device: torch.device) -> Extractor:
        from medgen_builtins.features._taught import Harms, TaughtExtractor

        return TaughtExtractor(self.steps, Harms(self.batch_size, self.noise, self.blur), device)


@hookimpl
def medgen_features() -> dict[str, type]:
    return {"taught": Taught}
