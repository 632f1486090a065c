"""Write masks and images as files, in blocks that can be reproduced exactly.

The unit is a block of `batch_size` consecutive indices, always computed whole: convolutions differ in the last bit
between batch sizes. Random numbers depend on seed, index and attempt, so a pair is the same whatever was made before.
"""

from __future__ import annotations

import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, suppress
from itertools import chain, groupby, islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from medgen import pictures, seeds
from medgen.data.store.nifti_writer import read_slice, write_slice
from medgen.errors import OutOfMemoryError, RecipeError, RunInUseError, StoppedError, StorageError
from medgen.generation.blocks import Indices
from medgen.generation.combination import require_image_model, require_same_masks
from medgen.generation.manifest import Manifest, name_of, sha256
from medgen.generation.manifest_lines import Lines, has_pairs, names
from medgen.generation.masks import Masks, MaskSource, ModelMasks
from medgen.generation.model import Model, draw_samples, load_model
from medgen.run.assemble import default_device
from medgen.run.versions import versions
from medgen.system import files
from medgen.system.signals import Stop

__all__ = ["Generator", "Model", "ModelMasks", "generate", "load_model", "outcome", "shard"]
Array = np.ndarray[Any, np.dtype[Any]]


class Pair(NamedTuple):
    """One sample to write. channels: `[x, y]` by name, in [-1, 1]; masks are those named in `masks`.

    faults: of the mask at each attempt. No channels: every attempt was invalid.
    """

    number: int
    faults: list[str]
    channels: dict[str, Array]
    masks: frozenset[str]


class Generator:
    """Generates pairs by block: masks only without an image model, images only without masks."""

    def __init__(self, image: Model | None, masks: MaskSource | None, seed: int, steps: int | None, batch_size: int):
        self.image, self.masks, self.seed, self.steps, self.batch_size = image, masks, seed, steps, batch_size
        self._check()
        source = image or masks
        self.spacing, self.axis = source.spacing, source.axis  # type: ignore[union-attr]  # _check saw one of them

    def identity(self) -> dict[str, Any]:
        """Return everything that decides the bytes of a pair besides its index."""
        mine = {"seed": self.seed, "steps": self.steps, "batch_size": self.batch_size}
        return {
            **mine,
            "image_model": self.image.digest if self.image else None,
            **(self.masks.identity() if self.masks else {}),
        }

    def made_with(self) -> dict[str, Any]:
        """Return what may change the last bits: software, device, and the number of threads on a CPU."""
        device = self.image.device if self.image else default_device()
        on = torch.cuda.get_device_name(device) if device.type == "cuda" else torch.backends.cpu.get_cpu_capability()
        threads = "" if device.type == "cuda" else f", threads: {torch.get_num_threads()}"
        return {"versions": versions(), "device": f"{device.type} {on}{threads}"}

    def block(self, number: int) -> Iterator[Pair]:
        """Generate pairs from `number * batch_size` on; without channels if no valid mask was found."""
        indices = range(number * self.batch_size, (number + 1) * self.batch_size)
        masks = self.masks.block(indices) if self.masks else None
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
        if self.image is None and self.masks is None:
            raise RecipeError("--image-model, --seg-model: nothing to generate with. Give at least one of them.")
        if self.image is not None:
            require_image_model(self.image, with_masks=self.masks is not None)
        if self.image is not None and self.masks is not None:
            require_same_masks(self.masks.names, self.image)


def shard(count: int, batch_size: int, part: int, parts: int) -> Indices:
    """Return the indices below `count` of one part, 1..`parts`."""
    return Indices(count, batch_size, part, parts)


class Outcome(NamedTuple):
    """Counts of written and left-out pairs.

    failed: number left out; first: the first of their indices. rejected: number of invalid masks by
    `ModelMasks.fault`. empty: True if the folder has no pair.
    """

    failed: int
    first: list[int]
    rejected: Counter[str]
    empty: bool


