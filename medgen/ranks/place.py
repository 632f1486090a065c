"""Find a process's rank among those that train together, and the process's device."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import NamedTuple

import torch

from medgen.errors import Problem, RecipeError

NOTES = "MEDGEN_NOTES"
"""Variable with the folder in which workers leave notes for the medgen process that started them.
"""


PARENT = "pid"
"""Name of the note with the pid of that process."""


class Place(NamedTuple):
    """Hold rank and size of the group, and `local`, the number of the process on the node."""

    rank: int
    size: int
    local: int


def place(environment: Mapping[str, str] = os.environ) -> Place | None:
    """Read this process's place from the variables of `torchrun` or `srun`; None without them.

    Raises RecipeError.
    """
    # the step's variables: a batch script has a rank of its own, but no step
    step = number(environment, "SLURM_STEP_NUM_TASKS", 1) > 1
    if environment.get("RANK") and environment.get("WORLD_SIZE"):
        return _of_torch(environment, step)
    if step:
        return _of_slurm(environment)
    return None


def _of_slurm(environment: Mapping[str, str]) -> Place:
    names = ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID")
    where = Place(*(number(environment, name) for name in names))
    if not (0 <= where.rank < where.size and where.local >= 0):
        said = f"{', '.join(names)}: got {where.rank}, {where.size} and {where.local}"
        raise RecipeError(
            Problem(
                "",
                f"{said}, expected a rank from 0 and below the size",
                "Unset them if no srun set them",
            )
        )
    return where


def _of_torch(environment: Mapping[str, str], step: bool) -> Place:
    """Read torch's variables, and refuse left-over ones.

    step: True if `srun` says where ranks meet.
    """
    where = Place(number(environment, "RANK"), number(environment, "WORLD_SIZE"), 0)
    said = f"RANK, WORLD_SIZE: got {where.rank} and {where.size}"
    if not 0 <= where.rank < where.size:
        raise RecipeError(
            Problem(
                "",
                f"{said}, expected a rank from 0 and below the size",
                "Unset both, or use --devices",
            )
        )
    lacking = [name for name in ("MASTER_ADDR", "MASTER_PORT") if not environment.get(name)]
    if lacking and where.size > 1 and not step:
        what = f"{said}, but no {' and no '.join(lacking)}, so that the processes could not meet"
        raise RecipeError(
            Problem(
                "",
                what,
                "Unset both if they are left over, or start with torchrun, srun or --devices",
            )
        )
    local = number(environment, "LOCAL_RANK", where.rank)
    if local < 0:
        raise RecipeError(
            Problem(
                "LOCAL_RANK", f"got {local}, expected an integer from 0", "Unset it, or correct it"
            )
        )
    return where._replace(local=local)


def number(environment: Mapping[str, str], name: str, default: int = 0) -> int:
    """Read a variable as an integer; empty counts as unset. Raises RecipeError."""
    text = environment.get(name) or str(default)
    try:
        return int(text)
    except ValueError:
        raise RecipeError(
            Problem(name, f"got {text!r}, expected an integer", "Unset it, or correct it")
        ) from None


def check_devices(wanted: int, asked_by: str = "training.devices") -> None:
    """Raise RecipeError if this node has GPUs, but fewer than wanted."""
    if 0 < torch.cuda.device_count() < wanted:
        raise RecipeError(
            Problem(
                asked_by,
                f"got {wanted}, this node has {torch.cuda.device_count()}",
                "Use at most as many",
            )
        )


def take_device(where: Place) -> None:
    """Select this process's GPU: the visible GPU of number `local`, or the only one if the cluster
    binds one each.
    """
    torch.cuda.set_device(where.local % torch.cuda.device_count())
