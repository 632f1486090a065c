"""A made-up cohort of patients with brain metastases: T1 before and after contrast, BRAVO, FLAIR and lesion masks.

Anatomy is that of the MNI152 2009a symmetric template (T1, grey and white matter, in nilearn's wheel), warped at random
for each patient. As is usual in collections of metastases, the skull is stripped and the background is 0.
"""

from __future__ import annotations

import gzip
import io
import os
import signal
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import lru_cache
from importlib.util import find_spec
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medgen.errors import RecipeError, StorageError
from medgen.system import files

Volume = NDArray[np.float32]
Mask = NDArray[np.bool_]
Rng = np.random.Generator
Box = tuple[slice, ...]

FIELD_OF_VIEW = (192.0, 216.0, 188.0)
"""Right-left, posterior-anterior and inferior-superior, mm: the largest warped brain and a few mm of air."""
CENTRE = (0.0, -17.0, 7.0)
"""Of the field of view in MNI coordinates, mm: the middle of the template's brain."""
TEMPLATE_CSF, TEMPLATE_GREY, TEMPLATE_WHITE = 0.28, 0.38, 0.60
"""The template's T1, 0..1, as a least-squares fit: CSF, and what grey and white matter add to it."""
MAX_LESIONS = 8


class Contrast(NamedTuple):
    """How one sequence shows each tissue, as a signal relative to white matter, and its noise and sharpness."""

    csf: float
    grey: float
    oedema: float
    rim: float
    core: float
    vessel: float
    noise: float
    blur: float
    """Standard deviation of the point spread, mm."""


CONTRASTS = {
    "bravo": Contrast(csf=0.22, grey=0.66, oedema=0.72, rim=1.55, core=0.55, vessel=1.4, noise=0.028, blur=0.5),
    "t1_pre": Contrast(csf=0.32, grey=0.74, oedema=0.76, rim=0.74, core=0.52, vessel=0.0, noise=0.028, blur=0.8),
    "t1_gd": Contrast(csf=0.32, grey=0.76, oedema=0.78, rim=1.5, core=0.56, vessel=1.1, noise=0.028, blur=0.8),
    "flair": Contrast(csf=0.22, grey=1.24, oedema=1.85, rim=1.45, core=1.15, vessel=0.0, noise=0.033, blur=0.9),
}


class Grid(NamedTuple):
    """The voxels of a patient: RAS, the same spacing on every axis."""

    shape: tuple[int, int, int]
    spacing: float

    @classmethod
    def of(cls, spacing: float) -> Grid:
        """The grid that covers the field of view at `spacing` mm."""
        x, y, z = (round(length / spacing) for length in FIELD_OF_VIEW)
        return cls((x, y, z), spacing)

    @property
    def affine(self) -> NDArray[np.float64]:
        """Voxel indices to mm."""
        affine = np.diag([self.spacing] * 3 + [1.0])
        affine[:3, 3] = np.array(CENTRE) - self.spacing * (np.array(self.shape) - 1) / 2
        return affine


class Atlas(NamedTuple):
    """The template. maps: `[4, x, y, z]`, grey, white, what T1 shows beyond these two, and brain."""

    maps: Volume
    affine: NDArray[np.float64]


class Tissue(NamedTuple):
    """A patient's healthy anatomy: fractions in 0..1 that sum to 1 in the brain, and T1 detail around 0."""

    csf: Volume
    grey: Volume
    white: Volume
    detail: Volume
    vessels: Volume
    brain: Mask


class Lesion(NamedTuple):
    """One metastasis. centre: voxel indices; radius: mm."""

    centre: NDArray[np.intp]
    radius: float


class Disease(NamedTuple):
    """All metastases of a patient as fractions of each voxel; `mask` is what enhances, with its core."""

    rim: Volume
    core: Volume
    oedema: Volume
    mask: Mask


