"""Makes pairs from a model of masks, or a folder of them, and a model of images: a block at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from medgen import seeds
from medgen.errors import Problem, RecipeError
from medgen.evaluation.head_mask import OUTSIDE, outside
from medgen.generation.combination import require_image_model, require_same_masks
from medgen.generation.masks import Masks, MaskSource
from medgen.generation.model import Model, draw_samples
from medgen.run.assemble import default_device
from medgen.run.versions import versions

Array = np.ndarray[Any, np.dtype[Any]]
OUTSIDE_HEAD = "outside_head"
"""The fault of a mask whose lesion lies outside the head that was drawn for it."""
DRAWN_AGAIN = "drawn_again"
"""Key of a manifest's line: how often its image was drawn again, if it was."""
UNJUDGED = "not judged, as pairs are volumes and heads are judged in slices"
"""What a manifest says of `inside` where pairs are volumes."""


class Pair(NamedTuple):
    """One sample to write. channels: `[x, y]`, or `[x, y, z]`, by name, in [-1, 1]; masks are those
    named in `masks`.

    faults: of the mask at each attempt. No channels: every attempt was invalid.
    """

    number: int
    faults: list[str]
    channels: dict[str, Array]
    masks: frozenset[str]

    @property
    def drawn_again(self) -> int:
        """How often its image was drawn again, each time from the next stream of noise."""
        return self.faults.count(OUTSIDE_HEAD)


class Generator:
    """Generates pairs by block: masks only without an image model, images only without masks.

    inside: how often a pair is drawn until its lesion lies inside its own head; 0: wherever it
    lies, as always in volumes.
    """

    def __init__(
        self,
        image: Model | None,
        masks: MaskSource | None,
        seed: int,
        steps: int | None,
        batch_size: int,
        inside: int = 0,
    ):
        self.image, self.masks, self.seed, self.steps, self.batch_size = (
            image,
            masks,
            seed,
            steps,
            batch_size,
        )
        self._check()
        source = image or masks
        self.grid = source.grid  # type: ignore[union-attr]  # _check saw one of them
        self.inside = inside if image and masks and not self.makes_volumes else 0

    @property
    def makes_volumes(self) -> bool:
        """True if a pair is a volume, and no slice."""
        return len(self.grid.shape) == 3

    @property
    def is_unjudged(self) -> bool:
        """True if pairs have lesions and heads, but as volumes."""
        return self.makes_volumes and None not in (self.image, self.masks)

    def identity(self) -> dict[str, Any]:
        """Return everything that decides the bytes of a pair besides its index."""
        mine = {"seed": self.seed, "steps": self.steps, "batch_size": self.batch_size}
        return {
            **mine,
            "image_model": self.image.digest if self.image else None,
            **(self.masks.identity() if self.masks else {}),
            **({"inside": "head", "max_attempts": self.inside} if self.inside else {}),
            **({"dimensions": 3} if self.makes_volumes else {}),
            **({"inside": UNJUDGED} if self.is_unjudged else {}),
        }

    def made_with(self) -> dict[str, Any]:
        """Return what may change the last bits: software, device, and the number of threads on a
        CPU.
        """
        device = self.image.device if self.image else default_device()
        on = (
            torch.cuda.get_device_name(device)
            if device.type == "cuda"
            else torch.backends.cpu.get_cpu_capability()
        )
        threads = "" if device.type == "cuda" else f", threads: {torch.get_num_threads()}"
        return {"versions": versions(), "device": f"{device.type} {on}{threads}"}

    def block(self, number: int) -> Iterator[Pair]:
        """Generate pairs from `number * batch_size` on; without channels if no valid mask was
        found.
        """
        indices = range(number * self.batch_size, (number + 1) * self.batch_size)
        masks = self.masks.block(indices) if self.masks else None
        images = self._images(indices, masks)
        for place, index in enumerate(indices):
            faults = masks.faults[place] if masks else [""]
            channels = {} if faults[-1] else self._channels(images, masks, place)
            yield Pair(index, faults, channels, self._names())

    def settled(self, pair: Pair) -> Pair:
        """The pair, drawn again on its own while its lesion lies outside its head; none without its
        own draws.

        Mask and image of attempt n come from streams of their own, so that no other pair changes.
        """
        faults, channels, images = list(pair.faults), pair.channels, 1
        while self.inside and channels and self.outside(channels) > OUTSIDE:
            faults[-1], channels, images = OUTSIDE_HEAD, {}, images + 1
            while not channels and len(faults) < self.inside:
                channels = self._again(pair.number, faults, images)
        return pair._replace(faults=faults, channels=channels)

    def outside(self, channels: Mapping[str, Array]) -> float:
        """Share of a pair's lesion that lies outside its head."""
        given = self._names()
        images = np.stack([values for name, values in channels.items() if name not in given])
        return outside(
            images, np.any([channels[name] > 0 for name in given if name in channels], axis=0)
        )

    def _again(self, index: int, faults: list[str], images: int) -> dict[str, Array]:
        """Draw a mask once more, note its fault, and if it has none an image: for the `images`th
        time.
        """
        assert self.image is not None
        assert self.masks is not None
        mask, fault = self.masks.again(index, len(faults) + 1)
        faults.append(fault)
        if fault:
            return {}
        masks = Masks(mask[None], [[fault]])
        generators = [seeds.stream(self.seed, "image", index, images)]
        return self._channels(
            draw_samples(self.image, masks.values, generators, self.steps), masks, 0
        )

    def _images(self, indices: Sequence[int], masks: Masks | None) -> Tensor | None:
        if self.image is None:
            return None
        condition = (
            torch.empty(len(indices), 0, *self.image.grid.shape) if masks is None else masks.values
        )
        generators = [seeds.stream(self.seed, "image", index, 1) for index in indices]
        return draw_samples(self.image, condition, generators, self.steps)

    def _channels(self, images: Tensor | None, masks: Masks | None, place: int) -> dict[str, Array]:
        channels: dict[str, Array] = {}
        if self.image is not None and images is not None:
            names = self.image.parts.mode.images
            channels |= {name: images[place, channel].numpy() for channel, name in enumerate(names)}
        if self.masks is not None and masks is not None:
            channels |= {
                name: masks.values[place, channel].numpy()
                for channel, name in enumerate(self.masks.names)
            }
        return channels

    def shown(self) -> tuple[Sequence[str], Sequence[str]]:
        """The names of the images and of the masks that a pair has."""
        return (
            self.image.parts.mode.images if self.image else (),
            self.masks.names if self.masks else (),
        )

    def _names(self) -> frozenset[str]:
        given = self.image.masks if self.image else frozenset()
        return given | frozenset(self.masks.names if self.masks else ())

    def _check(self) -> None:
        if self.image is None and self.masks is None:
            raise RecipeError(
                Problem(
                    "--image-model, --seg-model",
                    "nothing to generate with",
                    "Give at least one of them",
                )
            )
        if self.image is not None:
            require_image_model(self.image, with_masks=self.masks is not None)
        if self.image is not None and self.masks is not None:
            require_same_masks(self.masks.names, self.image)
