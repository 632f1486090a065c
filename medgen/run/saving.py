"""Write the state of a run to a checkpoint, and restore it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from medgen.api.interfaces import Callback
from medgen.config.recipe import public_toml
from medgen.data.store import slice_numbers
from medgen.errors import CheckpointError, Problem, StorageError
from medgen.run import checkpoint
from medgen.run.versions import versions
from medgen.run.weights import copy_into, load_into, own_state
from medgen.system.console import warn

if TYPE_CHECKING:
    from medgen.run.state import RunState

RETRY_AFTER = (1.0, 5.0, 20.0)
"""Seconds before each retry of a save: quotas are raised and file systems come back."""


def state_of(run: RunState) -> dict[str, Any]:
    """Return the whole state as plain values and tensors, without paths and patient ids."""
    return {
        "recipe": public_toml(run.recipe),
        "network": run.network.state_dict(),
        "turns": {name: dict(own_state(turn, run.network)) for name, turn in run.turns.items()},
        "averaged": None if run.averaged is None else run.averaged.state_dict(),
        "space": dict(run.space.state_dict()),
        "optimizers": {name: optimizer.state_dict() for name, optimizer in run.optimizers.items()},
        "callbacks": {name: each.state_dict() for name, each in _with_state(run)},
        "position": run.progress.state_dict(),
        "data": _data(run),
        "channels_last": run.channels_last,
        "journal": run.metrics_file.length(),
        "seconds": run.seconds,
        "versions": versions(),
    }


def restore(run: RunState, state: Mapping[str, Any], source: Path) -> None:
    """Restore what `state_of` returned.

    Raises CheckpointError that names `source` if anything does not fit.
    """
    try:
        _restore(run, state, source)
    except KeyError as error:
        raise CheckpointError(
            Problem(source, f"the key {error} is missing", "Resume with what wrote it")
        ) from error


def write(run: RunState, path: Path) -> None:
    """Write a checkpoint.

    A failed write is retried, unless no step was trained that could be lost.
    """
    previous = run.dir / "prev.pt" if path.name == "latest.pt" else None
    for wait in RETRY_AFTER if run.progress.step else ():
        try:
            return checkpoint.save(state_of(run), path, previous)
        except StorageError as error:
            warn(f"{error.problems[0].subject}. Trying again in {wait:.0f} s.")
            time.sleep(wait)
    return checkpoint.save(state_of(run), path, previous)


def _restore(run: RunState, state: Mapping[str, Any], source: Path) -> None:
    stateful = dict(_with_state(run))
    if set(state["callbacks"]) != set(stateful):
        given, wanted = sorted(state["callbacks"]), sorted(stateful)
        raise CheckpointError(
            Problem(
                source,
                f"has the state of callbacks {given}, the recipe has {wanted}",
                "Resume with the run's own recipe",
            )
        )
    load_into(run.network, state["network"], source)
    for name, turn in run.turns.items():
        copy_into(own_state(turn, run.network), state["turns"][name], source)
    if run.averaged is not None:
        load_into(run.averaged, state["averaged"], source)
    run.space.load_state_dict(state["space"])
    for name, each in run.optimizers.items():
        each.load_state_dict(state["optimizers"][name])
    for name, callback in stateful.items():
        callback.load_state_dict(state["callbacks"][name])
    run.progress.load_state_dict(state["position"])
    run.continue_clock(state["seconds"])
    if state["data"]["fingerprint"] != run.store.fingerprint:  # accepted by the caller
        run.progress.recount_epochs()


def _data(run: RunState) -> dict[str, Any]:
    sizes = {"train": run.train.size, "val": run.val.size}
    patients = {split: run.store.patients(split) for split in sizes}
    about: dict[str, Any] = {
        "fingerprint": run.store.fingerprint,
        "spacing": run.store.grid.spacing[0],
        "samples": sizes,
        "patients": patients,
    }
    if run.mode.scalars:
        joint = slice_numbers.joint(run.store, run.mode.scalars, run.train.rows)
        about["numbers"] = {name: torch.from_numpy(each) for name, each in joint.items()}
    return about


def _with_state(run: RunState) -> list[tuple[str, Callback]]:
    return [
        (name, each)
        for name, each in run.callbacks.items()
        if type(each).state_dict is not Callback.state_dict
    ]