def make_demo(
    out: Path,
    patients: int,
    seed: int = 0,
    workers: int | None = None,
    spacing: float = 2.0,
    advance: Callable[[], None] | None = None,
) -> list[Path]:
    """Write `out/Mets_001/{bravo,t1_pre,t1_gd,flair,seg}.nii.gz` and so on, and return the patients' folders.

    Patient i is a function of (seed, i, spacing) alone, byte for byte. spacing: mm. advance: called after each patient.
    Raises RecipeError without nilearn, for fewer than one patient, or if `out` is not empty.
    """
    _check(out, patients, seed)
    atlas_files()
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"{out}: cannot be made ({error.strerror}). Name another folder.") from error
    folders = [out / f"Mets_{i:03d}" for i in range(1, patients + 1)]
    jobs = [(folder, seed, i, spacing) for i, folder in enumerate(folders, start=1)]
    _write_all(jobs, min(workers or os.cpu_count() or 1, patients), advance or (lambda: None))
    return folders


def _check(out: Path, patients: int, seed: int) -> None:
    if patients < 1:
        raise RecipeError(f"patients: {patients} is not a number of patients. Ask for 1 or more.")
    if seed < 0:
        raise RecipeError(f"seed: {seed} is negative. Give 0 or more.")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise RecipeError(f"{out}: already exists and is not an empty folder. Name a new one, or delete it.")


def atlas_files() -> list[Path]:
    """T1, grey and white matter of the template, found without importing nilearn, which takes seconds."""
    spec = find_spec("nilearn")
    if spec is None or spec.origin is None:
        raise RecipeError(
            "data demo: nilearn, which carries the brain template, is missing. Run pip install 'medgen[demo]'."
        )
    folder = Path(spec.origin).parent / "datasets" / "data"
    files = [folder / f"mni_icbm152_{name}_tal_nlin_sym_09a_converted.nii.gz" for name in ("t1", "gm", "wm")]
    if lost := [file for file in files if not file.is_file()]:
        raise RecipeError(f"{lost[0]}: is not in the nilearn that is installed. Run pip install 'nilearn==0.14.1'.")
    return files


@lru_cache(maxsize=1)
def load_atlas() -> Atlas:
    """Read the template."""
    import nibabel

    images = [nibabel.load(file) for file in atlas_files()]
    t1, grey, white = (np.asarray(image.dataobj, dtype=np.float32) / 255 for image in images)
    brain = (t1 > 0).astype(np.float32)
    detail = (t1 - TEMPLATE_CSF - TEMPLATE_GREY * grey - TEMPLATE_WHITE * white) * brain
    return Atlas(np.stack([grey, white, detail, brain]), images[0].affine)


def smooth_noise(rng: Rng, extent: Sequence[float], pitch: float, shape: Sequence[int]) -> Volume:
    """Noise of unit variance that varies over `pitch` mm, in a box of `extent` mm; the same at every resolution."""
    weights = [_spline_weights(length / pitch, n) for length, n in zip(extent, shape, strict=True)]
    field = rng.standard_normal([each.shape[1] for each in weights], dtype=np.float32)
    for each in weights:
        field = np.einsum("kij,nk->ijn", field, each)  # not a matrix product: see _linear
    return field


def _spline_weights(knots: float, points: int) -> Volume:
    """Cubic B-spline weights `[points, knots]` at evenly spaced points, scaled to keep the variance of white noise."""
    at = (np.arange(points, dtype=np.float32)[:, None] + 0.5) / points * knots
    d = np.abs(at + 1 - np.arange(int(np.ceil(knots)) + 3))
    weights = np.where(d < 1, (4 - 6 * d**2 + 3 * d**3), (2 - d).clip(0, None) ** 3)
    scaled: Volume = (weights / np.linalg.norm(weights, axis=1, keepdims=True)).astype(np.float32)
    return scaled


def noise_field(rng: Rng, grid: Grid, pitch: float) -> Volume:
    """`smooth_noise` over the whole field of view."""
    return smooth_noise(rng, FIELD_OF_VIEW, pitch, grid.shape)


def rotation(angles: NDArray[np.float64]) -> NDArray[np.float64]:
    """About x, then y, then z, in radians."""
    (cx, cy, cz), (sx, sy, sz) = np.cos(angles), np.sin(angles)
    x = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    z = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    product: NDArray[np.float64] = z @ y @ x
    return product


