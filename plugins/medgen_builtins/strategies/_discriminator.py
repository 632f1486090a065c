"""The settings of the patch discriminator."""

from __future__ import annotations

import math
from typing import Literal

from medgen import Check, between, field, ge, gt, settings

_DECAY = Check(lambda decay: 0 <= decay < 1, "from 0 to below 1")


@settings
class Discriminator:
    """Looks at patches (Isola et al. 2017). It takes part only if the recipe has a loss such as `adversarial`."""

    channels: int = field(64, help="width of its first layer; each further layer doubles it", check=between(1, 65536))
    layers: int | None = field(
        None, help="layers between the first and the last; unless given, as patches of half the image need", check=ge(1)
    )
    norm: Literal["group", "instance"] = field("group", help="either works for batches of any size")
    learning_rate: float = field(1.0, help="its rate, as a multiple of training.learning_rate", check=gt(0))
    start_step: int = field(1000, help="optimizer steps before it joins", check=ge(0))
    betas: tuple[float, float] = field((0.5, 0.9), help="decay rates of its AdamW's two averages", check=_DECAY)

    def depth(self, image_size: int) -> int:
        """Layers whose patches are about half an image: 34 px of 64, 70 px of 128, 142 px of 256."""
        return self.layers or min(max(round(math.log2(image_size / 16)), 1), 4)
