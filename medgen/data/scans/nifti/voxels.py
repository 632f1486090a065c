"""The voxels themselves: scaled values, labels, and what is wrong with either."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path

import nibabel as nib
import numpy as np

from medgen.data.scans.nifti.header import data_offset, dtype_of, shape_of, total_bytes
from medgen.data.scans.nifti.problems import COPY, Defect, Limits, as_faults, refusal
from medgen.errors import DataError

MAX_ABS = 1e6
"""Beyond any scanner's units."""


LABEL_TOLERANCE = 1e-3
"""How far from a whole number a label may be: int32 with a scale factor stores 1 as 0.99999997."""


def content(data: np.ndarray) -> str:
    """Return sha256 of shape and float32 values, whatever their order in memory."""
    sha = hashlib.sha256(repr(data.shape).encode())
    sha.update(np.ascontiguousarray(data.T, np.float32).data)
    return sha.hexdigest()


def labels(data: np.ndarray, path: Path | str = "mask") -> np.ndarray:
    """Return the nearest whole numbers, int32. Raises `DataError` for `path` if one is negative or
    farther away than 1e-3.
    """
    faults = as_faults(Path(path), _label_problems(data))
    if faults:
        raise DataError(*faults)
    whole: np.ndarray = np.rint(data)
    return whole.astype(np.int32)


def read_stored(header: nib.Nifti1Header, pieces: Iterable[bytes]) -> np.ndarray:
    """Read voxels as stored, `[x, y, z]`; the bytes must end exactly where the header says."""
    total, end = total_bytes(header), 0
    buffer = np.empty(total, np.uint8)
    for piece in pieces:
        start, end = end, end + len(piece)
        if end > total:
            raise refusal(f"goes on after the {total:,} bytes that its header announces", COPY)
        buffer[start:end] = np.frombuffer(piece, np.uint8)
    if end < total:
        raise refusal(
            f"is cut off after {end:,} of the {total:,} bytes that its header announces", COPY
        )
    return buffer[data_offset(header) :].view(dtype_of(header)).reshape(shape_of(header), order="F")


def scale_values(stored: np.ndarray, slope: float, inter: float) -> np.ndarray:
    """Return `slope * stored + inter` as float32, computed in float64 a slice at a time."""
    data = np.empty(stored.shape, np.float32, order="F")
    try:
        with np.errstate(over="raise", invalid="ignore"):
            if (slope, inter) == (1, 0):
                np.copyto(data, stored, casting="unsafe")
            else:
                for k in range(stored.shape[2]):
                    data[..., k] = stored[..., k].astype(np.float64) * slope + inter
    except FloatingPointError:
        raise refusal("has values beyond 3.4e+38, the largest float32", "Rescale it") from None
    return data


def voxel_problems(data: np.ndarray, orientation: np.ndarray, limits: Limits) -> Iterator[Defect]:
    """Yield what is wrong with values; under the policy `zero`, set those that are not finite to 0."""
    if not np.isfinite([data.min(), data.max()]).all():
        bad = ~np.isfinite(data)
        fatal = limits.nan == "error"
        what = f"has {int(bad.sum()):,} voxels that are NaN or infinite, the first at [{_first(bad, orientation)}]"
        yield Defect(
            what, 'Repair it, or set data.nan = "zero"' if fatal else "They were set to 0", fatal
        )
        if fatal:
            return
        data[bad] = 0
    low, high = float(data.min()), float(data.max())
    if max(-low, high) > MAX_ABS:
        yield Defect(
            f"has values from {low:.4g} to {high:.4g}, beyond {MAX_ABS:,.0f}", "Rescale it"
        )
    if limits.mask:
        yield from _label_problems(data)
    elif low == high:
        yield Defect(f"is constant, every voxel is {low:.4g}", "Leave this patient out")


def _first(bad: np.ndarray, orientation: np.ndarray) -> str:
    """Return the indices of the first bad voxel as the file counts them."""
    axes, directions = orientation.T.astype(int)
    stored = bad.transpose(axes)[tuple(slice(None, None, direction) for direction in directions)]
    return ", ".join(
        str(int(index)) for index in np.unravel_index(int(stored.argmax()), stored.shape)
    )


def _label_problems(data: np.ndarray) -> Iterator[Defect]:
    distance = np.rint(data)
    with np.errstate(invalid="ignore"):  # infinity minus infinity
        np.subtract(data, distance, out=distance)
    np.abs(distance, out=distance)
    worst = np.unravel_index(int(distance.argmax()), data.shape)
    if not distance[worst] <= LABEL_TOLERANCE:  # NaN too
        yield Defect(
            f"is not a label image, it holds {data[worst]:.6g}",
            "Give a mask of whole numbers from 0",
        )
    elif (low := float(data.min())) < -LABEL_TOLERANCE:
        yield Defect(
            f"is not a label image, it holds {low:.6g}", "Give a mask of whole numbers from 0"
        )


def label_counts(data: np.ndarray, most: int) -> dict[int, int]:
    if (
        data.min() < -LABEL_TOLERANCE
        or data.max() > most + LABEL_TOLERANCE
        or any(_label_problems(data))
    ):
        return {}
    counts = np.bincount(np.rint(data).astype(np.uint16).ravel("K"))
    return {label: int(counts[label]) for label in np.flatnonzero(counts).tolist()}