def warp(rng: Rng, grid: Grid) -> NDArray[np.float64]:
    """Where in MNI space each voxel takes its tissue from, mm, `[3, *shape]`: head pose and size, then local shape."""
    linear = rotation(rng.normal(0, np.deg2rad([4, 2.5, 3]))) / rng.uniform(0.92, 1.03, 3)
    middle = (np.array(grid.shape).reshape(3, 1, 1, 1) - 1) / 2
    points = _linear(linear * grid.spacing, np.indices(grid.shape) - middle)
    for pitch, deviation in ((70, 3.0), (28, 1.7), (13, 1.0)):
        for axis in points:
            axis += deviation * noise_field(rng, grid, pitch)
    off_centre = points.mean((1, 2, 3)) - np.array(CENTRE) + rng.normal(0, 1, 3)
    centred: NDArray[np.float64] = points - off_centre.reshape(3, 1, 1, 1)
    return centred


def _linear(matrix: NDArray[Any], points: NDArray[Any]) -> NDArray[np.float64]:
    """`matrix @ points[:, i]` for every i."""
    # einsum, since the last bits of a BLAS product may depend on the number of threads.
    product: NDArray[np.float64] = np.einsum("ij,j...->i...", matrix, points)
    return product


def sample(atlas: Atlas, points: NDArray[np.float64]) -> Volume:
    """The template's maps `[4, x, y, z]` at `points` in MNI space, mm."""
    inverse = np.linalg.inv(atlas.affine)
    voxels = _linear(inverse[:3, :3], points) + inverse[:3, 3].reshape(3, 1, 1, 1)
    return np.stack([ndimage.map_coordinates(each, voxels, order=1) for each in atlas.maps])


def make_tissue(rng: Rng, grid: Grid, maps: Volume) -> Tissue:
    """Sharpen the average brain to one brain, with sulci and ventricles as wide as they are at some random age."""
    grey, white, detail, brain = maps
    csf = (1 - grey - white).clip(0.004, 1)
    depth = _distance_to(brain < 0.5, grid)
    ventricles = ndimage.gaussian_filter(((csf > 0.5) & (depth > 18)).astype(np.float32), 3.5 / grid.spacing)
    age = rng.uniform(0, 1)
    sulci = (0.8 + 1.4 * age) * np.exp(0.45 * noise_field(rng, grid, 25) + 0.4 * noise_field(rng, grid, 8))
    fractions = np.stack([csf * sulci + 1.6 * age * ventricles, grey.clip(0, 1), white.clip(0, 1)]) ** 1.8
    fractions /= fractions.sum(0)
    vessels = _vessels(rng, grid, fractions[0] * brain * (1 - 2 * ventricles).clip(0, 1))
    csf, grey, white = fractions
    return Tissue(csf, grey, white, detail, vessels, _skull_stripped(brain, grid))


def _vessels(rng: Rng, grid: Grid, csf: Volume) -> Volume:
    """Short pieces of vessels where there is CSF."""
    vessels: Volume = (1.5 * noise_field(rng, grid, 4) - 1.2).clip(0, 1) * csf
    return vessels


def _skull_stripped(brain: Volume, grid: Grid, closing: float = 9.0, margin: float = 1.5) -> Mask:
    """The brain with its sulci filled and `margin` mm of CSF, as brain extraction leaves it."""
    near = _distance_to(brain > 0.5, grid) < closing
    stripped: Mask = _distance_to(~near, grid) > closing - margin
    return stripped


def _distance_to(target: Mask, grid: Grid) -> Volume:
    """From each voxel to the nearest one of `target`, mm."""
    distance: Volume = ndimage.distance_transform_edt(~target, sampling=grid.spacing).astype(np.float32)
    return distance


def draw_lesions(rng: Rng, grid: Grid, tissue: Tissue) -> list[Lesion]:
    """1 to 8 metastases, mostly small, near the junction of grey and white matter."""
    count = min(int(rng.geometric(0.23)), MAX_LESIONS)
    diameters = [rng.uniform(12, 29), *(4.3 * 5 ** rng.uniform(0, 1, count - 1) ** 1.5)]
    junction = np.where(tissue.brain & (tissue.csf < 0.3), (4 * tissue.grey * tissue.white) ** 2 + 0.03, 0)
    depth = _distance_to(~tissue.brain, grid)
    away = _distance_to((tissue.csf > 0.6) & (depth > 20), grid)
    lesions: list[Lesion] = []
    for radius in np.array(diameters) / 2:
        allowed = (depth > 0.75 * radius + 2.5) & (away > radius + 1)
        for other in lesions:
            allowed &= _distance(grid, other.centre) > radius + other.radius + 4
        if (weights := np.cumsum(np.where(allowed, junction, 0))).size and weights[-1] > 0:
            chosen = np.searchsorted(weights, rng.uniform(0, weights[-1]), side="right")
            lesions.append(Lesion(np.array(np.unravel_index(chosen, grid.shape)), radius))
    return lesions


