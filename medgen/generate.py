"""Masks and images to files, in blocks that can be made again exactly.

The unit is a block of `batch_size` consecutive indices, always computed whole: convolutions differ in the last bit
between batch sizes. Random numbers depend on seed, index and attempt, so a pair is the same whatever was made before.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import attrs
import numpy as np
import torch
from torch import Tensor

from medgen import checkpoint, pictures, sampling, seeds
from medgen.assemble import Parts, build, default_device
from medgen.data.layouts import mask_names
from medgen.data.output import read_slice, write_slice
from medgen.data.slices import resample_masks
from medgen.data.store import open_store
from medgen.errors import RecipeError
from medgen.manifest import Manifest, name_of
from medgen.recipe import Recipe, from_toml
from medgen.registry import Registry
from medgen.run import load_into

Array = np.ndarray[Any, np.dtype[Any]]


class Model(NamedTuple):
    """A trained generator: the averaged weights of a checkpoint, where it has them, and what it was trained on."""

    recipe: Recipe
    parts: Parts
    device: torch.device
    spacing: float
    masks: frozenset[str]
    digest: str

    @property
    def axis(self) -> str:
        """The axis across its slices."""
        return self.recipe.data.axis

    @property
    def size(self) -> tuple[int, int]:
        """Pixels of a generated slice."""
        return (self.recipe.data.image_size,) * 2


def load_model(path: Path, registry: Registry | None = None, device: torch.device | None = None) -> Model:
    """The generator in a checkpoint; it needs nothing but the file. Raises CheckpointError or PluginError."""
    device = device or default_device()
    state = checkpoint.load(path)
    recipe = from_toml(state["recipe"], registry)
    parts = build(recipe, device)
    load_into(parts.network, state["averaged"] or state["network"], path)
    parts.space.load_state_dict(state["space"])
    parts.network.eval().requires_grad_(False)
    if state["channels_last"]:
        parts.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stubs lack it
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return Model(recipe, parts, device, state["data"]["spacing"], mask_names(recipe.data), digest)


def draw_samples(model: Model, condition: Tensor, generators: Sequence[torch.Generator], steps: int | None) -> Tensor:
    """`[batch, channel, *space]` in [-1, 1] on the CPU, for conditions in [-1, 1]."""
    _, space, strategy, network = model.parts
    draw = sampling.noise(generators, space.shape(condition.shape[2:]), model.device)
    with sampling.autocast(model.device, model.recipe.training.precision):
        return sampling.sample(strategy, space, network, condition.to(model.device), draw, steps).float().cpu()


class Masks(NamedTuple):
    """Masks of one block. values: `[batch, channel, *space]`, -1 or +1. valid, attempts: one per index."""

    values: Tensor
    valid: list[bool]
    attempts: list[int]


class MaskSource(Protocol):
    """Where masks come from."""

    names: tuple[str, ...]
    spacing: float
    axis: str

    def block(self, indices: Sequence[int]) -> Masks:
        """Masks of consecutive indices, a function of the indices alone."""

    def identity(self) -> Mapping[str, Any]:
        """What must be the same for the masks to be the same."""


class ModelMasks:
    """Masks that a model draws. One that is empty or larger than `max_area` (share of the slice) is drawn again."""

    def __init__(self, model: Model, seed: int, steps: int | None, max_area: float, max_attempts: int):
        self.model, self.seed, self.steps = model, seed, steps
        self.max_area, self.max_attempts = max_area, max_attempts
        self.names, self.spacing, self.axis = model.parts.mode.images, model.spacing, model.axis

    def block(self, indices: Sequence[int]) -> Masks:
        """Draw every index at attempt 1, then the invalid ones again; a block is always drawn whole."""
        values, valid, attempts = self._attempt(indices, 1), [False] * len(indices), [1] * len(indices)
        valid = [self.valid(mask) for mask in values]
        for attempt in range(2, self.max_attempts + 1):
            if all(valid):
                break
            again = self._attempt(indices, attempt)
            for place in [place for place, good in enumerate(valid) if not good]:
                values[place], attempts[place] = again[place], attempt
                valid[place] = self.valid(again[place])
        return Masks(values, valid, attempts)

    def valid(self, mask: Tensor) -> bool:
        """Neither empty nor too large."""
        return 0 < float((mask > 0).any(0).float().mean()) <= self.max_area

    def identity(self) -> Mapping[str, Any]:
        """The model's weights and the limits."""
        return {"seg_model": self.model.digest, "max_area": self.max_area, "max_attempts": self.max_attempts}

    def _attempt(self, indices: Sequence[int], attempt: int) -> Tensor:
        generators = [seeds.stream(self.seed, "mask", index, attempt) for index in indices]
        condition = torch.empty(len(indices), 0, *self.model.size)
        return torch.where(draw_samples(self.model, condition, generators, self.steps) > 0, 1.0, -1.0)


