"""Figures of `latent-audit`: real held-out images against reconstructions of their latents."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from rich.table import Table
from scipy import ndimage
from torch import Tensor

from medgen import seeds
from medgen.api.values import Draws
from medgen.data.store.loader import Loader
from medgen.run.assemble import Parts
from medgen.system.console import progress
from medgen.training.lesion_masks import lesion_masks, mask_channels
from medgen_builtins._similarity import ssim
from medgen_builtins.spaces._codec import Moments
from medgen_builtins.spaces._latent import LatentSpace
from medgen_builtins.strategies._vae_turns import HEAD

BLOCK = {2: 16, 3: 1}
"""Samples at a time, by their axes."""
BINS = (4, 9, 24, 99)
"""The largest area of a lesion in each bin but the last, px."""
RING = 3
"""Width of the surroundings that a lesion is compared with, px."""
VISIBLE = 0.1
"""The least contrast of a real lesion, of a range of 2, that can be said to survive."""
SURVIVES = 0.5
"""The share of its contrast that a lesion must keep."""
DEAD = 0.99
"""Share of noise from which a channel counts as dead."""
GOOD, FAIR = 28.0, 24.0
"""PSNR in dB of a good ceiling, and of a fair one."""


class Region:
    """Squared errors and likeness over some pixels of all images."""

    def __init__(self) -> None:
        self.squared = self.likeness = self.pixels = 0.0

    def add(self, squared: Tensor, likeness: Tensor, where: Tensor) -> None:
        """Add the pixels where a mask is set; each `[batch, *space]`."""
        self.squared += float(squared[where].sum())
        self.likeness += float(likeness[where].sum())
        self.pixels += float(where.sum())

    def figures(self) -> dict[str, float] | None:
        """Return PSNR in dB, for a range of 2, and mean SSIM; None without pixels."""
        if not self.pixels:
            return None
        psnr = 10 * math.log10(4 / max(self.squared / self.pixels, 1e-10))
        return {"psnr": psnr, "ssim": self.likeness / self.pixels}


class Audit:
    """Reads every sample of a feed once."""

    def __init__(self, parts: Parts, feed: Loader, device: torch.device):
        assert isinstance(parts.space, LatentSpace)
        self.parts, self.space, self.feed, self.device = parts, parts.space, feed, device
        self.moments = Moments()
        self.whole: list[tuple[float, float]] = []
        self.head, self.lesion = Region(), Region()
        self.lesions: list[tuple[int, float, float]] = []

    def run(self) -> dict[str, Any]:
        """Compute all figures, as plain values."""
        block = BLOCK[len(self.feed.store.grid.shape)]
        with progress("audit", self.feed.size, "samples") as bar, torch.no_grad():
            for start in range(0, self.feed.size, block):
                self._add(np.arange(start, min(start + block, self.feed.size)))
                bar.advance(min(block, self.feed.size - start))
        noun = "slices" if block > 1 else "volumes"
        figures = {noun: self.feed.size, "image": self._image()}
        figures |= {"head": self.head.figures(), "lesion": self.lesion.figures()}
        figures |= {"sizes": sizes(self.lesions), "channels": channels(self.moments)}
        return figures | {"verdict": verdict(figures)}

    def _add(self, samples: np.ndarray) -> None:
        batch = self.feed.read(samples).map(lambda part: part.to(self.device).float())
        image, condition = batch.image, batch.condition
        stored = self.space.prepare(image)
        self.moments.add(*stored.chunk(2, dim=1))
        again = self.space.decode(
            self.space.encode(stored, self._draws(len(samples), int(samples[0])))
        ).clamp(-1, 1)
        likeness, squared = ssim(again, image).mean(1), (again - image).square().mean(1)
        psnr = 10 * torch.log10(4 / squared.flatten(1).mean(1).clamp_min(1e-10))
        self.whole += list(zip(psnr.tolist(), likeness.flatten(1).mean(1).tolist(), strict=True))
        self.head.add(squared, likeness, (image > HEAD).any(1))
        masks = lesion_masks(self.parts.mode, self.feed.store.masks, image, condition)
        if masks is not None:
            self.lesion.add(squared, likeness, masks.any(1))
            self._add_lesions(image, again, masks)

    def _draws(self, count: int, first: int) -> Draws:
        """Draw a sample of the latents, as training does: samples set the ceiling."""
        generator = seeds.stream(0, "audit", first, device=self.device)
        size = self.space.shape(self.feed.store.grid.shape)
        noise = torch.randn(count, *size, generator=generator, device=self.device)
        return Draws(torch.zeros(count, device=self.device), noise, noise)

    def _add_lesions(self, image: Tensor, again: Tensor, masks: Tensor) -> None:
        """Add each mask's lesions, their contrast in the channel where the real one is strongest."""
        for real, made, marks in zip(
            *(each.cpu().numpy() for each in (image, again, masks)), strict=True
        ):
            outside = ~marks.any(0)
            for number, mark in enumerate(marks):
                views = self._views(number, len(real))
                for lesion, ring in parts_of(mark, outside):
                    pairs = [
                        (contrast(real[v], lesion, ring), contrast(made[v], lesion, ring))
                        for v in views
                    ]
                    self.lesions.append(
                        (int(lesion.sum()), *max(pairs, key=lambda pair: abs(pair[0])))
                    )

    def _views(self, number: int, channels: int) -> Sequence[int]:
        """Choose the channels to see a mask's lesions in: the scans, or its own if nothing but
        masks is generated.
        """
        mode, names = self.parts.mode, self.feed.store.masks
        own = () if mode.pooled else mask_channels(mode.images, names)
        scans = [place for place in range(channels) if place not in own]
        place = number - len(mask_channels(mode.condition, names))
        return scans or ([place] if place >= 0 else range(channels))

    def _image(self) -> dict[str, float]:
        psnr, likeness = (sum(each) / len(self.whole) for each in zip(*self.whole, strict=True))
        return {"psnr": psnr, "ssim": likeness}


