"""Poisson blending (Perez, Gangnet, Blake 2003, "Poisson Image Editing"), of slices and of volumes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import ndimage, sparse

Array = np.ndarray[Any, Any]

CLOSE = 1e-6
"""Residual, relative to the right side, at which the solution counts as found."""
MOST = 2000
"""Steps after which it is taken as it is; a lesion of 5 cm takes about 200."""


def blend(
    host: Array,
    donor: Array,
    region: Array,
    spacing: Sequence[float] | None = None,
    kept: Array | None = None,
    head: Array | None = None,
) -> Array:
    """Paint a region with the donor's details, on the host's level all along its edge.

    host, donor: float32 `[channel, *space]`, on one grid. region: bool `[*space]`. spacing: mm
    along each axis, by which neighbours count; None: alike. kept: bool `[*space]`, what of the
    donor counts; the rest, such as air and other lesions, is taken as what is nearest of it, as a
    step to it would count as a detail. head: bool `[*space]`, what of the host counts; air beside a
    region would pull it down.

    Solves equation 7 for the gradient of the donor (equation 11), as the donor plus the smoothest
    field that makes up for the difference at the edge (equation 5). At an edge of the array or of
    the head the field has no slope. Outside the region the host's values are given back.
    """
    made = host.astype(np.float32)
    if not region.any():
        return made
    mm = [1.0] * region.ndim if spacing is None else spacing
    if kept is not None:
        nearest = ndimage.distance_transform_edt(
            ~kept, mm, return_distances=False, return_indices=True
        )
        donor = np.stack([image[tuple(nearest)] for image in donor])
    difference = (host - donor).reshape(len(host), -1).astype(np.float64)
    laplacian, edge = _equations(region, mm, np.ones_like(region) if head is None else head)
    field = [_solved(laplacian, edge @ each) for each in difference]
    made[:, region] = donor[:, region] + np.stack(field)
    return made


def _equations(region: Array, spacing: Sequence[float], head: Array) -> tuple[Any, Any]:
    """Return the left side of equation 7, `[inside, inside]`, and the weights of its known
    neighbours in the head, `[inside, all]`.
    """
    places = np.flatnonzero(region)
    number = np.full(region.size, -1)
    number[places] = np.arange(len(places))
    near = min(spacing)
    pairs = [_neighbours(region.shape, axis, (near / mm) ** 2) for axis, mm in enumerate(spacing)]
    first, second, weight = (np.concatenate(each) for each in zip(*pairs, strict=True))
    here, there = np.concatenate([first, second]), np.concatenate([second, first])
    weight = np.concatenate([weight, weight])
    mine = (number[here] >= 0) & (region | head).ravel()[there]
    here, there, weight = number[here[mine]], there[mine], weight[mine]
    both = number[there] >= 0
    count = len(places)
    own = np.bincount(here, weight, minlength=count)
    rows, columns = (
        np.concatenate([here[both], np.arange(count)]),
        np.concatenate([number[there[both]], np.arange(count)]),
    )
    values = np.concatenate([-weight[both], own])
    laplacian = sparse.csr_array((values, (rows, columns)), shape=(count, count))
    known = (weight[~both], (here[~both], there[~both]))
    return laplacian, sparse.csr_array(known, shape=(count, region.size))


def _neighbours(shape: tuple[int, ...], axis: int, weight: float) -> tuple[Array, Array, Array]:
    """Places that touch along an axis, each with the next one, and their weight."""
    places = np.moveaxis(np.arange(int(np.prod(shape))).reshape(shape), axis, 0)
    first = places[:-1].ravel()
    return first, places[1:].ravel(), np.full(len(first), weight)


def _solved(matrix: Any, right: Array) -> Array:
    """Solve a symmetric positive system by conjugate gradients, preconditioned by its diagonal.

    Written out, as SciPy's sums are BLAS's, which depend on the number of threads in the last bit.
    """
    scale = 1 / np.maximum(matrix.diagonal(), 1e-12)
    found, rest = np.zeros_like(right), right.copy()
    step = scaled = scale * rest
    energy, enough = np.sum(rest * scaled), CLOSE**2 * np.sum(right**2)
    for _ in range(MOST):
        if np.sum(rest**2) <= enough:
            break
        image = matrix @ step
        length = energy / np.sum(step * image)
        found, rest = found + length * step, rest - length * image
        scaled = scale * rest
        before, energy = energy, np.sum(rest * scaled)
        step = scaled + (energy / before) * step
    return found
