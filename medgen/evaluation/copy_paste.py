"""More training slices or volumes without learning: a lesion of one person, pasted into the head of
another.

The control that a generator has to beat. Nothing but the training persons themselves is used. After
Ghiasi et al. (2021, "Simple Copy-Paste") and, for lesions, CarveMix (Zhang et al. 2021): a margin
comes along with the lesion and fades into the host, after Poisson blending, as in `medgen insert
--image-model paste`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import attrs
import numpy as np
from scipy import ndimage, signal

from medgen import seeds
from medgen.evaluation.blending import blend
from medgen.evaluation.heads import heads_of
from medgen.evaluation.lesion_scores import components
from medgen.evaluation.samples import Samples

Array = np.ndarray[Any, Any]

MARGIN = 4.0
"""mm around a lesion that are pasted with it and fade out."""
DEPTH = 8.0
"""mm below the surface of the head where the brain begins: scalp and skull."""
PLACES = 24
"""Places that are compared; the one whose surroundings are most like the lesion's own is taken."""
ATTEMPTS = 20
"""Hosts and lesions that are tried for one sample."""


class _Patch(NamedTuple):
    """A lesion cut out. image: `[channel, *space]`; lesion: bool `[*space]`; alpha: `[*space]`, 1 in
    it, 0 at the rim.
    """

    image: Array
    lesion: Array
    alpha: Array

    @property
    def around(self) -> Array:
        """Return the intensity around the lesion, `[channel]`."""
        return _level(self.image, self.rim)

    @property
    def rim(self) -> Array:
        """Return bool `[*space]`: the margin, without the lesion."""
        return (self.alpha > 0) & ~self.lesion


def copy_paste(samples: Samples, count: int, seed: int) -> Samples:
    """Make `count` samples: a host with its own lesions, and one more from another person.

    Hosts go round in an order that the seed draws. A sample in which nothing fits after ATTEMPTS
    tries, or for which there is no second person, stays as its host is.
    """
    donors = [
        (row, number)
        for row, mask in enumerate(samples.masks)
        for number in range(1, components(mask)[1] + 1)
    ]
    heads = heads_of(samples.images)
    made = [_made(samples, heads, donors, number, seed) for number in range(count)]
    hosts = np.array([host for host, _, _ in made], np.int64)
    return attrs.evolve(
        samples.take(hosts),
        images=np.stack([image for _, image, _ in made]) if made else samples.images[:0],
        masks=np.stack([mask for _, _, mask in made]) if made else samples.masks[:0],
        names=tuple(f"pasted_{number:05d}" for number in range(count)),
        where=f"{samples.where}, lesions pasted",
    )


