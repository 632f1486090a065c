"""Muon: steps along gradients whose matrices are made orthogonal (Jordan et al. 2024)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

LEAST = 32
"""Channels that a layer must read and write for Muon to step its weights. The first and the last layer of
a network read and write samples, which have fewer; AdamW steps those.
"""
MOMENTUM = 0.95
"""Of the running sum of gradients, with a look ahead as Nesterov's."""
COEFFICIENTS = (3.4445, -4.775, 2.0315)
"""Of the odd polynomial of degree 5 that brings all singular values near 1."""
ITERATIONS = 5
"""Of the polynomial, after which singular values are between 0.7 and 1.2."""
RMS = 0.2
"""Root mean square of a step at learning rate 1, about that of AdamW, so that one rate serves both (Liu
et al. 2025, eq. 4).
"""


class Muon(torch.optim.AdamW):
    """Muon for the weights of layers between features, AdamW for all others.

    Where `found_inf` is not 0, a step changes nothing, as in fused AdamW.
    """

    found_inf: Tensor

    def __init__(self, parameters: Iterable[Tensor], **of_adamw: Any):
        super().__init__(parameters, **of_adamw)
        self.alike: dict[torch.Size, list[Tensor]] = defaultdict(list)
        for parameter in self.param_groups[0]["params"]:
            if is_matrix(parameter):
                self.alike[parameter.shape].append(parameter)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Step the matrices, and take their gradients away, so that AdamW leaves them alone."""
        group = self.param_groups[0]
        for parameters in self.alike.values():
            given = [each for each in parameters if each.grad is not None]
            if given:
                self._step_alike(given, group["lr"], group["weight_decay"])
        super().step(closure)

    def _step_alike(self, parameters: list[Tensor], rate: float, decay: float) -> None:
        """Step matrices of one shape at once, which saves a GPU most of the launches."""
        states = [self._state(each) for each in parameters]
        gradients = torch.stack([each.grad for each in parameters])  # type: ignore[misc]  # none is None
        momenta = torch.stack([each["momentum"] for each in states])
        after = torch.lerp(gradients, momenta, MOMENTUM)
        ahead = torch.lerp(gradients, after, MOMENTUM).flatten(2)
        size = RMS * max(ahead.shape[1:]) ** 0.5
        steps = (size * orthogonal(ahead)).view_as(gradients)
        skip = self.found_inf.bool()
        for parameter, state, step, momentum in zip(parameters, states, steps, after, strict=True):
            changed = parameter * (1 - rate * decay) - rate * step
            parameter.copy_(torch.where(skip, parameter, changed))
            state["momentum"].copy_(torch.where(skip, state["momentum"], momentum))
            parameter.grad = None

    def _state(self, parameter: Tensor) -> dict[str, Tensor]:
        state: dict[str, Tensor] = self.state[parameter]
        if not state:
            state["momentum"] = torch.zeros_like(parameter)
            state["step"] = torch.zeros(())  # unused, but without it AdamW loads no state
        return state


def is_matrix(parameter: Tensor) -> bool:
    """Return True for the weights of a convolution or linear layer between features."""
    return parameter.ndim > 1 and min(parameter.shape[:2]) >= LEAST


def orthogonal(matrices: Tensor) -> Tensor:
    """Return approximately the nearest matrices with orthogonal rows, or columns if these are fewer.

    matrices: `[n, rows, columns]`. Each is multiplied by a polynomial of its Gram matrix. All iterations
    of Jordan et al. (2024) are done on that matrix, which is small where there are many columns.
    """
    if matrices.shape[1] > matrices.shape[2]:
        return orthogonal(matrices.mT).mT
    a, b, c = COEFFICIENTS
    norm = matrices.norm(dim=(1, 2), keepdim=True).clamp_min(1e-12)
    unit = matrices / norm
    gram = unit @ unit.mT
    one = torch.eye(gram.shape[1], device=gram.device, dtype=gram.dtype).expand_as(gram)
    product = one
    for _ in range(ITERATIONS):
        factor = a * one + b * gram + c * gram @ gram
        product, gram = factor @ product, factor @ gram @ factor
    made: Tensor = product @ unit
    return made
