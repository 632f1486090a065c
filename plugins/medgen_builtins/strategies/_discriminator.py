"""Settings of the patch discriminator."""

from __future__ import annotations

import math
from typing import Literal

from medgen import Check, between, field, ge, gt, settings

_DECAY = Check(lambda decay: 0 <= decay < 1, "from 0 to below 1")


@settings
class Discriminator:
    """A patch discriminator (Isola et al. 2017), for recipes with a loss such as `adversarial`."""

    channels: int = field(
        64,
        help="channels of the first layer; each further layer doubles them",
        check=between(1, 65536),
    )
    layers: int | None = field(
        None,
        help="layers between the first and the last; default: for patches of half the image",
        check=between(1, 16),
    )
    norm: Literal["group", "instance"] = field(
        "group", help="kind of norm; both work for batches of any size"
    )
    learning_rate: float = field(
        1.0, help="learning rate, as a multiple of training.learning_rate", check=gt(0)
    )
    start_step: int = field(
        1000, help="optimizer steps before the discriminator takes part", check=ge(0)
    )
    betas: tuple[float, float] = field(
        (0.5, 0.9), help="decay rates of the two averages of its AdamW", check=_DECAY
    )

    def depth(self, image_size: int) -> int:
        """Return the layers for patches of about half an image: 34 px of 64, 70 of 128, 142 of 256."""
        return self.layers or min(max(round(math.log2(image_size / 16)), 1), 4)
