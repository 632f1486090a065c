"""Write hosts with new lesions, one by one, so that a rerun makes what is missing and nothing else."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import torch

from medgen.data.scans.layouts import NEW_LESIONS
from medgen.data.scans.manifest_lines import Entry
from medgen.errors import Problem
from medgen.evaluation.lesion_scores import components
from medgen.generation import pair_writer
from medgen.generation.insertion import insertions_picture
from medgen.generation.insertion.cases import Files
from medgen.generation.insertion.host_files import image_bytes, mask_bytes
from medgen.generation.insertion.inserter import Inserted, Inserter
from medgen.generation.insertion.insertions_picture import AXIAL, PLANES
from medgen.generation.insertion.painter import Painter, learns_nothing, paints_volumes
from medgen.generation.label_map import LabelMap
from medgen.generation.manifest import Manifest, name_of, sha256
from medgen.run.versions import versions
from medgen.system.signals import Stop

Array = np.ndarray[Any, np.dtype[Any]]

ALL = "seg"
"""Name of the mask of all lesions."""


def insert(
    make: Inserter,
    indices: Sequence[int],
    out: Path,
    stop: Stop | None = None,
    advance: Callable[[int], None] = lambda _: None,
) -> None:
    """Write outputs below `out/train`, skipping whole existing ones.

    Other processes may write other indices into the same folder. Raises CheckpointError if `out`
    holds outputs of other settings, StoppedError between two outputs once `stop` has a reason,
    OutOfMemoryError, and StorageError.
    """
    with (
        pair_writer.with_advice(out, _crops_too_large(make.painter)),
        Manifest.open(out, identity(make), made_with(make)) as manifest,
    ):
        pair_writer.sweep(manifest, 1)
        _make_missing(make, manifest, indices, stop or Stop(), advance)
        with manifest.locked():
            manifest.sort()
            insertions_picture.save_all(out)


def identity(make: Inserter) -> dict[str, Any]:
    """Return what decides the bytes of an output besides its index, and that it may not be shared."""
    volumes = {"dimensions": 3} if paints_volumes(make.painter) else {}
    return {"insert": True, "shareable": False, "seed": make.seed, **make.made_from, **volumes}


def made_with(make: Inserter) -> dict[str, Any]:
    """What may change the last bits: software, and for a model the device, and the number of threads on a CPU."""
    if learns_nothing(make.painter):  # nothing is computed by torch
        return {"versions": versions()}
    on_gpu = torch.cuda.is_available()
    kind = torch.cuda.get_device_name() if on_gpu else torch.backends.cpu.get_cpu_capability()
    return {
        "versions": versions(),
        "device": kind if on_gpu else f"{kind}, threads: {torch.get_num_threads()}",
    }


def _crops_too_large(painter: Painter) -> Problem:
    """Return the line for crops that the device has no memory for: one is painted at a time."""
    side = " x ".join(map(str, painter.grid.shape if painter.grid else ()))
    what = f"painting a crop of {side} px takes more memory than the device has left"
    fix = "End what else uses the device, or set CUDA_VISIBLE_DEVICES= to paint on the CPU"
    return Problem("--image-model", what, fix)


def _make_missing(
    make: Inserter,
    manifest: Manifest,
    indices: Iterable[int],
    stop: Stop,
    advance: Callable[[int], None],
) -> None:
    for index in indices:
        if manifest.missing([index]):
            if stop.reason:
                raise pair_writer.stopped(manifest.out, stop)
            with manifest.block(index):
                write(make.make(index), index, manifest, make)
        advance(1)


def write(made: Inserted, index: int, manifest: Manifest, make: Inserter) -> None:
    """Write one output, or that no lesion found a place in its host."""
    entry: Entry = {"index": index, "id": name_of(index), "host": _host(made, make)}
    if not made.lesions:
        manifest.add(entry | {"failed": True, "rejected": made.missed})
        return
    files = {**_images(made, make), **_masks(made, make)}
    figures = {
        "lesions": _figures(made),
        "inserted": list(made.lesions),
        "missed": made.missed,
        "shareable": False,
    }

    def put(folder: Path) -> None:
        for name, content in files.items():
            (folder / f"{name}.nii.gz").write_bytes(content)

    planes = PLANES if paints_volumes(make.painter) else AXIAL
    if index < insertions_picture.SHOWN // len(planes):
        insertions_picture.save_one(made, manifest.out, index, planes)
    pair_writer.write_folder(manifest, entry | figures, tuple(files), put)


def _images(made: Inserted, make: Inserter) -> dict[str, bytes]:
    case = made.case
    scaled = zip(case.raws, case.windows, made.images, strict=True)
    files = (
        image_bytes(raw, image * np.float32(high - low) + np.float32(low), made.changed)
        for raw, (low, high), image in scaled
    )
    return dict(zip(make.painter.channels, files, strict=True))


def _masks(made: Inserted, make: Inserter) -> dict[str, bytes]:
    """Give the files of masks: one of all lesions and one of the new, with the labels of the host's if all
    masks are labels of one file; if they are of several, a file for each mask too.
    """
    volumes = attrs.evolve(make.data, dimensions=3)  # outputs are, painted slice by slice or not
    case, label_map = made.case, LabelMap.of(volumes, [*made.masks])
    masks: dict[str, Array] = {ALL: case.lesion | made.new, NEW_LESIONS: made.new}
    if label_map:
        new = label_map.merged(made.masks)
        host = np.zeros_like(new) if case.labels is None else case.labels
        masks = {ALL: np.where(made.new, new, host), NEW_LESIONS: new}
    elif len(made.masks) > 1:
        masks |= {name: case.masks.get(name, False) | new for name, new in made.masks.items()}
    return {name: mask_bytes(case.raws[0], mask) for name, mask in masks.items()}


def _host(made: Inserted, make: Inserter) -> dict[str, Any]:
    """Return the host's id, person and files, with their hashes."""
    files = made.case.files
    root = make.data.root
    listed = {
        name: {"file": os.path.relpath(path, root), "sha256": sha256(path)}
        for name, path in [*files.images.items(), *_host_masks(files)]
    }
    return {"id": files.id, "person": files.person, "files": listed}


def _host_masks(files: Files) -> Iterable[tuple[str, Path]]:
    """Return a host's files of masks by name; where there is one alone, by the name it has in outputs."""
    paths = {mask.path: name for name, mask in files.masks.items()}
    return [(ALL if len(paths) == 1 else name, path) for path, name in paths.items()]


def _figures(made: Inserted) -> dict[str, Any]:
    """How many lesions there are now, how many of them new, and the volume of these."""
    volume = np.count_nonzero(made.new) * float(np.prod(made.case.spacing))
    whole = components(made.case.lesion | made.new)[1]
    return {"count": whole, "new": len(made.lesions), "mm3": round(volume, 1)}