class FolderMasks:
    """Masks from a folder that any layout reads: its slices with lesions, in an order that the seed gives."""

    def __init__(self, folder: Path, model: Model, seed: int):
        self.names, self.seed = model.parts.mode.condition, seed
        data = attrs.evolve(model.recipe.data, root=folder, val_fraction=0.0, min_foreground=0.0, lesion_only=True)
        self.store = open_store(data, self.names, model.masks)
        self.rows, self.spacing, self.axis = self.store.select("train"), self.store.spacing, model.axis

    def block(self, indices: Sequence[int]) -> Masks:
        """Mask n is `permutation(n // size)[n % size]`, so all are used equally often."""
        size = len(self.rows)
        chosen = [int(seeds.permutation(self.seed, index // size, size)[index % size]) for index in indices]
        values = torch.from_numpy(self.store.read(self.rows[chosen], self.names))
        return Masks(values, [True] * len(indices), [1] * len(indices))

    def identity(self) -> Mapping[str, Any]:
        """The masks' content."""
        return {"seg_folder": self.store.fingerprint}


class Pair(NamedTuple):
    """One sample to write. channels: `[x, y]` by name, in [-1, 1]; masks are those named in `masks`."""

    number: int
    attempts: int
    channels: dict[str, Array]
    masks: frozenset[str]


class Generator:
    """Makes pairs, a block at a time. Without an image model it makes masks, without masks images alone."""

    def __init__(self, image: Model | None, masks: MaskSource | None, seed: int, steps: int | None, batch_size: int):
        self.image, self.masks, self.seed, self.steps, self.batch_size = image, masks, seed, steps, batch_size
        self._check()
        source = image or masks
        self.spacing, self.axis = source.spacing, source.axis  # type: ignore[union-attr]  # _check saw one of them

    def identity(self) -> dict[str, Any]:
        """Everything that decides the bytes of a pair besides its index."""
        mine = {"seed": self.seed, "steps": self.steps, "batch_size": self.batch_size}
        return {
            **mine,
            "image_model": self.image.digest if self.image else None,
            **(self.masks.identity() if self.masks else {}),
        }

    def block(self, number: int) -> Iterator[Pair | int]:
        """Pairs `number * batch_size` onwards; the bare index where no valid mask was found."""
        indices = range(number * self.batch_size, (number + 1) * self.batch_size)
        masks = self._masks(indices)
        images = self._images(indices, masks)
        for place, index in enumerate(indices):
            if masks is not None and not masks.valid[place]:
                yield index
                continue
            yield Pair(
                index, masks.attempts[place] if masks else 1, self._channels(images, masks, place), self._names()
            )

    def _images(self, indices: Sequence[int], masks: Masks | None) -> Tensor | None:
        if self.image is None:
            return None
        condition = torch.empty(len(indices), 0, *self.image.size) if masks is None else masks.values
        generators = [seeds.stream(self.seed, "image", index, 1) for index in indices]
        return draw_samples(self.image, condition, generators, self.steps)

    def _masks(self, indices: Sequence[int]) -> Masks | None:
        """Masks at the size of the images."""
        masks = self.masks.block(indices) if self.masks else None
        if masks is None or self.image is None:
            return masks
        return masks._replace(values=torch.from_numpy(resample_masks(masks.values.numpy(), self.image.size[0])))

    def _channels(self, images: Tensor | None, masks: Masks | None, place: int) -> dict[str, Array]:
        channels: dict[str, Array] = {}
        if self.image is not None and images is not None:
            names = self.image.parts.mode.images
            channels |= {name: images[place, channel].numpy() for channel, name in enumerate(names)}
        if self.masks is not None and masks is not None:
            channels |= {name: masks.values[place, channel].numpy() for channel, name in enumerate(self.masks.names)}
        return channels

    def _names(self) -> frozenset[str]:
        given = self.image.masks if self.image else frozenset()
        return given | frozenset(self.masks.names if self.masks else ())

    def _check(self) -> None:
        wanted = self.image.parts.mode.condition if self.image else ()
        given = self.masks.names if self.masks else ()
        if self.image is None and self.masks is None:
            raise RecipeError("--image-model, --seg-model: nothing to generate with. Give at least one of them.")
        if self.image is not None and wanted and not given:
            raise RecipeError(
                f"--seg-model: the image model needs the masks {list(wanted)}. Give a mask model or a folder."
            )
        if self.image is not None and tuple(wanted) != tuple(given):
            raise RecipeError(
                f"--seg-model: gives {list(given)}, the image model was trained on {list(wanted)}. "
                "Use a mask model of the same masks."
            )


def generate(make: Generator, count: int, out: Path, advance: Callable[[int], None] = lambda _: None) -> list[int]:
    """Write pairs 0..count-1 below `out/train`, skipping those that are there and whole. Returns the indices left out.

    Raises CheckpointError if `out` holds pairs that were made differently.
    """
    manifest = Manifest.open(out, make.identity())
    todo = manifest.missing(range(count))
    advance(count - len(todo))
    for number in sorted({index // make.batch_size for index in todo}):
        for pair in make.block(number):
            index = pair if isinstance(pair, int) else pair.number
            if index not in todo:
                continue
            manifest.add({"index": index, "failed": True} if isinstance(pair, int) else write_pair(pair, out, make))
            advance(1)
    manifest.finish()
    return sorted(
        entry["index"] for entry in manifest.entries.values() if entry.get("failed") and entry["index"] < count
    )


def write_pair(pair: Pair, out: Path, make: Generator) -> dict[str, Any]:
    """Write the files of a pair into a temporary folder and rename it, so that they appear together."""
    folder = out / "train" / name_of(pair.number)
    temporary = folder.with_name(f".tmp-{folder.name}")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    files = {}
    for name, values in pair.channels.items():
        path = temporary / f"{name}.nii.gz"
        write_slice(path, values, name in pair.masks, make.spacing, make.axis)
        files[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    shutil.rmtree(folder, ignore_errors=True)
    temporary.rename(folder)
    return {"index": pair.number, "id": folder.name, "attempts": pair.attempts, "files": files}


def picture(make: Generator, out: Path, count: int = 32) -> Path:
    """A PNG of the first pairs: every image, then the last one again with the masks outlined. Without pairs, `out`."""
    masks = make.masks.names if make.masks else ()
    images = make.image.parts.mode.images if make.image else ()
    groups = [_tiles(folder, images, masks) for folder in sorted((out / "train").glob("syn_*"))[:count]]
    if not groups:
        return out
    across = max(1, 12 // max(len(group) for group in groups))
    rows = [[*chain(*groups[start : start + across])] for start in range(0, len(groups), across)]
    return pictures.save(pictures.grid(rows), out / "pairs.png")


def _tiles(folder: Path, images: Sequence[str], masks: Sequence[str]) -> list[Array]:
    shown = [read_slice(folder / f"{name}.nii.gz") for name in images]
    marks = [read_slice(folder / f"{name}.nii.gz", is_mask=True) for name in masks]
    tiles = [pictures.tile(image) for image in shown]
    return tiles + ([pictures.tile(shown[-1] if shown else None, marks)] if marks else [])
