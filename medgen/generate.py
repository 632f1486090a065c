"""Masks and images to files, in blocks that can be made again exactly.

The unit is a block of `batch_size` consecutive indices, always computed whole: convolutions differ in the last bit
between batch sizes. Random numbers depend on seed, index and attempt, so a pair is the same whatever was made before.
"""

from __future__ import annotations

import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import attrs
import numpy as np
import torch
from torch import Tensor

from medgen import checkpoint, files, pictures, sampling, seeds
from medgen.assemble import Parts, Saved, build, default_device
from medgen.data.layouts import mask_names, source
from medgen.data.output import read_slice, write_slice
from medgen.data.slices import resample_masks
from medgen.data.store import open_store
from medgen.errors import (
    CheckpointError,
    DataError,
    OutOfMemoryError,
    RecipeError,
    RunInUseError,
    StoppedError,
    StorageError,
)
from medgen.kinds import Mode
from medgen.manifest import Entry, Manifest, has_pairs, is_file_name, name_of, read, sha256
from medgen.recipe import Recipe, from_toml
from medgen.registry import Registry
from medgen.run import load_into
from medgen.signals import Stop
from medgen.versions import versions

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
    digest = sha256(path)
    state = checkpoint.load(path)
    if digest is None or sha256(path) != digest:  # a training may have saved anew in the meantime
        raise CheckpointError(f"{path}: was replaced as it was read. Try again, or give a copy of it.")
    recipe = _recipe(path, state, registry)
    if getattr(recipe.strategy, "unconditional", False):
        what = f"holds an autoencoder (strategy.{recipe.names['strategy']}), which generates nothing by itself"
        raise CheckpointError(f"{path}: {what}. Train a model in its latents with [space.latent], and give that.")
    parts = build(recipe, device, Saved(state, path))
    _check_names(path, parts.mode)
    load_into(parts.network, state["averaged"] or state["network"], path)
    try:
        spacing = float(state["data"]["spacing"])
    except (KeyError, TypeError, ValueError) as error:
        what = f"the state of its data does not fit ({type(error).__name__}: {error})"
        raise CheckpointError(f"{path}: {what}. Use a checkpoint that medgen wrote.") from error
    parts.network.eval().requires_grad_(False)
    if state["channels_last"]:
        parts.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stubs lack it
    return Model(recipe, parts, device, spacing, mask_names(recipe.data), digest)


def _recipe(path: Path, state: Mapping[str, Any], registry: Registry | None) -> Recipe:
    """The recipe in a checkpoint, which has everything that a generator needs."""
    lacking = [key for key in ("averaged", "channels_last", "data", "network", "recipe", "space") if key not in state]
    if lacking or not isinstance(state["recipe"], str):
        what = f"the key '{(lacking or ['recipe'])[0]}' is missing or of another type"
        raise CheckpointError(f"{path}: {what}. Use a checkpoint that medgen wrote.")
    try:
        return from_toml(state["recipe"], registry)
    except RecipeError as error:
        raise CheckpointError([f"{path}: {problem}" for problem in error.problems]) from error


def _check_names(path: Path, mode: Mode) -> None:
    """Channels become names of files."""
    for name in mode.names:
        if not is_file_name(name):
            what = f"its mode has a channel {name!r}, which cannot be the name of a file"
            raise CheckpointError(f"{path}: {what}. Use a checkpoint that you trust, of another mode.")


def draw_samples(model: Model, condition: Tensor, generators: Sequence[torch.Generator], steps: int | None) -> Tensor:
    """`[batch, channel, *space]` in [-1, 1] on the CPU, for conditions in [-1, 1]."""
    _, space, strategy, network = model.parts
    draw = sampling.noise(generators, space.shape(condition.shape[2:]), model.device)
    with sampling.autocast(model.device, model.recipe.training.precision):
        return sampling.sample(strategy, space, network, condition.to(model.device), draw, steps).float().cpu()


class Masks(NamedTuple):
    """Masks of one block. values: `[batch, channel, *space]`, -1 or +1. faults: for each index, of each attempt."""

    values: Tensor
    faults: list[list[str]]


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
        mode = model.parts.mode
        if mode.condition:
            what = f"makes {', '.join(mode.images)} given {', '.join(mode.condition)}, not masks"
            raise RecipeError(f"--seg-model: {what}. Give it as --image-model, and a model of masks here.")
        self.model, self.seed, self.steps = model, seed, steps
        self.max_area, self.max_attempts = max_area, max_attempts
        self.names, self.spacing, self.axis = model.parts.mode.images, model.spacing, model.axis

    def block(self, indices: Sequence[int]) -> Masks:
        """Draw every index at attempt 1, then the invalid ones again; a block is always drawn whole."""
        values = self._attempt(indices, 1)
        faults = [[self.fault(mask)] for mask in values]
        for attempt in range(2, self.max_attempts + 1):
            invalid = [place for place, each in enumerate(faults) if each[-1]]
            if not invalid:
                break
            again = self._attempt(indices, attempt)
            for place in invalid:
                values[place] = again[place]
                faults[place].append(self.fault(again[place]))
        return Masks(values, faults)

    def fault(self, mask: Tensor) -> str:
        """`empty`, `too_large`, or nothing where it is valid."""
        area = float((mask > 0).any(0).float().mean())
        return "" if 0 < area <= self.max_area else "too_large" if area else "empty"

    def identity(self) -> Mapping[str, Any]:
        """The model's weights and the limits."""
        return {"seg_model": self.model.digest, "max_area": self.max_area, "max_attempts": self.max_attempts}

    def _attempt(self, indices: Sequence[int], attempt: int) -> Tensor:
        generators = [seeds.stream(self.seed, "mask", index, attempt) for index in indices]
        condition = torch.empty(len(indices), 0, *self.model.size)
        return torch.where(draw_samples(self.model, condition, generators, self.steps) > 0, 1.0, -1.0)


