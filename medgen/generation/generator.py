"""Makes pairs from a model of masks, or a folder of them, and a model of images, or from one model of
both: a block at a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from medgen import seeds
from medgen.data.store.nifti_writer import as_written
from medgen.errors import Problem, RecipeError
from medgen.evaluation.lesion_outside_head import OUTSIDE, worst_outside
from medgen.generation.anatomy import TRIES, Anatomy
from medgen.generation.combination import (
    require_anatomy,
    require_image_model,
    require_same_masks,
)
from medgen.generation.given import Given, Giver
from medgen.generation.masks import JointMasks, Masks, MaskSource
from medgen.generation.model import Model, draw_samples
from medgen.generation.numbers import EVERYWHERE, Range, Row, restricted
from medgen.generation.pair_format import AS_MADE
from medgen.run.assemble import default_device
from medgen.run.versions import versions

Array = np.ndarray[Any, np.dtype[Any]]
OUTSIDE_HEAD = "outside_head"
"""The fault of a mask whose lesion lies outside the head that was drawn for it."""
OUTSIDE_ANATOMY = "outside_anatomy"
"""The fault of a mask whose lesion lies in the anatomy of none of the patients tried, so that no image
was drawn for it.
"""
DRAWN_AGAIN = "drawn_again"
"""Key of a manifest's line: how often its image was drawn again, if it was."""
NUMBERS = "numbers"
"""Key of a manifest's line: the numbers that its models were given, by name, if they were."""
ANATOMY = "anatomy"
"""Key of a manifest's line: whose anatomy its image model was given, and which slice, if it was."""


class Pair(NamedTuple):
    """One sample to write. channels: `[x, y]`, or `[x, y, z]`, by name, in [-1, 1]; masks are those
    named in `masks`.

    faults: of the mask at each attempt. No channels: every attempt was invalid. numbers: that its
    models were given. anatomy: whose, and of slices which, if its image model was given one.
    """

    number: int
    faults: list[str]
    channels: dict[str, Array]
    masks: frozenset[str]
    numbers: Row = MappingProxyType({})
    anatomy: Mapping[str, Any] = MappingProxyType({})

    @property
    def drawn_again(self) -> int:
        """How often its image was drawn again, each time from the next stream of noise."""
        return self.faults.count(OUTSIDE_HEAD)


