"""Train a small segmenter of lesions on the spot, and apply it to persons not trained on."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, pad

from medgen import seeds
from medgen.api.measures import SegmenterSettings
from medgen.config.blame import building
from medgen.evaluation.samples import Samples

PEAK = 3e-3
"""Highest learning rate, of AdamW with warm-up and a cosine (Smith and Topin 2017)."""
MULTIPLE = 16
"""Samples are padded to a multiple of it, so that any U-Net of up to five levels can halve them."""
TOGETHER = {2: 64, 3: 1}
"""Slices and volumes that are looked at together."""
BATCH = {2: 16, 3: 4}
"""Slices, and crops of volumes, of a training step."""
CROP = {2: 64, 3: 32}
"""Largest side of what is trained on, of slices and volumes: of larger ones crops, as a step on whole
volumes takes minutes on a CPU.
"""


def train(
    settings: SegmenterSettings,
    samples: Samples,
    *,
    steps: int,
    seed: int,
    device: torch.device | str = "cpu",
    batch_size: int | None = None,
    augment: bool = True,
) -> nn.Module:
    """Train a network on images and masks: same arguments and device, same weights.

    Of large samples crops are trained on, every other around a lesion. batch_size: `BATCH`, if none is
    given.

    The loss is the soft Dice of the batch (Milletari et al. 2016, section 3) plus binary
    cross-entropy, as in nnU-Net.
    """
    network = _built(settings, samples, seed).to(device).train()
    size = batch_size or BATCH[samples.axes]
    optimizer = torch.optim.AdamW(network.parameters(), PEAK, weight_decay=1e-2)
    total = max(steps, 6)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, PEAK, total, pct_start=0.2)
    images, masks = torch.from_numpy(samples.images), torch.from_numpy(samples.masks)
    for step in range(steps):
        generator = seeds.stream(seed, "segmenter", step)
        image, mask = _batch(images, masks, size, generator, augment)
        loss = _loss(network(_padded(image).to(device)), _padded(mask, 0).to(device))
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    return network.eval()


def _batch(
    images: Tensor, masks: Tensor, size: int, generator: torch.Generator, augment: bool
) -> tuple[Tensor, Tensor]:
    """Draw samples, or crops of large ones, and change them."""
    rows = torch.randint(len(images), (size,), generator=generator)
    image, mask = images[rows], masks[rows, None].float()
    if max(image.shape[2:]) > CROP[image.ndim - 2]:
        image, mask = cropped(image, mask, generator)
    return augmented(image, mask, generator) if augment else (image, mask)


def augmented(image: Tensor, mask: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Flip images and change contrast, brightness and gamma, each by itself.

    image: `[batch, channel, *space]` in [-1, 1], in which it stays. mask: `[batch, 1, *space]`.
    """
    axes = image.ndim - 2
    draws = torch.rand(axes + 3, len(image), *(1,) * (axes + 1), generator=generator)
    for axis in range(axes):
        flip = draws[axis] < 0.5
        image, mask = (torch.where(flip, each.flip(axis + 2), each) for each in (image, mask))
    gain, shift, power = (
        0.9 + 0.2 * draws[axes],
        0.1 * (draws[axes + 1] - 0.5),
        torch.exp(0.6 * (draws[axes + 2] - 0.5)),
    )
    bright = ((image + 1) / 2).clamp(0, 1) ** power
    inside = bright > 0.05  # the background stays what it is
    return torch.where(inside, (2 * bright * gain - 1 + shift).clamp(-1, 1), image), mask


