"""Write masks and images as files, in blocks that can be reproduced exactly.

The unit is a block of `batch_size` consecutive indices, always computed whole: convolutions differ
in the last bit between batch sizes. Random numbers depend on seed, index and attempt, so a pair is
the same whatever was made before.
"""

from __future__ import annotations

import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from medgen.data.scans.manifest_lines import Entry, Lines, has_pairs, names
from medgen.errors import (
    OutOfMemoryError,
    Problem,
    RunInUseError,
    StoppedError,
    StorageError,
    reason,
)
from medgen.generation.generator import ANATOMY, DRAWN_AGAIN, NUMBERS, Generator, Pair
from medgen.generation.manifest import Manifest, name_of, sha256
from medgen.generation.masks import ModelMasks
from medgen.generation.model import Model, load_model
from medgen.generation.pair_line import lesion_figures
from medgen.generation.pairs_picture import picture
from medgen.system import files
from medgen.system.signals import Stop

__all__ = ["Generator", "Model", "ModelMasks", "Pair", "generate", "load_model", "outcome"]
Array = np.ndarray[Any, np.dtype[Any]]


class Outcome(NamedTuple):
    """Counts of written and left-out pairs.

    failed: number left out; first: the first of their indices. rejected: number of invalid masks by
    `DrawnMasks.fault`, or `outside_head`. empty: True if the folder has no pair.
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

    Other processes may write other indices into the folder. Raises CheckpointError for pairs of
    other settings, StorageError, and StoppedError between two blocks once `stop` has a reason.
    """
    with (
        with_advice(out, blocks_too_large(make.batch_size)),
        Manifest.open(out, make.identity(), make.made_with()) as manifest,
    ):
        sweep(manifest, make.batch_size)
        _make_blocks(make, manifest, indices, stop or Stop(), advance)
        with manifest.locked():
            manifest.sort()
            images, masks = make.shown()
            picture(images, make.form.masks(masks), manifest)


@contextmanager
def with_advice(out: Path, too_large: Problem) -> Iterator[None]:
    """Turn errors of the device's memory and of the disk into lines that say what to do.

    too_large: the line if the device has too little memory.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise OutOfMemoryError(too_large) from error
    except OSError as error:
        raise StorageError(
            Problem(out, reason(error), "Free space or choose another --output-dir")
        ) from error


def blocks_too_large(batch_size: int) -> Problem:
    """Return the line for blocks that the device has no memory for."""
    what = f"blocks of {batch_size} take more memory than the device has"
    return Problem("--batch-size", what, "Give a smaller one and another --output-dir")


def _make_blocks(
    make: Generator,
    manifest: Manifest,
    indices: Iterable[int],
    stop: Stop,
    advance: Callable[[int], None],
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
                        write_pair(make.settled(pair), manifest, make)
        advance(len(wanted))


def stopped(out: Path, stop: Stop) -> StoppedError:
    """Return the error for a generation that a signal stopped."""
    what = f"stopped by {stop.reason}, every pair there is whole"
    return StoppedError(
        Problem(out, what, "Continue", command=stop.command), exit_code=stop.exit_code
    )


def write_pair(pair: Pair, manifest: Manifest, make: Generator) -> None:
    """Write the files of a pair, or that every attempt was invalid."""
    entry: Entry = {"index": pair.number, "id": name_of(pair.number), "attempts": len(pair.faults)}
    if not pair.channels:
        manifest.add(entry | {"failed": True, "rejected": Counter(pair.faults)})
        return

    files = make.form.files(pair.channels, pair.masks)
    entry |= {DRAWN_AGAIN: pair.drawn_again} if pair.drawn_again else {}
    entry |= {NUMBERS: dict(pair.numbers)} if pair.numbers else {}
    entry |= {ANATOMY: dict(pair.anatomy)} if pair.anatomy else {}
    figures = lesion_figures(pair.channels, pair.masks, make.grid)
    write = partial(make.form.write, files=files, grid=make.grid)
    write_folder(manifest, entry | figures, tuple(files), write)


def write_folder(
    manifest: Manifest, entry: Entry, names: Sequence[str], write: Callable[[Path], None]
) -> None:
    """Let `write` fill a temporary folder with NAME.nii.gz, and rename it, so that all appear at
    once.
    """
    folder = manifest.out / "train" / name_of(entry["index"])
    temporary = folder.with_name(f".tmp-{folder.name}")
    temporary.mkdir(parents=True)
    try:
        write(temporary)
        manifest.add(
            entry | {"files": {name: sha256(temporary / f"{name}.nii.gz") for name in names}}
        )
        _place(temporary, folder)
    except OSError:
        shutil.rmtree(temporary, ignore_errors=True)  # a full disk has no room for it
        raise


def _place(temporary: Path, folder: Path) -> None:
    """Rename the folder; to repair a pair, file by file, as users may have added files."""
    if folder.is_symlink():
        raise StorageError(
            Problem(folder, "is a link, and a pair has to be written there", "Remove it")
        )
    if not files.exists(folder):
        files.move_folder(temporary, folder)
        return
    for path in sorted(temporary.iterdir()):
        files.replace(path, folder / path.name)
    temporary.rmdir()


def sweep(manifest: Manifest, batch_size: int) -> None:
    """Remove temporary folders of killed processes."""
    for path in [manifest.out / "train" / name for name in names(manifest.out, ".tmp-syn_")]:
        index = re.fullmatch(r"\.tmp-syn_(\d{5,})", path.name)
        if index is None or path.is_symlink():
            continue
        with suppress(RunInUseError), manifest.block(int(index[1]) // batch_size):
            shutil.rmtree(path)