def _distance(grid: Grid, centre: NDArray[np.intp]) -> Volume:
    """From each voxel to the centre, mm."""
    x, y, z = (grid.spacing * (np.arange(n, dtype=np.float32) - c) for n, c in zip(grid.shape, centre, strict=True))
    distance: Volume = np.sqrt(x[:, None, None] ** 2 + y[:, None] ** 2 + z**2)
    return distance


def grow(rng: Rng, grid: Grid, tissue: Tissue, lesions: list[Lesion]) -> Disease:
    """Give metastases irregular outlines, the larger ones a necrotic core, and oedema that keeps to white matter."""
    rim, core, oedema = (np.zeros(grid.shape, np.float32) for _ in range(3))
    mask = np.zeros(grid.shape, bool)
    for lesion in lesions:
        box, whole, inner = _enhancing(rng, grid, lesion)
        core[box] = np.maximum(core[box], inner)
        rim[box] = np.maximum(rim[box], whole - inner)
        # A voxel can be larger than a lesion: the fullest one is always in the mask.
        mask[box] |= whole >= min(0.5, whole.max())
        box, around = _oedema(rng, grid, lesion)
        oedema[box] = np.maximum(oedema[box], around)
    spread = ndimage.gaussian_filter(tissue.white, 1.5 / grid.spacing)
    oedema *= (0.1 + 1.2 * spread).clip(0, 1) * (1 - tissue.csf)
    return Disease(rim * tissue.brain, core * tissue.brain, oedema * tissue.brain, mask & tissue.brain)


def _enhancing(rng: Rng, grid: Grid, lesion: Lesion) -> tuple[Box, Volume, Volume]:
    """The fractions of voxels in a box that are lesion, and that are its necrotic core."""
    box, rho = _ellipsoid(rng, grid, lesion, reach=1.5 * lesion.radius + 3, parts=3)
    extent = tuple(n * grid.spacing / 3 for n in rho.shape)
    coarse, fine = (smooth_noise(rng, extent, pitch * lesion.radius, rho.shape) for pitch in (1.1, 0.5))
    rho *= 1 + 0.15 * coarse + 0.07 * fine
    rim = max(rng.uniform(0.36, 0.48), 2.6 / lesion.radius)
    necrotic = lesion.radius > 5 and rng.uniform() < 0.8
    inner = (rho + 0.12 * fine - 0.08 * coarse < 1 - rim) & necrotic
    return box, _mean_of_parts(rho < 1, 3), _mean_of_parts(inner, 3)


def _oedema(rng: Rng, grid: Grid, lesion: Lesion) -> tuple[Box, Volume]:
    """How much of the oedema that white matter can hold lies in the voxels of a box, 0..1."""
    width = rng.uniform(0.3, 1.8) * min(lesion.radius, 9) + rng.uniform(-1, 3)
    box, rho = _ellipsoid(rng, grid, lesion, reach=lesion.radius + width + 12, parts=1)
    extent = tuple(n * grid.spacing for n in rho.shape)
    outside = (rho - 1) * lesion.radius + 3.5 * smooth_noise(rng, extent, 14, rho.shape)
    around: Volume = 1 / (1 + np.exp(((outside - width) / 1.3).clip(-30, 30)))
    return box, around


