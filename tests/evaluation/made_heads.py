"""Made-up slices of heads whose every part is known, and ways to spoil them by a strength from 0 to 1."""

from __future__ import annotations

import attrs
import numpy as np
from scipy import ndimage

from medgen.data.grid import Grid
from medgen.evaluation.heads import heads_of
from medgen.evaluation.samples import Samples

SIZE = 48
SPACING = 4.0


def heads(
    people: range, slices: int = 4, seed: int = 0, ventricle: float = 1.0, scale: float = 1.0
) -> Samples:
    """Slices of some persons: an egg of bone, brain and cortex, two ventricles, a bright lesion or two.

    ventricle: 1 as dark as it is, 0 filled with brain. scale: of the lesions' radii.
    """
    pairs = [
        _slice(person, number, seed, ventricle, scale)
        for person in people
        for number in range(slices)
    ]
    return Samples(
        images=np.stack([image for image, _ in pairs])[:, None].astype(np.float32),
        masks=np.stack([mask for _, mask in pairs]),
        people=np.repeat(np.array(people), slices),
        position=np.tile(np.linspace(0.3, 0.7, slices, dtype=np.float32), len(people)),
        names=tuple(
            f"patient {person}, slice {number}" for person in people for number in range(slices)
        ),
        channels=("bravo",),
        grid=Grid.of_slices(SIZE, SPACING, "axial"),
        where="made up",
    )


def _slice(
    person: int, number: int, seed: int, ventricle: float, scale: float
) -> tuple[np.ndarray, np.ndarray]:
    own = np.random.default_rng((seed, person))
    wide, high, bone, brain, dark = own.uniform(
        (0.76, 0.86, 0.7, 0.1, 0.16), (0.84, 0.94, 0.8, 0.2, 0.22)
    )
    rng = np.random.default_rng((seed, person, number))
    place = (np.arange(SIZE) + 0.5) / SIZE * 2 - 1
    x, y = place[:, None], place[None]
    radius = np.hypot(
        x / (wide * (1 - 0.18 * y)), y / high
    )  # narrower at one end, as a head is in front
    inside = radius < 1
    image = np.where(radius < 0.88, brain, bone)
    image = np.where((radius > 0.72) & (radius < 0.86), brain - 0.3, image)
    gap = 0.1 + 0.02 * number
    hollow = (np.hypot((np.abs(x) - gap) / dark, (y + 0.05) / (1.6 * dark)) < 1) & (
        np.abs(x) > 0.02
    )
    image = np.where(hollow, brain - 0.9 * ventricle, image)
    mask = _lesions(rng, x, y, wide, high, scale)
    image = np.where(mask, 0.75 + 0.1 * rng.standard_normal(), image)
    image = ndimage.gaussian_filter(image, 0.6) + 0.03 * rng.standard_normal((SIZE, SIZE))
    return np.where(inside, np.clip(image, -0.85, 1), -1), mask


def _lesions(
    rng: np.random.Generator, x: np.ndarray, y: np.ndarray, wide: float, high: float, scale: float
) -> np.ndarray:
    mask = np.zeros((SIZE, SIZE), bool)
    for _ in range(rng.integers(1, 3)):
        angle, far, size = rng.uniform((0, 0.4, 0.08), (2 * np.pi, 0.6, 0.16))
        centre = far * wide * np.cos(angle), far * high * np.sin(angle)
        mask |= np.hypot(x - centre[0], y - centre[1]) < size * scale
    return mask


def _changed(samples: Samples, images: np.ndarray) -> Samples:
    return attrs.evolve(samples, images=images.astype(np.float32))


def blur(samples: Samples, strength: float) -> Samples:
    """A blur of up to 2 px."""
    return _changed(
        samples, ndimage.gaussian_filter(samples.images, (0, 0, 2 * strength, 2 * strength))
    )


def noise(samples: Samples, strength: float) -> Samples:
    """Noise of up to 0.3, in the head."""
    drawn = np.random.default_rng(5).standard_normal(samples.images.shape)
    inside = samples.images > -1
    return _changed(
        samples, np.where(inside, np.clip(samples.images + 0.3 * strength * drawn, -0.99, 1), -1)
    )


def mottled(samples: Samples, strength: float) -> Samples:
    """Smooth blotches of up to 0.4 in the head, unlike on the two sides."""
    drawn = np.random.default_rng(6).standard_normal(samples.images.shape)
    blotches = ndimage.gaussian_filter(drawn, (0, 0, 2, 2))
    values = samples.images + 0.4 * strength * blotches / blotches.std()
    return _changed(samples, np.where(samples.images > -1, np.clip(values, -0.85, 1), -1))


def shrunk_contrast(samples: Samples, strength: float) -> Samples:
    """Lesions that fade, down to the mean of the head."""
    inside = samples.masks[:, None]
    means = np.array([image[image > -1].mean() for image in samples.images])[:, None, None, None]
    return _changed(
        samples,
        np.where(inside, samples.images + strength * (means - samples.images), samples.images),
    )


def gamma(samples: Samples, strength: float) -> Samples:
    """A gamma of up to 2."""
    return _changed(samples, ((samples.images + 1) / 2) ** (1 + strength) * 2 - 1)


def upside_down(samples: Samples, strength: float) -> Samples:
    """A share of the slices with their masks, the other way up."""
    some = _some(samples, strength)
    turned = attrs.evolve(samples, images=samples.images[..., ::-1], masks=samples.masks[..., ::-1])
    images = np.where(some[:, None, None, None], turned.images, samples.images)
    return attrs.evolve(
        samples, images=images, masks=np.where(some[:, None, None], turned.masks, samples.masks)
    )


def missing_ventricle(samples: Samples, strength: float) -> Samples:
    """The same slices with ventricles up to as bright as brain."""
    people = np.unique(samples.people)
    per_person = len(samples) // len(people)
    return heads(range(people[0], people[-1] + 1), per_person, ventricle=1 - strength)


def larger_lesions(samples: Samples, strength: float) -> Samples:
    """The same slices with lesions of up to twice the radius."""
    people = np.unique(samples.people)
    return heads(range(people[0], people[-1] + 1), len(samples) // len(people), scale=1 + strength)


def shuffled_masks(samples: Samples, strength: float) -> Samples:
    """A share of the masks taken from the slice of another person."""
    some = _some(samples, strength)
    others = np.roll(samples.masks, len(samples) // 2, axis=0)
    return attrs.evolve(samples, masks=np.where(some[:, None, None], others, samples.masks))


def outside(samples: Samples, strength: float) -> Samples:
    """A share of the masks moved to where there is no head: into a corner."""
    masks = samples.masks.copy()
    for number in np.flatnonzero(_some(samples, strength)):
        free = np.argwhere(~heads_of(samples.images[number : number + 1])[0])
        masks[number] = False
        masks[number, :4, :4] = True
        assert len(free) >= 16
    return attrs.evolve(samples, masks=masks)


def _some(samples: Samples, share: float) -> np.ndarray:
    order = np.random.default_rng(3).permutation(len(samples))
    return np.isin(np.arange(len(samples)), order[: round(share * len(samples))])
