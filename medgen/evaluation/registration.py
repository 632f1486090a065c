"""Register slices: rotation, flip, zoom and shift, by their profiles and then by their detail.

Transforms are `(matrix [n, 2, 2], offset [n, 2])`: a place of the reference, px from its middle as
(row, column), to one of the moving slice. Refinement is the inverse compositional algorithm of
Baker and Matthews (IJCV 2004).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from medgen.evaluation.head_views import ANGLES, Views

MOST_ZOOM = 1.3
"""How much larger or smaller a copy may be. Without a limit the smooth tops of all heads become
alike.
"""
OVERLAP = 0.6
"""Share of the reference's inside that the moving slice must cover for its detail to count."""


class Turn(NamedTuple):
    """How a slice is best turned onto others, each `[n, k]`: the profiles' correlation, radians,
    flipped or not.
    """

    score: Tensor
    angle: Tensor
    flipped: Tensor


class Placement(NamedTuple):
    """Transforms of `n` pairs: `[n, 2, 2]` and `[n, 2]`, px of SIDE."""

    matrix: Tensor
    offset: Tensor


def turns(moving: Tensor, references: Tensor) -> Turn:
    """Return the best angle and flip. moving: profiles `[n, r, f]`; references: `[n, k, r, f]`.

    The correlation over the angle is the inverse transform of the product of the spectra.
    """
    plain = torch.einsum("nrf,nkrf->nkf", moving, references.conj())
    flipped = torch.einsum("nrf,nkrf->nkf", moving, references)
    both = torch.stack([plain, flipped], 2)
    correlation = torch.fft.irfft(both, n=ANGLES, dim=-1, norm="forward")
    score, place = correlation.flatten(2).max(2)
    return Turn(score, (place % ANGLES) * (2 * math.pi / ANGLES), place >= ANGLES)


def begin(moving: Views, reference: Views, angle: Tensor, flipped: Tensor) -> Placement:
    """Return the transform that the poses and a turn `[n]` give."""
    zoom = (moving.radius / reference.radius).clamp(1 / MOST_ZOOM, MOST_ZOOM).view(-1, 1, 1)
    mirror = torch.where(flipped, -1.0, 1.0)
    cos, sin = torch.cos(angle), torch.sin(angle)
    matrix = (
        torch.stack(
            [torch.stack([cos * mirror, sin], -1), torch.stack([-sin * mirror, cos], -1)], -2
        )
        * zoom
    )
    return Placement(matrix, moving.centre - (matrix @ reference.centre[..., None])[..., 0])


def refine(
    moving: Tensor, reference: Tensor, inside: Tensor, at: Placement, steps: int
) -> Placement:
    """Move, turn and zoom so that details `[n, 1, side, side]` agree inside the reference's head,
    in SIDE's px.
    """
    scale = inside.shape[-1] / reference.shape[-1]
    weight = F.avg_pool2d(inside.float(), int(scale)) if scale > 1 else inside.float()
    matrix, offset = at.matrix, at.offset / scale
    steepest = _steepest(reference) * weight
    flat = steepest.flatten(2)
    hessian = flat @ flat.transpose(1, 2)
    damped = hessian + torch.diag_embed(torch.diagonal(hessian, dim1=1, dim2=2) * 1e-3 + 1e-3)
    inverse = torch.linalg.inv(damped)
    for _ in range(steps):
        residual = (warped(moving, Placement(matrix, offset)) - reference).flatten(1)
        matrix, offset = _composed(matrix, offset, (inverse @ (flat @ residual[..., None]))[..., 0])
    return Placement(matrix, offset * scale)


