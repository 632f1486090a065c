"""Read one file of a dataset. What takes long to import is imported here, and this only where a
file is read.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np
from scipy import ndimage

from medgen.data.scans import likeness
from medgen.data.scans.finding import Finding, Job
from medgen.data.scans.nifti import gate
from medgen.data.scans.nifti.gate import Volume
from medgen.data.store.foreground.detect import detect
from medgen.data.store.preprocess import binary, flat, window
from medgen.errors import Problem


def examine(job: Job) -> Finding:
    """Read one file."""
    report, volume = gate.examine(
        job.path, job.settings.max_voxels, job.settings.nan, mask=bool(job.masks)
    )
    faults = list(report.faults)
    lesions: dict[str, Sequence[tuple[int, int]]] = {}
    sketch = None
    background = ""
    if volume is not None:
        if job.masks:
            lesions = {name: _parts(volume.data, labels) for name, labels in job.masks.items()}
        else:
            inside, background = detect(volume.data)
            faults += _contrast(job, volume, inside)
            sketch = None if faults else likeness.sketch(volume.data, inside, volume.affine)
    return Finding(
        [(fault.what, fault.fix) for fault in faults],
        [(fault.what, fault.fix) for fault in report.warnings],
        report.shape,
        report.spacing,
        report.orientation,
        [] if volume is None else volume.affine.tolist(),
        "" if volume is None or not np.ptp(volume.data) else report.content,
        [*report.labels.items()],
        lesions,
        likeness.to_text(sketch),
        background,
    )


def _contrast(job: Job, volume: Volume, inside: np.ndarray) -> Iterator[Problem]:
    """Yield what is wrong with a head without contrast, unless medgen wrote it."""
    lower, upper = job.settings.lower, job.settings.upper
    low, high = window(volume.data, inside, lower, upper)
    if not (volume.written or low < high):
        yield flat(job.path, low, lower, upper)


def _parts(data: np.ndarray, labels: tuple[int, ...]) -> list[tuple[int, int]]:
    parts, count = ndimage.label(binary(data, labels), np.ones((3, 3, 3)))
    sizes = np.bincount(parts.ravel(), minlength=count + 1)[1:]
    return sorted(Counter(sizes.tolist()).items())