def _ellipsoid(rng: Rng, grid: Grid, lesion: Lesion, reach: float, parts: int) -> tuple[Box, Volume]:
    """The box within `reach` mm of a lesion, and the distance from its centre there, 1 on the surface of an ellipsoid.

    Each voxel of the box is divided into `parts` along each axis.
    """
    steps = int(np.ceil(reach / grid.spacing))
    low, high = np.maximum(lesion.centre - steps, 0), np.minimum(lesion.centre + steps + 1, grid.shape)
    axes = [
        grid.spacing * ((np.arange(parts * (b - a)) + 0.5) / parts - 0.5 + a - c).astype(np.float32)
        for a, b, c in zip(low, high, lesion.centre, strict=True)
    ]
    shape = rng.uniform(0.85, 1.2, (3, 1)) * rotation(rng.uniform(0, np.pi, 3)) / lesion.radius
    points = _linear(shape, np.stack(np.meshgrid(*axes, indexing="ij")))
    box = tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
    return box, np.sqrt((points**2).sum(0)).astype(np.float32)


def _mean_of_parts(fine: Mask, parts: int) -> Volume:
    """Fractions of voxels from their sub-voxels."""
    x, y, z = (n // parts for n in fine.shape)
    fractions: Volume = fine.reshape(x, parts, y, parts, z, parts).mean((1, 3, 5), dtype=np.float32)
    return fractions


def render(
    rng: Rng, grid: Grid, contrast: Contrast, tissue: Tissue, disease: Disease, texture: Volume
) -> NDArray[np.int16]:
    """One sequence in a scanner's units, 0 outside the brain: signal, point spread, receive field, Rician noise."""
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
    signal = ndimage.gaussian_filter(signal, contrast.blur / grid.spacing)
    signal *= np.exp(0.09 * noise_field(rng, grid, 110))
    real, imaginary = contrast.noise * rng.standard_normal((2, *grid.shape), dtype=np.float32)
    measured = np.hypot(signal + real, imaginary) * rng.uniform(500, 1400) * tissue.brain
    scanned: NDArray[np.int16] = np.rint(measured).clip(0, np.iinfo(np.int16).max).astype(np.int16)
    return scanned


def make_patient(seed: int, index: int, grid: Grid) -> dict[str, NDArray[Any]]:
    """All volumes of one patient by name: int16 images and the uint8 mask `seg`."""
    rng = np.random.default_rng([seed, index])
    tissue = make_tissue(rng, grid, sample(load_atlas(), warp(rng, grid)))
    disease = grow(rng, grid, tissue, draw_lesions(rng, grid, tissue))
    texture = noise_field(rng, grid, 5)
    images = {name: render(rng, grid, contrast, tissue, disease, texture) for name, contrast in CONTRASTS.items()}
    return images | {"seg": disease.mask.astype(np.uint8)}


def write_patient(folder: Path, seed: int, index: int, spacing: float) -> None:
    """Make patient `index` and write it: the folder appears once it is complete."""
    grid = Grid.of(spacing)
    content = {f"{name}.nii.gz": encode(volume, grid) for name, volume in make_patient(seed, index, grid).items()}
    partial = folder.with_name(f".{folder.name}.partial")
    try:
        partial.mkdir()
        for name, data in content.items():
            (partial / name).write_bytes(data)
        files.move_folder(partial, folder)
    except OSError as error:
        raise StorageError(
            f"{folder}: cannot be written ({error.strerror}). Free the place or name another."
        ) from error


def encode(volume: NDArray[Any], grid: Grid) -> bytes:
    """A `.nii.gz` that holds nothing of when and where it was made."""
    import nibabel

    image = nibabel.Nifti1Image(volume, grid.affine)
    image.header.set_xyzt_units("mm")
    image.header.set_qform(grid.affine, code="scanner")
    image.header.set_sform(grid.affine, code="scanner")
    buffer = io.BytesIO()
    with gzip.GzipFile(filename="", mode="wb", fileobj=buffer, compresslevel=6, mtime=0) as file:
        file.write(image.to_bytes())
    return buffer.getvalue()


def _write_all(jobs: list[tuple[Path, int, int, float]], workers: int, advance: Callable[[], None]) -> None:
    if workers == 1:
        for job in jobs:
            write_patient(*job)
            advance()
        return
    # Not forked: the caller may draw its progress bar in a thread.
    with ProcessPoolExecutor(workers, get_context("spawn"), signal.signal, (signal.SIGINT, signal.SIG_IGN)) as pool:
        try:
            for done in as_completed([pool.submit(write_patient, *job) for job in jobs]):
                done.result()
                advance()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
