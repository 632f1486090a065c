"""Estimate images of tissues with a model that is given a scan, and write them beside links to it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import attrs
import numpy as np
import torch
from scipy import ndimage

from medgen import seeds
from medgen.api.tables import DataSettings
from medgen.config.recipe import data_settings, from_toml
from medgen.data.grid import Grid
from medgen.data.scans import layouts
from medgen.data.scans.layouts import Patient
from medgen.data.scans.nifti import gate
from medgen.data.store.head_finding import locate
from medgen.data.store.preprocess import Channel, cut
from medgen.data.store.scan_grid import ScanGrid
from medgen.errors import DataError, Problem, RecipeError, StorageError, reason
from medgen.evaluation.threads import threads
from medgen.generation.model import Model, draw_samples
from medgen.run import named_weights, shared_weights
from medgen.run.assemble import build, default_device
from medgen.run.weights import load_into
from medgen.system import files, streams
from medgen.system.console import progress, say

NAME = "tissue"
BATCH = 16
"""Slices at a time."""
AROUND = 4.0
"""mm around a lesion within which tissue is that of the surroundings: a lesion changes it so far."""
REACH = 6.0
"""mm, the standard deviation of the mean over the surroundings."""


def write(folder: Path, out: Path, overrides: Sequence[str], image: str, model: Path) -> None:
    """Write a folder for each patient, and say where they are. Patients that are there are kept."""
    streams.only_log()
    if folder.resolve() in (out.resolve(), *out.resolve().parents):
        what = "lies in the folder that it is made of"
        raise RecipeError(Problem(out, what, "Name one outside of it"))
    data = attrs.evolve(data_settings(overrides), root=folder)
    estimate = Estimator(load(model))
    patients, by_hand = _patients(data, image), _by_hand(folder)

    def write_patient(patient: Patient) -> None:
        target = out / patient.split / patient.id if by_hand else out / patient.id
        if not target.exists():
            _write_patient(_tissue_of(patient, image, estimate, data), patient, image, target)

    with progress(NAME, len(patients), "patients") as bar, threads() as work:
        for _ in work(write_patient, patients):
            bar.advance()
    say(str(out))


def load(path: Path) -> Model:
    """Load a model of tissues from weights of this name, from a file of `export-weights`, or from a
    checkpoint. Raises CheckpointError, or RecipeError for another model.
    """
    found = named_weights.find(path, NAME, "--model")
    given = shared_weights.load_any(found / "latest.pt" if found.is_dir() else found)
    if not given.recipe:
        what = f"{found} does not say which recipe its weights are of"
        raise RecipeError(Problem("--model", what, "Give a checkpoint of medgen's"))
    recipe, device = from_toml(given.recipe, source=str(found)), default_device()
    parts = build(recipe, device)
    if parts.mode.images != (NAME,) or len(parts.mode.condition) != 1 or not recipe.data.spacing:
        made, seen = ", ".join(parts.mode.images), ", ".join(parts.mode.condition) or "nothing"
        what = f"{found} makes {made} given {seen}"
        raise RecipeError(Problem("--model", what, f"Give a model that makes {NAME} of one scan"))
    load_into(parts.network, given.weights, found)
    parts.network.eval().requires_grad_(False)
    grid = Grid.of(recipe.data, recipe.data.spacing)
    return Model(recipe, parts, device, grid, frozenset(), digest="")


class Estimator(NamedTuple):
    """Estimates tissues slice by slice, on the grid of its model."""

    model: Model

    @property
    def data(self) -> DataSettings:
        """Return settings to read whole scans as a stack of the model's slices."""
        given, grid = self.model.recipe.data, self.model.grid
        size = grid.shape[0]
        return attrs.evolve(
            given, dimensions=3, image_size=(size, size, size), spacing=grid.spacing[0]
        )

    def __call__(self, scan: np.ndarray, lesion: np.ndarray) -> np.ndarray:
        """Return tissues `[x, y, z]` of a scan, both in [-1, 1], without lesions.

        lesion: bool, where tissue is that of the surroundings.
        """
        found = np.full(scan.shape, -1, np.float32)
        shown = np.flatnonzero((scan > -1).any(axis=(0, 1)))
        for start in range(0, len(shown), BATCH):
            some = shown[start : start + BATCH]
            slices = torch.from_numpy(np.moveaxis(scan[..., some], -1, 0).astype(np.float32))
            generators = [seeds.stream(0, NAME, int(number)) for number in some]
            made = draw_samples(self.model, slices[:, None], generators, None)
            found[..., some] = np.moveaxis(made[:, 0].numpy(), 0, -1)
        found[scan <= -1] = -1
        return healed(found, lesion, self.model.grid.spacing[0])


