"""A made-up patient: scans and masks from one seed."""

from __future__ import annotations

import gzip
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medgen.data.store.nifti_writer import MARK
from medgen.errors import Problem, StorageError
from medgen.system import files
from medgen_builtins.commands.demo.atlas import (
    TEMPLATE_GREY,
    TEMPLATE_WHITE,
    Grid,
    Rng,
    Volume,
    load_atlas,
    noise_field,
    sample,
    warp,
)
from medgen_builtins.commands.demo.contrasts import CONTRASTS, Contrast
from medgen_builtins.commands.demo.disease import Disease, draw_lesions, grow
from medgen_builtins.commands.demo.tissue import Tissue, make_tissue

TISSUE = "tissue"
"""Name of the image of tissues, which is written where it is asked for."""


def render(
    rng: Rng, grid: Grid, contrast: Contrast, tissue: Tissue, disease: Disease, texture: Volume
) -> NDArray[np.int16]:
    """One sequence in a scanner's units, 0 outside the brain: signal, point spread, receive field,
    Rician noise.
    """
    signal = show(rng, contrast, tissue, disease, texture)
    signal = ndimage.gaussian_filter(signal, contrast.blur / grid.spacing)
    signal *= np.exp(0.09 * noise_field(rng, grid, 110))
    return scan(rng, signal, contrast.noise, tissue.brain)


def show(rng: Rng, contrast: Contrast, tissue: Tissue, disease: Disease, texture: Volume) -> Volume:
    """The signal of each voxel, relative to white matter."""
    csf, grey = (level * rng.uniform(0.95, 1.05) for level in (contrast.csf, contrast.grey))
    signal = csf * tissue.csf + grey * tissue.grey + tissue.white
    signal += (1 - grey) / (TEMPLATE_WHITE - TEMPLATE_GREY) * tissue.detail * (1 - tissue.csf)
    signal += contrast.vessel * tissue.vessels
    for fraction, level in (
        (disease.oedema, contrast.oedema),
        (disease.rim, contrast.rim),
        (disease.core, contrast.core),
    ):
        signal += fraction * (level * rng.uniform(0.94, 1.06) * (1 + 0.08 * texture) - signal)
    return signal


def scan(rng: Rng, signal: Volume, noise: float, seen: NDArray[Any]) -> NDArray[np.int16]:
    """Measure a signal with Rician noise, in a scanner's units; 0 where nothing is seen."""
    real, imaginary = noise * rng.standard_normal((2, *signal.shape), dtype=np.float32)
    measured = np.hypot(signal + real, imaginary) * rng.uniform(500, 1400) * seen
    scanned: NDArray[np.int16] = np.rint(measured).clip(0, np.iinfo(np.int16).max).astype(np.int16)
    return scanned


def make_patient(seed: int, index: int, grid: Grid) -> dict[str, NDArray[Any]]:
    """All volumes of one patient by name: int16 images, those of tissues as `tissue`, and the uint8
    mask `seg`.
    """
    rng = np.random.default_rng([seed, index])
    tissue = make_tissue(rng, grid, sample(load_atlas(), warp(rng, grid)))
    disease = grow(rng, grid, tissue, draw_lesions(rng, grid, tissue))
    texture = noise_field(rng, grid, 5)
    images = {
        name: render(rng, grid, contrast, tissue, disease, texture)
        for name, contrast in CONTRASTS.items()
    }
    return images | {TISSUE: tissue.image(), "seg": disease.mask.astype(np.uint8)}


def write_patient(folder: Path, volumes: Mapping[str, NDArray[Any]], grid: Grid) -> None:
    """Write a patient's volumes: the folder appears once it is complete."""
    content = {
        f"{name}.nii.gz": encode(volume, grid, b"" if name != TISSUE else MARK)
        for name, volume in volumes.items()
    }
    partial = folder.with_name(f".{folder.name}.partial")
    try:
        partial.mkdir()
        for name, data in content.items():
            (partial / name).write_bytes(data)
        files.move_folder(partial, folder)
    except OSError as error:
        raise StorageError(
            Problem(
                folder, f"cannot be written ({error.strerror})", "Free the place or name another"
            )
        ) from error


def encode(volume: NDArray[Any], grid: Grid, description: bytes = b"") -> bytes:
    """A `.nii.gz` that holds nothing of when and where it was made. description: `MARK` for grey
    values that are read as they are.
    """
    image = nibabel.Nifti1Image(volume, grid.affine)
    image.header.set_xyzt_units("mm")
    image.header["descrip"] = description
    image.header.set_qform(grid.affine, code="scanner")
    image.header.set_sform(grid.affine, code="scanner")
    buffer = io.BytesIO()
    with gzip.GzipFile(filename="", mode="wb", fileobj=buffer, compresslevel=6, mtime=0) as file:
        file.write(image.to_bytes())
    return buffer.getvalue()