class Generator:
    """Generates pairs by block: masks only without an image model, images only without masks.

    inside: how often a pair is drawn until its lesion lies inside its own head, and in the anatomy that
    the image model is given; 0: wherever it lies. within: positions in the head to draw from, where a
    model is given any. guidance: of the image model by the mask, see `sampling.guided`; None: as its
    recipe says. anatomy: images that the image model is given besides masks. form: of the files.
    """

    form = AS_MADE

    def __init__(
        self,
        image: Model | None,
        masks: MaskSource | None,
        seed: int,
        steps: int | None,
        batch_size: int,
        inside: int = 0,
        within: Range = EVERYWHERE,
        guidance: float | None = None,
        anatomy: Anatomy | None = None,
    ):
        self.image, self.masks, self.seed, self.steps, self.batch_size = (
            image,
            masks,
            seed,
            steps,
            batch_size,
        )
        self.within, self.guidance, self.anatomy = within, guidance, anatomy
        self._check()
        source = image or masks
        self.grid = source.grid  # type: ignore[union-attr]  # _check saw one of them
        numbers = None
        if image and image.numbers and not isinstance(masks, JointMasks):
            numbers = restricted(image.numbers, "--image-model", within)
        self.inside = inside if image and masks else 0
        self._giver = Giver(numbers, anatomy, seed, self.grid.cell, bool(self.inside))

    @property
    def makes_volumes(self) -> bool:
        """True if a pair is a volume, and no slice."""
        return len(self.grid.shape) == 3

    def identity(self) -> dict[str, Any]:
        """Return everything that decides the bytes of a pair besides its index."""
        mine = {"seed": self.seed, "steps": self.steps, "batch_size": self.batch_size}
        return {
            **mine,
            "image_model": self.image.digest if self.image else None,
            **(self.masks.identity() if self.masks else {}),
            **({"inside": "head", "max_attempts": self.inside} if self.inside else {}),
            **({"dimensions": 3} if self.makes_volumes else {}),
            **({} if self.within == EVERYWHERE else {"position": list(self.within)}),
            **({} if self.guidance is None else {"guidance": self.guidance}),
            **({} if self.anatomy is None else self.anatomy.identity()),
            **({"anatomy_tries": TRIES} if self.anatomy and self.inside else {}),
            **self.form.identity(),
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
        given = []
        for place, index in enumerate(indices):
            one, masks = self._fitting(index, masks, place)
            given.append(one)
        images = self._images(indices, masks, given)
        for place, index in enumerate(indices):
            faults = masks.faults[place] if masks else [""]
            channels = {} if faults[-1] else self._channels(images, masks, place)
            anatomy = self._giver.named(given[place])
            yield Pair(index, faults, channels, self._names(), given[place].known, anatomy)

    def _fitting(self, index: int, masks: Masks | None, place: int) -> tuple[Given, Masks | None]:
        """Draw what fits the mask of a pair, and the mask again while no anatomy holds its lesion: an
        image takes longer to draw than a mask.
        """
        given = self._giver.drawn(index, masks, place)
        while masks is not None and (masks.faults[place][-1] or not given.holds):
            tried = len(masks.faults[place])
            if self.masks is None or tried >= self.inside:
                break
            masks = masks.put(place, OUTSIDE_ANATOMY, self.masks.again(index, tried + 1))
            anew = 1 + masks.faults[place].count(OUTSIDE_ANATOMY)
            given = self._giver.drawn(index, masks, place, anew)
        return given, masks

    def settled(self, pair: Pair) -> Pair:
        """The pair, drawn again on its own while its lesion lies outside its head; none without its
        own draws.

        Mask and image of attempt n come from streams of their own, so that no other pair changes.
        """
        pair, images = pair._replace(faults=list(pair.faults)), 1
        while self.inside and pair.channels and self.outside(pair.channels) > OUTSIDE:
            pair.faults[-1], images = OUTSIDE_HEAD, images + 1
            pair = pair._replace(channels={})
            while not pair.channels and len(pair.faults) < self.inside:
                pair = self._again(pair, images)
        return pair

    def outside(self, channels: Mapping[str, Array]) -> float:
        """Return the largest share of any lesion of a pair that lies outside its head, by the image as it
        is written: a pair at the limit would otherwise be drawn again though its file is fine.
        """
        given = self._names()
        images = np.stack(
            [as_written(values) for name, values in channels.items() if name not in given]
        )
        return worst_outside(
            images, np.any([channels[name] > 0 for name in given if name in channels], axis=0)
        )

    def _again(self, pair: Pair, images: int) -> Pair:
        """Draw a mask once more, note its fault, and if it has none an image: for the `images`th
        time.
        """
        assert self.masks is not None
        masks = self.masks.again(pair.number, len(pair.faults) + 1)
        pair = pair._replace(faults=[*pair.faults, *masks.faults[0]])
        if pair.faults[-1]:
            return pair
        anew = images + pair.faults.count(OUTSIDE_ANATOMY)
        given = self._giver.drawn(pair.number, masks, 0, anew)
        if not given.holds and len(pair.faults) < self.inside:
            pair.faults[-1] = OUTSIDE_ANATOMY
            return pair
        made = self._images([pair.number], masks, [given], images)
        return pair._replace(
            channels=self._channels(made, masks, 0),
            numbers=given.known,
            anatomy=self._giver.named(given),
        )

    def _images(
        self,
        indices: Sequence[int],
        masks: Masks | None,
        given: Sequence[Given],
        images: int = 1,
    ) -> Tensor | None:
        """Draw images given masks, or take those that were drawn with them."""
        if self.image is None:
            return None
        if masks is not None and masks.images is not None:
            return masks.images
        condition = (
            torch.empty(len(indices), 0, *self.image.grid.shape) if masks is None else masks.values
        )
        names = self.masks.names if self.masks else ()
        condition = self._giver.condition(given, condition, names)
        numbers = [each.numbers for each in given]
        generators = [seeds.stream(self.seed, "image", index, images) for index in indices]
        return draw_samples(self.image, condition, generators, self.steps, numbers, self.guidance)

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
        made, masks = self.image.parts.mode.images if self.image else (), self._names()
        names = dict.fromkeys((*made, *(self.masks.names if self.masks else ())))
        return [each for each in names if each not in masks], [
            each for each in names if each in masks
        ]

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
        given = None if isinstance(self.masks, JointMasks) else self.masks
        if self.image is not None:
            require_image_model(self.image, with_masks=given is not None)
            require_anatomy(self.image, given=self.anatomy is not None)
        if self.image is not None and given is not None:
            require_same_masks(given.names, self.image)
        self._check_position()
        if self.guidance is not None and (self.image is None or not self.image.masks_given):
            what = "is given, but no image model here is given a mask"
            raise RecipeError(Problem("--guidance", what, "Leave it out"))

    def _check_position(self) -> None:
        """Refuse positions for models that are given none."""
        if self.within == EVERYWHERE:
            return
        tables = [each.numbers for each in (self.image, self.masks) if each is not None]
        if not any(table is not None and "position" in table.names for table in tables):
            what = "is given, but no model here is given the position in the head"
            fix = 'Leave it out, or train one with numbers = ["position"] in its mode'
            raise RecipeError(Problem("--position", what, fix))