class FolderMasks:
    """Slices with lesions from a folder that any layout reads, or of mask files, in an order that the seed gives."""

    def __init__(self, folder: Path, model: Model, seed: int):
        self.names, self.seed = model.parts.mode.condition, seed
        trained = attrs.evolve(model.recipe.data, exclude=[], allow_patient_overlap=True)
        data = attrs.evolve(trained, root=folder, val_fraction=0.0, min_foreground=0.0, lesion_only=True)
        wanted = {source(data, name) for name in self.names}
        if any(folder.glob("*.nii*")) and not any(each.is_dir() for each in folder.iterdir()) and len(wanted) == 1:
            data = attrs.evolve(data, layout="files", files=dict.fromkeys(wanted, "*"))
        try:
            self.store = open_store(data, self.names, model.masks)
        except DataError as error:
            advice = "Give a folder of mask files, or of patients whose files are named as in training"
            raise DataError(re.sub(r"Set data\..*$", f"{advice}.", each) for each in error.problems) from error
        self.rows, self.spacing, self.axis = self.store.select("train"), self.store.spacing, model.axis

    def block(self, indices: Sequence[int]) -> Masks:
        """Mask n is `permutation(n // size)[n % size]`, so all are used equally often."""
        size = len(self.rows)
        chosen = [int(seeds.permutation(self.seed, index // size, size)[index % size]) for index in indices]
        values = torch.from_numpy(self.store.read(self.rows[chosen], self.names)).float()
        return Masks(values, [[""] for _ in indices])

    def identity(self) -> Mapping[str, Any]:
        """The masks' content."""
        return {"seg_folder": self.store.fingerprint}


class Pair(NamedTuple):
    """One sample to write. channels: `[x, y]` by name, in [-1, 1]; masks are those named in `masks`.

    faults: of the mask at each attempt. No channels: none gave a valid one.
    """

    number: int
    faults: list[str]
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

    def made_with(self) -> dict[str, Any]:
        """What else may change the last bit: software, device, and the threads that share a sum on a CPU."""
        device = self.image.device if self.image else default_device()
        on = torch.cuda.get_device_name(device) if device.type == "cuda" else torch.backends.cpu.get_cpu_capability()
        threads = "" if device.type == "cuda" else f", threads: {torch.get_num_threads()}"
        return {"versions": versions(), "device": f"{device.type} {on}{threads}"}

    def block(self, number: int) -> Iterator[Pair]:
        """Pairs `number * batch_size` onwards; without channels where no valid mask was found."""
        indices = range(number * self.batch_size, (number + 1) * self.batch_size)
        masks = self._masks(indices)
        images = self._images(indices, masks)
        for place, index in enumerate(indices):
            faults = masks.faults[place] if masks else [""]
            channels = {} if faults[-1] else self._channels(images, masks, place)
            yield Pair(index, faults, channels, self._names())

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
            raise RecipeError(f"--seg-model: the image model needs {', '.join(wanted)}. Give a mask model or a folder.")
        if self.image is not None and tuple(wanted) != tuple(given):
            made, read = ", ".join(given), ", ".join(wanted) or "nothing"
            what = f"gives {made}, the image model (--image-model) was trained on {read}"
            raise RecipeError(f"--seg-model: {what}. Use a mask model of the same masks.")


def shard(count: int, batch_size: int, part: int, parts: int) -> list[int]:
    """The indices below `count` in part 1..`parts`: those of every `parts`-th block, so that no block is torn apart."""
    return [index for index in range(count) if index // batch_size % parts == part - 1]


class Outcome(NamedTuple):
    """What has become of the pairs.

    failed: the lines of the manifest of those that were left out. empty: the folder has no pair at all.
    """

    failed: list[Entry]
    empty: bool

    def rejected(self, why: str) -> int:
        """Masks drawn in vain, by `ModelMasks.fault`."""
        return sum(entry["rejected"].get(why, 0) for entry in self.failed if "rejected" in entry)


def outcome(out: Path, indices: Sequence[int]) -> Outcome:
    """As the manifest has it, once these pairs have been tried."""
    _, entries = read(out / "manifest.jsonl")
    return Outcome([entries[index] for index in indices if entries[index].get("failed")], not has_pairs(out, entries))


def generate(
    make: Generator,
    indices: Sequence[int],
    out: Path,
    stop: Stop | None = None,
    advance: Callable[[int], None] = lambda _: None,
) -> None:
    """Write pairs below `out/train`, skipping those that are there and whole.

    Other indices may be made in the same folder at the same time. Raises CheckpointError if `out` holds pairs that
    were made differently, StoppedError between two blocks once `stop` has a reason, and StorageError.
    """
    try:
        with Manifest.open(out, make.identity(), make.made_with()) as manifest:
            _sweep(manifest, make.batch_size)
            todo = manifest.missing(indices)
            advance(len(indices) - len(todo))
            _make_blocks(make, manifest, todo, stop or Stop(), advance)
            with manifest.locked():
                manifest.sort()
                picture(make, manifest)
    except torch.OutOfMemoryError as error:
        what = f"blocks of {make.batch_size} take more memory than the device has"
        raise OutOfMemoryError(f"--batch-size: {what}. Give a smaller one and another --output-dir.") from error
    except OSError as error:
        raise StorageError(f"{out}: {error.strerror or error}. Free space or choose another --output-dir.") from error


def _make_blocks(
    make: Generator, manifest: Manifest, todo: set[int], stop: Stop, advance: Callable[[int], None]
) -> None:
    for number in sorted({index // make.batch_size for index in todo}):
        if stop.reason:
            raise stopped(manifest.out, stop)
        with manifest.block(number):
            mine = [pair for pair in make.block(number) if pair.number in todo]
            for pair in mine:
                write_pair(pair, manifest, make)
        advance(len(mine))


def stopped(out: Path, stop: Stop) -> StoppedError:
    """The end of what a signal stopped."""
    what = f"stopped by {stop.reason}, every pair there is whole"
    return StoppedError(f"{out}: {what}. Continue: {stop.command}", stop.exit_code)


def write_pair(pair: Pair, manifest: Manifest, make: Generator) -> None:
    """Write the files of a pair into a temporary folder and rename it, so that they appear together."""
    entry: dict[str, Any] = {"index": pair.number, "id": name_of(pair.number), "attempts": len(pair.faults)}
    if not pair.channels:
        manifest.add(entry | {"failed": True, "rejected": Counter(pair.faults)})
        return
    folder = manifest.out / "train" / name_of(pair.number)
    temporary = folder.with_name(f".tmp-{folder.name}")
    temporary.mkdir(parents=True)
    try:
        for name, values in pair.channels.items():
            write_slice(temporary / f"{name}.nii.gz", values, name in pair.masks, make.spacing, make.axis)
        manifest.add(entry | {"files": {name: sha256(temporary / f"{name}.nii.gz") for name in pair.channels}})
        _place(temporary, folder)
    except OSError:
        shutil.rmtree(temporary, ignore_errors=True)  # a full disk has no room for it
        raise


def _place(temporary: Path, folder: Path) -> None:
    """One rename; where a pair has to be repaired, a rename for each file, as others may have added files to it."""
    if folder.is_symlink():
        raise StorageError(f"{folder}: is a link, and a pair has to be written there. Remove it.")
    if not files.exists(folder):
        files.move_folder(temporary, folder)
        return
    for path in sorted(temporary.iterdir()):
        files.replace(path, folder / path.name)
    temporary.rmdir()


def _sweep(manifest: Manifest, batch_size: int) -> None:
    """Remove what processes left that were killed as they wrote a pair."""
    for path in (manifest.out / "train").glob(".tmp-syn_*"):
        index = re.fullmatch(r"\.tmp-syn_(\d{5,})", path.name)
        if index is None or path.is_symlink():
            continue
        with suppress(RunInUseError), manifest.block(int(index[1]) // batch_size):
            shutil.rmtree(path)


def picture(make: Generator, manifest: Manifest, count: int = 32) -> None:
    """`pairs.png` of the first pairs that are there: every image, then the last again with the masks outlined."""
    masks = make.masks.names if make.masks else ()
    images = make.image.parts.mode.images if make.image else ()
    made = [index for index, entry in sorted(manifest.entries.items()) if not entry.get("failed")]
    folders = [folder for folder in (manifest.out / "train" / name_of(index) for index in made) if folder.exists()]
    groups = [_tiles(folder, images, masks) for folder in folders[:count]]
    if groups:
        across = max(1, 12 // max(len(group) for group in groups))
        rows = [[*chain(*groups[start : start + across])] for start in range(0, len(groups), across)]
        pictures.save(pictures.grid(rows), manifest.out / "pairs.png")


def _tiles(folder: Path, images: Sequence[str], masks: Sequence[str]) -> list[Array]:
    shown = [read_slice(folder / f"{name}.nii.gz") for name in images]
    marks = [read_slice(folder / f"{name}.nii.gz", is_mask=True) for name in masks]
    tiles = [pictures.tile(image) for image in shown]
    return tiles + ([pictures.tile(shown[-1] if shown else None, marks)] if marks else [])