def cropped(image: Tensor, mask: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Cut a crop of `CROP` points a side, or less, out of each sample: at random, and every other
    around a point of a lesion.

    image: `[batch, channel, *space]`. mask: `[batch, 1, *space]`.
    """
    axes = image.ndim - 2
    sides = [min(CROP[axes], side) for side in image.shape[2:]]
    room = torch.tensor(image.shape[2:]) - torch.tensor(sides)
    parts = []
    for number, (one, lesion) in enumerate(zip(image, mask, strict=True)):
        draws = torch.rand(axes + 1, generator=generator)
        low = (draws[:axes] * (room + 1)).long()
        if number % 2 == 0 and len(places := lesion[0].nonzero()):
            low = places[int(draws[axes] * len(places))] - torch.tensor(sides) // 2
        low = low.minimum(room).clamp(min=0)
        where = (slice(None), *map(slice, low.tolist(), (low + torch.tensor(sides)).tolist()))
        parts.append((one[where], lesion[where]))
    images, masks = (torch.stack(each) for each in zip(*parts, strict=True))
    return images, masks


def probabilities(network: nn.Module, images: np.ndarray) -> np.ndarray:
    """Return the probability of lesion, float32 `[n, *space]`. images: float32 `[n, channel,
    *space]`.
    """
    device = next(network.parameters()).device
    space, size = images.shape[2:], TOGETHER[images.ndim - 2]
    found, kept = [np.zeros((0, *space), np.float32)], (slice(None), 0, *map(slice, space))
    with torch.no_grad():
        for start in range(0, len(images), size):
            some = _padded(torch.from_numpy(images[start : start + size])).to(device)
            found.append(network(some)[kept].sigmoid().float().cpu().numpy())
    return np.concatenate(found)


def predict(network: nn.Module, images: np.ndarray) -> np.ndarray:
    """Return bool `[n, *space]`: the lesions that a network finds."""
    return probabilities(network, images) > 0.5


class Fold(NamedTuple):
    """One part of a cross-fit. network: trained on the others. rows: int64, the samples of the
    persons held out.
    """

    network: nn.Module
    rows: np.ndarray


def folds_of(people: np.ndarray, folds: int, seed: int) -> list[np.ndarray]:
    """Split by person: the rows of each part, int64, with persons in an order that the seed draws.

    Parts are as many as there are persons at most, and have equally many persons, or one more.
    """
    persons = np.unique(people)
    order = persons[torch.randperm(len(persons), generator=seeds.stream(seed, "folds")).numpy()]
    return [
        np.flatnonzero(np.isin(people, order[part::folds]))
        for part in range(min(folds, len(order)))
    ]


def fit_folds(
    settings: SegmenterSettings,
    samples: Samples,
    folds: int,
    steps: int,
    seed: int,
    device: torch.device | str = "cpu",
) -> list[Fold]:
    """Train one network for each part of the persons, on all the others."""
    fitted = []
    for number, rows in enumerate(folds_of(samples.people, folds, seed)):
        others = np.setdiff1d(np.arange(len(samples)), rows)
        own = seeds.derive(seed, "fold", number)
        fitted.append(
            Fold(train(settings, samples.take(others), steps=steps, seed=own, device=device), rows)
        )
    return fitted


def cross_fit(
    settings: SegmenterSettings,
    samples: Samples,
    folds: int,
    steps: int,
    seed: int,
    device: torch.device | str = "cpu",
) -> np.ndarray:
    """Find lesions, bool `[n, *space]`, by a network that was trained without that person."""
    return held_out(fit_folds(settings, samples, folds, steps, seed, device), samples)


def held_out(fitted: list[Fold], samples: Samples) -> np.ndarray:
    """Return bool `[n, *space]`: what each network finds in the persons that it has not seen."""
    found = np.zeros(samples.masks.shape, bool)
    for network, rows in fitted:
        found[rows] = predict(network, samples.images[rows])
    return found


def _built(settings: SegmenterSettings, samples: Samples, seed: int) -> nn.Module:
    """Return a network with the weights that the seed gives; torch's global generator goes on as if
    nothing had been.
    """
    axes = () if samples.axes == 2 else (samples.axes,)
    number = seeds.derive(seed, "segmenter weights")
    with seeds.seeded(number), building(f"segmenters ({type(settings).__name__})"):
        return settings.build(samples.images.shape[1], *axes)


def _loss(logits: Tensor, mask: Tensor) -> Tensor:
    made = logits.float().sigmoid()
    both, total = (made * mask).sum(), made.square().sum() + mask.square().sum()
    return 1 - (2 * both + 1) / (total + 1) + binary_cross_entropy_with_logits(logits.float(), mask)


def _padded(values: Tensor, background: float = -1) -> Tensor:
    missing = [-side % MULTIPLE for side in values.shape[2:]]
    rims = [rim for side in reversed(missing) for rim in (0, side)]
    return pad(values, rims, value=background) if any(missing) else values