def _composed(matrix: Tensor, offset: Tensor, step: Tensor) -> tuple[Tensor, Tensor]:
    """Return the transform after the inverse of a small step `[n, (zoom, angle, row, column)]`."""
    zoom, angle, shift = (
        step[:, 0].clamp(-0.05, 0.05),
        step[:, 1].clamp(-0.1, 0.1),
        step[:, 2:].clamp(-1.5, 1.5),
    )
    cos, sin = torch.cos(angle), torch.sin(angle)
    inverse = torch.stack([torch.stack([cos, -sin], -1), torch.stack([sin, cos], -1)], -2) / (
        1 + zoom
    ).view(-1, 1, 1)
    matrix = matrix @ inverse
    return matrix, offset - (matrix @ shift[..., None])[..., 0]


def _steepest(reference: Tensor) -> Tensor:
    """Return how the reference changes with zoom, angle, row and column, `[n, 4, side, side]`."""
    rows, columns = torch.zeros_like(reference), torch.zeros_like(reference)
    rows[..., 1:-1, :] = (reference[..., 2:, :] - reference[..., :-2, :]) / 2
    columns[..., 1:-1] = (reference[..., 2:] - reference[..., :-2]) / 2
    row, column = _square(reference.shape[-1])
    return torch.cat(
        [rows * row + columns * column, rows * column - columns * row, rows, columns], 1
    )


def warped(moving: Tensor, at: Placement) -> Tensor:
    """Return the moving slices `[n, c, side, side]` as they lie on the references; the transform is
    in their own px.
    """
    side = moving.shape[-1]
    along = (torch.arange(side).float() - (side - 1) / 2) / (side / 2)
    matrix, offset = at.matrix[:, :, :, None], at.offset / (side / 2)
    grid = torch.empty(len(moving), side, side, 2)
    for axis in range(
        2
    ):  # sums of a row and a column: a product with the matrix for each px takes five times as long
        part = matrix[:, axis, 1] * along
        torch.add(
            (matrix[:, axis, 0] * along + offset[:, axis, None])[:, :, None],
            part[:, None],
            out=grid[..., 1 - axis],
        )
    return F.grid_sample(moving, grid, align_corners=False)


def likeness(moving: Views, reference: Views, at: Placement, level: str = "fine") -> Tensor:
    """Correlate details inside both heads, `[n]`, -1 to 1; -1 for little overlap or too much zoom."""
    detail = getattr(reference, level).float()
    scale = reference.inside.shape[-1] / detail.shape[-1]
    inside = (
        (F.avg_pool2d(reference.inside.float(), int(scale)) > 0.5)
        if scale > 1
        else reference.inside
    )
    covered = (
        F.avg_pool2d(moving.inside.float(), int(scale)) if scale > 1 else moving.inside.float()
    )
    both = torch.cat([getattr(moving, level).float(), covered], 1)
    on = warped(both, Placement(at.matrix, at.offset / scale))
    weight = (inside & (on[:, 1:] > 0.5)).flatten(1).float()
    found = _correlation(on[:, 0].flatten(1), detail.flatten(1), weight)
    zoom = torch.linalg.det(at.matrix).abs().sqrt()
    fits = (
        (weight.sum(1) > OVERLAP * inside.flatten(1).sum(1))
        & (zoom < MOST_ZOOM)
        & (zoom > 1 / MOST_ZOOM)
    )
    return torch.where(fits, found, -torch.ones_like(found))


def _correlation(one: Tensor, other: Tensor, weight: Tensor) -> Tensor:
    """Return Pearson's correlation with weights, each `[n, px]`."""
    total = weight.sum(1, keepdim=True).clamp_min(1e-6)
    one = one - (one * weight).sum(1, keepdim=True) / total
    other = other - (other * weight).sum(1, keepdim=True) / total
    norm = ((one * one * weight).sum(1) * (other * other * weight).sum(1)).sqrt()
    return (one * other * weight).sum(1) / norm.clamp_min(1e-9)


def _square(side: int) -> tuple[Tensor, Tensor]:
    """Return row and column of each px from the middle, `[side, side]` each."""
    at = torch.arange(side).float() - (side - 1) / 2
    row, column = torch.meshgrid(at, at, indexing="ij")
    return row, column