def healed(tissue: np.ndarray, lesion: np.ndarray, spacing: float) -> np.ndarray:
    """Return tissue, in [-1, 1], that is around lesions as it is `AROUND` mm farther away: the mean
    there, weighted by a Gaussian. spacing: mm.
    """
    made, sigma = np.array(tissue), REACH / spacing
    margin = math.ceil(AROUND / spacing + 4 * sigma)
    labels = ndimage.label(lesion)[0]
    for number, box in enumerate(ndimage.find_objects(labels), start=1):
        part = tuple(slice(max(0, each.start - margin), each.stop + margin) for each in box)
        here, values = labels[part], tissue[part]
        known = (_beyond(here > 0, spacing) & (values > -1)).astype(np.float32)
        weight = ndimage.gaussian_filter(known, sigma)
        mean = ndimage.gaussian_filter((values + 1) * known, sigma) / np.maximum(weight, 1e-6) - 1
        filled = ~_beyond(here == number, spacing) & (weight > 1e-3)
        made[part][filled] = mean[filled]
    return made


def _beyond(lesion: np.ndarray, spacing: float) -> np.ndarray:
    """Return what lies farther than `AROUND` mm from a lesion, bool."""
    return np.asarray(ndimage.distance_transform_edt(~lesion) * spacing > AROUND)


def _patients(data: DataSettings, image: str) -> Sequence[Patient]:
    """Return the patients with a scan, and whatever else they have."""
    masks = {layouts.source(data, name) for name in layouts.mask_names(data)}
    names = [*masks, *data.files, *layouts.SPELLINGS]
    found = layouts.survey(data, [image], [name for name in names if name not in (image, NAME)])
    if found.faults:
        raise DataError(*found.faults)
    return [each for each in found.patients if each.split in layouts.SPLITS]


def _by_hand(folder: Path) -> bool:
    """Return True if the split is made by hand, as folders."""
    return any((folder / split).is_dir() for split in layouts.SPLITS)


def _ending(path: Path) -> str:
    """Return `.nii` or `.nii.gz`, as a file has it."""
    return "".join(path.suffixes[-2:]) if path.suffix == ".gz" else path.suffix


def _tissue_of(
    patient: Patient, image: str, estimate: Estimator, data: DataSettings
) -> tuple[np.ndarray, Grid]:
    """Return a patient's tissues, and the grid that they are on. Raises DataError."""
    scan = patient.files[image]
    masks = [
        Channel.of(patient.files[source], layouts.mask(data, name))
        for name in sorted(layouts.mask_names(data))
        if (source := layouts.source(data, name)) in patient.files
    ]
    settings = attrs.evolve(estimate.data, nan=data.nan, max_voxels=data.max_voxels)
    read = cut(
        [Channel(scan), *masks], settings, locate(gate.read(scan, data.max_voxels, nan=data.nan))
    )
    if isinstance(read, list):
        raise DataError(*read)
    stack, *lesions = (each[0] for each in read.stacks)
    lesion = np.any(lesions, axis=0) if lesions else np.zeros(stack.shape, bool)
    grid = Grid.of_volumes(settings.shape, settings.spacing)
    return estimate(stack, np.asarray(lesion, bool)), grid


def _write_patient(
    tissue: tuple[np.ndarray, Grid], patient: Patient, image: str, target: Path
) -> None:
    """Write tissues on the grid of a scan, and links to a patient's files; the folder appears once it
    is complete. Raises StorageError.
    """
    partial = target.with_name(f".{target.name}.partial")
    made, grid = tissue
    try:
        partial.mkdir(parents=True, exist_ok=True)
        scan_grid = ScanGrid.of(patient.files[image], grid)
        scan_grid.write(partial / f"{NAME}.nii.gz", made, is_mask=False)
        for name, path in patient.files.items():
            link = partial / f"{name}{_ending(path)}"
            link.unlink(missing_ok=True)
            link.symlink_to(path.resolve())
        files.move_folder(partial, target)
    except OSError as error:
        fix = "Free the place or name another"
        raise StorageError(Problem(target, reason(error), fix)) from error
