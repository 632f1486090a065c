"""Likeness to real heads of other persons, height by height: arrangement, where texture may be perfect and anatomy wrong.

Networks that average over space are content with mottle of the right spectrum; an eye looks for ventricles and a
midline where other heads have them. No weights, no training.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from medgen import Extractor, FeaturesSettings, field, ge, hookimpl, settings

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    import torch

medgen_api = 1

AIR = -0.9
"""Below it a pixel is background."""
SCALES = (1 / 128, 1 / 64, 1 / 32)
"""Of the image's width, the standard deviation of the blur before heads are compared: fine and coarse anatomy."""
SEVERAL = 10
"""Nearest real slices that are averaged."""
FEWEST = 12
"""Real slices at a height that tell what is usual there."""
PART = 128
"""Images at a time."""
FARTHEST = 5.0
"""Standard deviations at which a feature is cut, as the kernel takes the third power."""


@settings
class Atlas(FeaturesSettings):
    """How like a slice is to the nearest real ones and to its mirror image, as is usual at that height of the head."""

    heights: int = field(12, help="parts that heads are divided into from bottom to top", check=ge(1))
    most: int = field(600, help="real slices to compare with, drawn at random", check=ge(12))

    anatomy = True

    def build(self, device: torch.device) -> Extractor:
        return _Extractor(self)


class _Extractor(Extractor):
    hash = ""

    def __init__(self, chosen: Atlas):
        self._chosen = chosen

    def fit(self, images: np.ndarray, people: np.ndarray, position: np.ndarray, seed: int) -> None:
        import hashlib

        import numpy as np

        rows = np.sort(np.random.default_rng(seed).permutation(len(images))[: self._chosen.most])
        count = self._chosen.heights
        self._height = np.minimum(np.nan_to_num(position[rows]) * count, count - 1).astype(int)
        self._atlas = [_plain(images[rows], scale)[0] for scale in SCALES]
        found, height = self._measured(images[rows], people[rows, None] == people[rows][None])
        self._mean, self._spread = _by_height(found, height, count)
        parts = [np.ascontiguousarray(each).tobytes() for each in (*self._atlas, self._height)]
        self.hash = hashlib.sha256(b"".join(parts)).hexdigest()[:16]

    def __call__(self, images: np.ndarray) -> np.ndarray:
        import numpy as np

        found, height = self._measured(images)
        standard = (found - self._mean[height]) / self._spread[height]
        return np.asarray(standard.clip(-FARTHEST, FARTHEST), np.float32)

    def _measured(self, images: np.ndarray, own: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """What is measured, `[n, 3 per scale and 1]`, and the height of the nearest real slice, `[n]`.

        own: bool `[n, atlas]`, what an image is not compared with.
        """
        import numpy as np

        columns, energies = [], []
        for scale, atlas in zip(SCALES, self._atlas, strict=True):
            plain, energy = _plain(images, scale)
            found = np.concatenate([_likeness(part, atlas) for part in _parts(plain)])
            found = found if own is None else np.where(own, -1, found)
            best = np.sort(found, axis=1)[:, -SEVERAL:]
            columns += [best[:, -1], best.mean(axis=1)]
            columns.append(np.concatenate([_symmetry(part) for part in _parts(plain)]))
            energies.append(np.log(energy + 1e-6))
        return np.stack([*columns, energies[0] - energies[1]], axis=1), self._height[found.argmax(axis=1)]


def _by_height(found: np.ndarray, height: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean and spread of real slices, each `[heights, d]`; those of all where a height has too few."""
    import numpy as np

    mean, spread = (np.repeat(each[None], count, axis=0) for each in (found.mean(axis=0), found.std(axis=0)))
    for number in range(count):
        mine = found[height == number]
        if len(mine) >= FEWEST:
            mean[number], spread[number] = mine.mean(axis=0), mine.std(axis=0)
    return mean, spread + 1e-3


def _plain(images: np.ndarray, scale: float) -> tuple[np.ndarray, np.ndarray]:
    """Heads `[n, c, h, w]`, blurred within their outline, of mean 0 there and of length 1, on as coarse a grid as does.

    scale: of the blur, as a share of the width. The second: variance in the head before that, `[n]`.
    """
    import numpy as np
    from scipy.ndimage import gaussian_filter

    sigma = scale * images.shape[-1]
    head = (images > AIR).astype(np.float32)
    reach = (0, 0, sigma, sigma)
    soft = gaussian_filter(images * head, reach) / np.maximum(gaussian_filter(head, reach), 1e-3)
    step = max(1, int(sigma))
    soft, head = soft[..., ::step, ::step], head[..., ::step, ::step]
    count = np.maximum(head.sum((2, 3), keepdims=True), 1)
    plain = (soft - (soft * head).sum((2, 3), keepdims=True) / count) * head
    square = (plain**2).sum((1, 2, 3))
    length = np.maximum(np.sqrt(square), 1e-6)[:, None, None, None]
    return np.asarray(plain / length, np.float32), square / count.sum((1, 2, 3))


def _parts(plain: np.ndarray) -> Iterator[np.ndarray]:
    return (plain[start : start + PART] for start in range(0, len(plain), PART))


def _likeness(plain: np.ndarray, atlas: np.ndarray) -> np.ndarray:
    """`[n, atlas]`: correlation at the best of nine shifts by a pixel of the grid."""
    import numpy as np

    flat = atlas.reshape(len(atlas), -1).T
    shifts = [(x, y) for x in (-1, 0, 1) for y in (-1, 0, 1)]
    return np.max([np.roll(plain, shift, (2, 3)).reshape(len(plain), -1) @ flat for shift in shifts], axis=0)


def _symmetry(plain: np.ndarray) -> np.ndarray:
    """`[n]`: correlation with the mirror image at the best shift, as no head is quite in the middle."""
    import numpy as np

    reach = plain.shape[2] // 12
    mirrored = [np.roll(plain[:, :, ::-1], shift, 2) for shift in range(-reach, reach + 1)]
    return np.max([(plain * each).sum((1, 2, 3)) for each in mirrored], axis=0)


@hookimpl
def medgen_features() -> dict[str, type]:
    return {"atlas": Atlas}