def _made(
    samples: Samples, heads: Array, donors: list[tuple[int, int]], number: int, seed: int
) -> tuple[int, Array, Array]:
    """Return one sample: its host's row, image and mask."""
    rng = np.random.default_rng(seeds.derive(seed, "copy-paste", number))
    order = np.random.default_rng(seeds.derive(seed, "copy-paste hosts", number // len(samples)))
    host = int(order.permutation(len(samples))[number % len(samples)])
    image, mask = samples.images[host], samples.masks[host]
    others = [each for each in donors if samples.people[each[0]] != samples.people[host]]
    for _ in range(ATTEMPTS if others else 0):
        row, lesion = others[rng.integers(len(others))]
        patch = _turned(_patch(samples, row, lesion), rng)
        free = _free(heads[host], mask, patch, samples.grid.spacing[0])
        if free.any():
            return host, *_pasted(image, mask, patch, _place(image, patch, free, rng))
    return host, image, mask


def _patch(samples: Samples, row: int, number: int) -> _Patch:
    """Cut out a lesion with its margin, an odd number of pixels along each axis."""
    lesion = components(samples.masks[row])[0] == number
    reach = max(2, round(MARGIN / samples.grid.spacing[0]))
    (box,) = ndimage.find_objects(lesion.astype(np.uint8))
    wide = [(reach, reach + 1 - (part.stop - part.start) % 2) for part in box]
    window = tuple(
        slice(part.start, part.stop + sum(pad)) for part, pad in zip(box, wide, strict=True)
    )
    padding = [(reach, reach + 1)] * lesion.ndim
    inside = np.pad(lesion, padding)[window]
    distance = ndimage.distance_transform_edt(~inside)
    others = np.pad(samples.masks[row] & ~lesion, padding)[window]
    alpha = np.where(others, 0.0, np.clip(1 - distance / (reach + 1), 0, 1)).astype(np.float32)
    image = np.pad(samples.images[row], [(0, 0), *padding], mode="edge")[_channels(window)]
    return _Patch(image, inside, alpha)


def _turned(patch: _Patch, rng: np.random.Generator) -> _Patch:
    """Turn by quarters, of volumes about the long axis of the body, and mirror: the same lesion looks
    different in another head.
    """
    turns, mirror = int(rng.integers(4)), bool(rng.integers(2))
    first = -patch.lesion.ndim
    turned = [np.rot90(each, turns, (first, first + 1)) for each in patch]
    return _Patch(*(np.ascontiguousarray(each[..., ::-1] if mirror else each) for each in turned))


def _free(head: Array, mask: Array, patch: _Patch, spacing: float) -> Array:
    """Return centres, bool `[*space]`, where the patch lies in the brain, apart from other lesions."""
    within = np.pad(head, 1)  # the edge of the image is an edge of the head
    depth = ndimage.distance_transform_edt(within)[(slice(1, -1),) * head.ndim] * spacing
    allowed = (depth > DEPTH) & ~ndimage.binary_dilation(mask, iterations=2)
    # an erosion, as a count of what is not allowed under the patch: in volumes many times as fast
    patch_there = np.flip(patch.alpha > 0).astype(np.float64)
    refused = signal.fftconvolve((~allowed).astype(np.float64), patch_there, mode="same")
    return np.asarray((refused < 0.5) & _fits(mask.shape, patch.lesion.shape))


def _fits(shape: tuple[int, ...], window: tuple[int, ...]) -> Array:
    """Return centres at which a window, of odd sides, lies in the image."""
    ok = np.zeros(shape, bool)
    half = [side // 2 for side in window]
    ok[tuple(slice(rim, side - rim) for rim, side in zip(half, shape, strict=True))] = True
    return ok


def _place(image: Array, patch: _Patch, free: Array, rng: np.random.Generator) -> tuple[slice, ...]:
    """Draw a few windows; return the one whose surroundings are most like the lesion's own."""
    centres = np.argwhere(free)
    drawn = centres[rng.integers(len(centres), size=PLACES)]
    windows = [_window(centre, patch.lesion.shape) for centre in drawn]
    unlike = [
        np.abs(_level(image[_channels(window)], patch.rim) - patch.around).sum()
        for window in windows
    ]
    return windows[int(np.argmin(unlike))]


def _window(centre: Array, shape: tuple[int, ...]) -> tuple[slice, ...]:
    low = [int(at) - side // 2 for at, side in zip(centre, shape, strict=True)]
    return tuple(slice(start, start + side) for start, side in zip(low, shape, strict=True))


def _channels(window: tuple[slice, ...]) -> tuple[slice, ...]:
    """Return the window of an image, in all of its channels."""
    return (slice(None), *window)


def _pasted(
    image: Array, mask: Array, patch: _Patch, window: tuple[slice, ...]
) -> tuple[Array, Array]:
    """Blend the patch in, on the level of the host around it."""
    image, mask = image.copy(), mask.copy()
    there = _channels(window)
    host = image[there]
    blended = blend(host, patch.image, patch.alpha > 0, kept=patch.alpha > 0)
    image[there] = np.clip(host + patch.alpha * (blended - host), -1, 1)
    mask[window] |= patch.lesion
    return image, mask


def _level(image: Array, where: Array) -> Array:
    """Return the mean intensity, `[channel]`, where a mask holds; 0 where it is empty."""
    return image[:, where].mean(1) if where.any() else np.zeros(len(image))