def parts_of(mask: np.ndarray, outside: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield each connected lesion of a mask, and its surroundings outside every lesion."""
    near = np.ones((3,) * mask.ndim)
    labels, _ = ndimage.label(mask, near)
    for number, box in enumerate(ndimage.find_objects(labels), 1):
        wide = tuple(slice(max(0, each.start - RING), each.stop + RING) for each in box)
        lesion, ring = np.zeros(mask.shape, bool), np.zeros(mask.shape, bool)
        lesion[wide] = labels[wide] == number
        ring[wide] = ndimage.binary_dilation(lesion[wide], near, RING) & outside[wide]
        if ring.any():
            yield lesion, ring


def contrast(image: np.ndarray, lesion: np.ndarray, ring: np.ndarray) -> float:
    """Return the mean intensity of a lesion minus that of its surroundings."""
    return float(image[lesion].mean() - image[ring].mean())


def sizes(lesions: list[tuple[int, float, float]]) -> list[dict[str, Any]]:
    """Return per bin of size the lesions' number, contrast kept (share), and share that survives.

    lesions: area, real contrast, contrast afterwards. kept: the slope through the origin of the one
    over the other.
    """
    edges = [0, *BINS, math.inf]
    rows = []
    for low, high in pairwise(edges):
        some = [each for each in lesions if low < each[0] <= high]
        seen = [(real, made) for _, real, made in some if abs(real) >= VISIBLE]
        row: dict[str, Any] = {"from": int(low) + 1, "to": None if high == math.inf else int(high)}
        row |= {"lesions": len(some), "visible": len(seen), "kept": None, "survive": None}
        if seen:
            row["kept"] = sum(real * made for real, made in seen) / sum(real**2 for real, _ in seen)
            row["survive"] = sum(made / real >= SURVIVES for real, made in seen) / len(seen)
        rows.append(row)
    return rows


def channels(moments: Moments) -> list[dict[str, Any]]:
    """Return per latent channel: mean, standard deviation of a sample, share of noise, and True if
    it is dead.
    """
    rows = []
    for mean, signal, noise in zip(*(each.tolist() for each in moments.read()), strict=True):
        share = noise / max(signal + noise, 1e-12)
        dead = share >= DEAD or signal < 1e-12
        rows.append({"mean": mean, "std": math.sqrt(signal + noise), "noise": share, "dead": dead})
    return rows


def verdict(figures: Mapping[str, Any]) -> str:
    """Summarise the figures in a sentence."""
    image, dead = figures["image"], [n for n, row in enumerate(figures["channels"]) if row["dead"]]
    word = "good" if image["psnr"] >= GOOD else "fair" if image["psnr"] >= FAIR else "poor"
    parts = [f"A {word} ceiling: {image['psnr']:.1f} dB, SSIM {image['ssim']:.3f}"]
    if figures["lesion"]:
        parts.append(f"inside lesions {figures['lesion']['psnr']:.1f} dB")
    lost = [
        row for row in figures["sizes"] if row["survive"] is not None and row["survive"] < SURVIVES
    ]
    seen = any(row["survive"] is not None for row in figures["sizes"])
    if lost:
        parts.append(f"most lesions of {' and of '.join(map(span, lost))} px are lost")
    elif seen:
        parts.append("lesions of every size survive")
    if dead:
        parts.append(
            f"{len(dead)} of {len(figures['channels'])} channels dead ({', '.join(map(str, dead))})"
        )
    return "; ".join(parts) + "."


def span(row: Mapping[str, Any]) -> str:
    """Format the areas of a row."""
    return f"{row['from']} to {row['to']}" if row["to"] else f"{row['from']} and more"


def tables(figures: Mapping[str, Any]) -> list[Table]:
    """Format the figures as tables."""
    noun = next(iter(figures))
    title = f"encoded and decoded, {figures[noun]} {noun}"
    likeness = Table("held out", "PSNR, dB", "SSIM", title=title)
    rows = {"whole image": "image", "inside the head": "head", "inside lesions": "lesion"}
    for name, row in ((name, figures[key]) for name, key in rows.items()):
        if row:
            likeness.add_row(name, f"{row['psnr']:.2f}", f"{row['ssim']:.4f}")
    by_size = Table(
        "lesion, px", "lesions", "visible", "contrast kept", "survive", title="lesions by size"
    )
    for row in figures["sizes"]:
        shares = ["-" if row[key] is None else f"{row[key]:.0%}" for key in ("kept", "survive")]
        by_size.add_row(span(row), str(row["lesions"]), str(row["visible"]), *shares)
    latents = Table("channel", "mean", "std", "noise", "", title="latents")
    for number, row in enumerate(figures["channels"]):
        values = (f"{row['mean']:.3f}", f"{row['std']:.3f}", f"{row['noise']:.1%}")
        latents.add_row(str(number), *values, "dead" if row["dead"] else "")
    return [likeness, by_size, latents] if figures["lesion"] else [likeness, latents]
