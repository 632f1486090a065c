"""What a recipe will cost, from a step or two of a run that is thrown away."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import NamedTuple

import torch

from medgen.api.tables import TrainingSettings
from medgen.run.run import TrainingRun
from medgen.training import device_memory, gpu_advice
from medgen.training.throughput import finish, flops_per_image, peak
from medgen.training.trainer import Trainer

LONG = 60.0
"""Seconds that a step may take on a CPU, as far as one image tells, to be measured as a whole."""
MEASURED = 1.0
"""Seconds over which steps are measured; a step that takes longer is measured once."""
SHARE = 0.95
"""Of the memory that is free: an allocator leaves gaps."""


class Measured(NamedTuple):
    """A step of so many images: seconds, and bytes at its peak."""

    images: int
    seconds: float
    memory: float


def lines(run: TrainingRun) -> Iterator[str]:
    """Yield lines: what fits into GPUs, FLOPs of an image, a step, its memory, the whole run, the
    fitting batch size.

    The run is used up. Of several devices, what one of them will have to do is measured.
    """
    training, steps = run.recipe.training, run.total_steps
    yield from gpu_advice.lines(run)
    began = time.perf_counter()
    flops = flops_per_image(run)
    one = time.perf_counter() - began
    yield f"image    {flops / 1e9:.4g} GFLOP, forward and backward"
    images = training.batch_size // training.devices
    if run.device.type == "cpu" and one * images > LONG:
        yield from _from_few(run, training, images, one)
        return
    half = images // 2 // training.accumulate * training.accumulate
    other = (
        measure(run, half) if half else None
    )  # first, as a process that has grown gives little back
    step = measure(run, images)
    yield _step(run, step, flops)
    yield f"memory   {step.memory / 1e9:.3g} GB at most" + ", the whole process" * (
        run.device.type == "cpu"
    )
    yield _total(steps, step.seconds)
    yield from _fits(run, training, step, other or _measure_more(run, 2 * images))


def _from_few(
    run: TrainingRun, training: TrainingSettings, images: int, one: float
) -> Iterator[str]:
    """Yield what a step that would take long to try on a CPU may cost; one: seconds that an image
    took, the first time.
    """
    few = (
        min(images // 4, int(LONG / (6 * one))) // training.accumulate * training.accumulate
    )  # tried six times in all
    why = "as it would take long to try on a CPU"
    if not few:
        yield f"step     about {one * images:.0f} s at most, from one image, {why}"
        yield _total(run.total_steps, one * images)
        return
    small, step = measure(run, few), measure(run, 2 * few)
    seconds = step.seconds * images / step.images
    memory = step.memory + per_image(step, small) * (images - step.images)
    yield f"step     about {seconds:.0f} s for {images} images, from one of {step.images}, {why}"
    yield f"memory   about {memory / 1e9:.3g} GB, the whole process"
    yield _total(run.total_steps, seconds)
    yield from _fits(run, training, step, small)


def measure(run: TrainingRun, images: int) -> Measured:
    """Train a step of so many images to warm up, and then measure; for a second, if they are short."""
    torch.compiler.reset()  # else it would be compiled for images of any number, which takes other memory
    trainer, count = Trainer(run, batch_size=images), 0
    trainer.step()
    finish(run.device)
    device_memory.forget(run.device)
    began = time.perf_counter()
    while not count or time.perf_counter() - began < MEASURED:
        trainer.step()
        finish(run.device)
        count += 1
    return Measured(images, (time.perf_counter() - began) / count, device_memory.peak(run.device))


def _measure_more(run: TrainingRun, images: int) -> Measured | None:
    """Measure so many; None if they do not fit."""
    try:
        return measure(run, images)
    except torch.OutOfMemoryError:
        return None


def per_image(one: Measured, other: Measured) -> float:
    """Return bytes by which an image more raises the peak."""
    return (one.memory - other.memory) / (one.images - other.images)


def largest(one: Measured, other: Measured, free: float) -> int:
    """Return images for which a straight line through two measured steps reaches `free` bytes; 0 if
    it does not rise.
    """
    each = per_image(one, other)
    return max(0, int((free - one.memory) / each) + one.images) if each > 0 else 0


def _step(run: TrainingRun, step: Measured, flops: float) -> str:
    training, speed = run.recipe.training, step.images / step.seconds
    limit = peak(run.device, training.precision)
    how = "compiled" if training.compile else "not compiled"
    where = f" on each of {training.devices} devices" if training.devices > 1 else ""
    return (
        f"step     {step.seconds:.3g} s for {step.images} images{where}, {how}: {speed:.4g} images/s, "
        f"{speed * flops / limit:.0%} of the peak of {limit / 1e12:.3g} TFLOP/s"
    )


def _total(steps: int, seconds: float) -> str:
    return f"total    {steps} steps take {steps * seconds / 3600:.2f} hours, without validation and previews"


def _fits(
    run: TrainingRun, training: TrainingSettings, step: Measured, other: Measured | None
) -> Iterator[str]:
    """Yield from two steps, if one can tell from them. The processes of a CPU share its memory."""
    room, sharing = (
        device_memory.room(run.device),
        training.devices if run.device.type == "cpu" else 1,
    )
    if room is None or other is None:
        return
    images = largest(step, other, SHARE * room / sharing)
    images -= images % training.accumulate
    if images:
        have = f"{room / 1e9:.3g} GB that " + ("they" if sharing > 1 else "it") + " may have"
        yield f"fits     batch_size = {images * training.devices}, about, in the {have}"