def outcome(out: Path, indices: Sequence[int], shown: int = 10) -> Outcome:
    """Read the outcome of these pairs from the manifest."""
    failed, first, rejected = 0, list[int](), Counter[str]()
    with closing(Lines(out / "manifest.jsonl")) as lines:
        for index in filter(indices.__contains__, lines.failed()):
            failed += 1
            first += [index] if failed <= shown else []
            rejected.update(lines[index].get("rejected", {}))
        return Outcome(failed, first, rejected, not has_pairs(out, lines))


def generate(
    make: Generator,
    indices: Sequence[int],
    out: Path,
    stop: Stop | None = None,
    advance: Callable[[int], None] = lambda _: None,
) -> None:
    """Write pairs below `out/train`, skipping whole existing ones.

    Other processes may write other indices into the same folder. Raises CheckpointError if `out` holds pairs with
    other settings, StoppedError between two blocks once `stop` has a reason, and StorageError.
    """
    try:
        with Manifest.open(out, make.identity(), make.made_with()) as manifest:
            _sweep(manifest, make.batch_size)
            _make_blocks(make, manifest, indices, stop or Stop(), advance)
            with manifest.locked():
                manifest.sort()
                picture(make, manifest)
    except torch.OutOfMemoryError as error:
        what = f"blocks of {make.batch_size} take more memory than the device has"
        raise OutOfMemoryError(f"--batch-size: {what}. Give a smaller one and another --output-dir.") from error
    except OSError as error:
        raise StorageError(f"{out}: {error.strerror or error}. Free space or choose another --output-dir.") from error


def _make_blocks(
    make: Generator, manifest: Manifest, indices: Iterable[int], stop: Stop, advance: Callable[[int], None]
) -> None:
    """Generate block after block, with the memory of a single block."""
    for number, block in groupby(indices, lambda index: index // make.batch_size):
        wanted = list(block)
        if todo := manifest.missing(wanted):
            if stop.reason:
                raise stopped(manifest.out, stop)
            with manifest.block(number):
                for pair in make.block(number):
                    if pair.number in todo:
                        write_pair(pair, manifest, make)
        advance(len(wanted))


def stopped(out: Path, stop: Stop) -> StoppedError:
    """Return the error for a generation that a signal stopped."""
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
    """Rename the folder; to repair a pair, rename file by file, as users may have added files to it."""
    if folder.is_symlink():
        raise StorageError(f"{folder}: is a link, and a pair has to be written there. Remove it.")
    if not files.exists(folder):
        files.move_folder(temporary, folder)
        return
    for path in sorted(temporary.iterdir()):
        files.replace(path, folder / path.name)
    temporary.rmdir()


def _sweep(manifest: Manifest, batch_size: int) -> None:
    """Remove temporary folders of killed processes."""
    for path in [manifest.out / "train" / name for name in names(manifest.out, ".tmp-syn_")]:
        index = re.fullmatch(r"\.tmp-syn_(\d{5,})", path.name)
        if index is None or path.is_symlink():
            continue
        with suppress(RunInUseError), manifest.block(int(index[1]) // batch_size):
            shutil.rmtree(path)


def picture(make: Generator, manifest: Manifest, count: int = 32) -> None:
    """Draw `pairs.png` of the first pairs: every image, then the last again with the masks outlined."""
    masks = make.masks.names if make.masks else ()
    images = make.image.parts.mode.images if make.image else ()
    folders = (manifest.out / "train" / name_of(index) for index in manifest.entries.made())
    groups = [_tiles(folder, images, masks) for folder in islice(filter(Path.exists, folders), count)]
    if groups:
        across = max(1, 12 // max(len(group) for group in groups))
        rows = [[*chain(*groups[start : start + across])] for start in range(0, len(groups), across)]
        pictures.save(pictures.grid(rows), manifest.out / "pairs.png")


def _tiles(folder: Path, images: Sequence[str], masks: Sequence[str]) -> list[Array]:
    shown = [read_slice(folder / f"{name}.nii.gz") for name in images]
    marks = [read_slice(folder / f"{name}.nii.gz", is_mask=True) for name in masks]
    tiles = [pictures.tile(image) for image in shown]
    return tiles + ([pictures.tile(shown[-1] if shown else None, marks)] if marks else [])
