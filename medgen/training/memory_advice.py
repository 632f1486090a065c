"""Out of memory: say what would fit without changing the result."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from medgen.errors import (
    OutOfMemoryError,
    Problem,
    continue_command,
    is_out_of_memory,
)
from medgen.run.run import TrainingRun
from medgen.training.phases import PhasedRun


@contextmanager
def explained_memory(run: TrainingRun | PhasedRun, kept: bool = True) -> Iterator[None]:
    """Explain a lack of memory, which is no bug, by what would fit without changing the result."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise OutOfMemoryError(_too_large(run, str(error), kept)) from error
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        raise OutOfMemoryError(_too_large(run, str(error), kept)) from error


def _too_large(work: TrainingRun | PhasedRun, text: str, kept: bool) -> Problem:
    run = work.current
    if run is None:  # it was no step that took too much
        return Problem(
            work.dir, f"out of memory ({text.splitlines()[0]})", "Use a smaller network or image"
        )
    change, advice = _smaller(run)
    where = f"the pre-flight check of {run.trial.what}" if run.trial else f"step {run.step + 1}"
    numbers = re.findall(r"[\d.]+ [KMG]iB|\d+ bytes", text)
    tried = f", tried {numbers[0]}" if numbers else ""
    free = re.search(r"([\d.]+ [KMG]iB) is free", text)
    said = f"out of memory at {where}{tried}{f', {free[1]} free' if free else ''}"
    if not kept:
        return Problem("training.batch_size", said, advice)
    if run.trial and not change:
        return Problem(run.dir, said, advice)
    again = continue_command(work.dir) + (f" {change}" if change else "")
    return Problem(run.dir, said, f"{advice}, then continue", command=again)


def _smaller(run: TrainingRun) -> tuple[str, str]:
    """Return a change that needs less memory and changes no result, if any, and the advice."""
    if run.trial and run.trial.what != "training":
        change = run.trial.smaller
        return (
            change,
            f"Use {change}"
            if change
            else "Use a smaller training.batch_size, network or image in a new run",
        )
    size, parts = run.recipe.training.batch_size, run.recipe.training.accumulate
    more = next((n for n in range(parts + 1, size + 1) if size % n == 0), None)
    ways = [(f"training.accumulate={more}", "same batch, less memory")] if more else []
    if not run.recipe.network.checkpointing:  # the network has this setting, and it is off
        ways.append(
            (f"network.{run.recipe.names['network']}.checkpointing=true", "same result, slower")
        )
    if not ways:
        return "", "Use a smaller network or image"
    return ways[0][0], "Use " + " or ".join(f"{change} ({what})" for change, what in ways)
