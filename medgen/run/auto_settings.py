"""Replace `auto` in a recipe: decided once, when a run begins, and kept when the run is resumed."""

from __future__ import annotations

import functools
import re
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import attrs
import torch

from medgen.api.recipe import Recipe
from medgen.ranks import collectives
from medgen.system.console import say, warn

AUTO = "auto"
KEPT = "kept"
"""Marks a resumed run in `tell`, whose recipe asks nothing."""
NAMES = ("precision", "compile")
"""Settings of [training] that may be `auto` and are decided here."""
CPU = Path("/proc/cpuinfo")
UNITS = {"avx512_bf16", "amx_bf16", "bf16"}
"""Linux's flags for bf16 units of a CPU: AVX-512's, AMX's and ARM's."""
TURNS = 5
"""Of a trial; the fastest of each precision count, as other work only slows them."""


def settle(recipe: Recipe, device: torch.device) -> Recipe:
    """Replace `precision = "auto"` with bf16 if the device is faster in it, else fp32. Collective.

    `compile = "auto"` is decided by a trial, see `compiling`.
    """
    if recipe.training.precision != AUTO:
        return recipe
    return fill(
        recipe,
        {"precision": collectives.on_rank_zero(lambda: "bf16" if gains(device) else "fp32")},
    )


def fill(recipe: Recipe, chosen: Mapping[str, Any]) -> Recipe:
    """Replace `auto` in a recipe with earlier decisions."""
    given = {name: getattr(recipe.training, name) for name in NAMES}
    filled = {
        name: chosen[name] for name, value in given.items() if value == AUTO and name in chosen
    }
    return (
        attrs.evolve(recipe, training=attrs.evolve(recipe.training, **filled)) if filled else recipe
    )


def of(recipe: Recipe) -> dict[str, Any]:
    """Return a recipe's decisions, for `fill`."""
    return {name: getattr(recipe.training, name) for name in NAMES}


def tell(recipe: Recipe, device: torch.device, asked: str) -> None:
    """Print the device and precision of a run, and the reason. asked: the recipe's value, or KEPT."""
    precision = recipe.training.precision
    why = (
        "as the run began"
        if asked == KEPT
        else f"as {_units(device)}"
        if asked == AUTO
        else "as training.precision says"
    )
    say(f"device   {device}, in {precision}, {why}")
    if precision == "bf16" and not gains(device):
        what = (
            "kept, as the run began with it"
            if asked == KEPT
            else "use training.precision=auto or fp32"
        )
        emulated = "" if has_bf16(device) else " and emulates it"
        warn(f"training.precision: bf16 is slow here, as {_units(device)}{emulated}; {what}.")


def _units(device: torch.device) -> str:
    name = "GPU" if device.type == "cuda" else "CPU"
    if not has_bf16(device):
        return f"the {name} has no units for bf16"
    slow = "" if gains(device) else " that are slower than those for fp32"
    return f"the {name} has units for bf16{slow}"


def gains(device: torch.device) -> bool:
    """Return True if a device has units for bf16 that are faster than those for fp32.

    A GPU's always are. Of CPUs with AVX-512's, AMD's halve the time of a step and Intel's without AMX
    take 1.5 times as long, so they are tried.
    """
    return has_bf16(device) and (device.type == "cuda" or faster_on_cpu())


@functools.cache
def faster_on_cpu() -> bool:
    """Return True if a convolution and its gradient take less time in bf16 than in fp32, here.

    Draws no random numbers: a run's own must not depend on the machine.
    """
    weight = torch.ones(64, 64, 3, 3, requires_grad=True)
    x = torch.ones(4, 64, 32, 32, requires_grad=True)
    took: dict[bool, list[float]] = {False: [], True: []}
    for _ in range(1 + TURNS):
        for bf16, times in took.items():
            began = time.perf_counter()
            with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                made = torch.nn.functional.conv2d(x, weight, padding=1)
            torch.autograd.grad(made.float().sum(), (weight, x))
            times.append(time.perf_counter() - began)
    # the first turn builds what the others use
    return min(took[True][1:]) < min(took[False][1:])


def has_bf16(device: torch.device) -> bool:
    """Return True if a device computes in bf16 without emulation."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    flags = ""
    with suppress(OSError):  # not on Linux
        flags = CPU.read_text()
    listed = re.search(r"^(?:flags|Features)\s*:(.*)$", flags, re.MULTILINE)
    return listed is not None and not UNITS.isdisjoint(listed[1].split())
