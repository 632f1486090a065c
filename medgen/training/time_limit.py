"""The time by which a run must have saved, and what a run that stopped early says."""

from __future__ import annotations

import math
import os
import time
from pathlib import Path

from medgen.api.tables import TrainingSettings
from medgen.data.store import cache_folder
from medgen.errors import (
    Problem,
    RecipeError,
    continue_command,
)
from medgen.run.run import TrainingRun
from medgen.run.stopping import REQUEST, TIME_LIMIT
from medgen.training.phases import PhasedRun, stopped


def unfinished(work: TrainingRun | PhasedRun, began: float, at: str) -> Path:
    """Return the folder, where the caller asked for no more; else raises what makes a scheduler
    continue, or not try again.
    """
    reason = work.stopping or ""
    if reason.startswith(REQUEST):
        return work.dir
    if reason == TIME_LIMIT and not work.has_advanced and not cache_folder.has_built(began):
        raise RecipeError(_too_short(work, began))
    raise stopped(work.dir, work.stopping, at)


def _too_short(work: TrainingRun | PhasedRun, began: float) -> Problem:
    """Return a run that would stop at the same step whenever it is continued."""
    own, took = work.recipe.training.time_limit, f"starting took {time.time() - began:.0f} s"
    if own and began + 60 * own == work.deadline:
        where, said, fix = "training.time_limit", f"got {own:g} minutes, {took}", "Raise it"
    else:
        where, said, fix = "SLURM_JOB_END_TIME", took, "Ask for more time, as slurm.hours"
    what = f"{said}, and no step fits into what is left"
    return Problem(where, what, f"{fix}, then continue", command=continue_command(work.dir))


def deadline(training: TrainingSettings, began: float) -> float:
    """Return the time by which a process that began then must have saved; SLURM tells its own limit
    in seconds since 1970.
    """
    own = began + 60 * training.time_limit if training.time_limit else math.inf
    slurm = os.environ.get("SLURM_JOB_END_TIME", "")
    return min(own, float(slurm) if slurm.isascii() and slurm.isdigit() else math.inf)
