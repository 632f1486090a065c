"""Create, lock and find the folder of a run."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from hashlib import sha256
from pathlib import Path
from typing import Any

import attrs

from medgen.api.recipe import Recipe
from medgen.api.tables import size_text
from medgen.config.recipe import public_toml, to_toml
from medgen.errors import (
    CheckpointError,
    MedgenError,
    Problem,
    RecipeError,
    RunInUseError,
    StoppedError,
    StorageError,
    reason,
)
from medgen.run import auto_settings, checkpoint
from medgen.run.versions import versions
from medgen.system import files, locks
from medgen.system.console import warn

CHECKPOINTS = ("latest.pt", "prev.pt")
"""Files that a run is resumed from: the first undamaged one."""
CHILDREN = "*_state.pt"
"""File of a run made of child runs: the list of finished children."""
ENVIRONMENT = ("SLURM_JOB_ID", "SLURM_ARRAY_TASK_ID", "SLURM_JOB_NUM_NODES", "CUDA_VISIBLE_DEVICES")
"""Environment variables that metadata.json records; others may be private."""


def create(recipe: Recipe) -> Path:
    """Create and return the folder of a new run: `run.dir`, or an unused one below `run.root`."""
    return _make(recipe.run.dir) if recipe.run.dir else _fresh(recipe)


def claim(folder: Path) -> None:
    """Raise RecipeError if the folder holds a run; a run that saved nothing does not count."""
    if has_checkpoint(folder) or _about(folder).get("status", "running") not in (
        "running",
        "failed",
    ):
        raise RecipeError(
            Problem(
                "run.dir",
                f"{folder} holds a run already",
                f"Continue it with --resume {folder}, or choose another folder",
            )
        )


def has_checkpoint(folder: Path) -> bool:
    """Return True if the folder holds a checkpoint or a state of child runs."""
    return any(files.exists(folder / name) for name in CHECKPOINTS) or any(folder.glob(CHILDREN))


def write_recipe(folder: Path, recipe: Recipe) -> None:
    """Write `recipe.toml`: the resolved recipe, with which the run is resumed."""
    files.write(folder / "recipe.toml", to_toml(recipe))


def find_unfinished(recipe: Recipe) -> Path | None:
    """Find the run that `--resume auto` continues: in `run.dir`, else the newest unfinished run of
    an equal recipe.
    """
    if recipe.run.dir:
        return recipe.run.dir if has_checkpoint(recipe.run.dir) else None
    found = sorted(recipe.run.root.glob("**/metadata.json"), key=_changed, reverse=True)
    for folder in (path.parent for path in found):
        try:
            about = _about(folder)
        except PermissionError:  # another user's
            continue
        same = about.get("recipe") == identity(auto_settings.fill(recipe, about))
        if same and about.get("status") != "complete" and has_checkpoint(folder):
            return folder
    return None


def _changed(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except (FileNotFoundError, PermissionError):  # just deleted, or another user's
        return 0.0


def latest_state(folder: Path) -> tuple[dict[str, Any], Path]:
    """Load the newest undamaged checkpoint.

    Raises CheckpointError that names both files if both are damaged.
    """
    latest, previous = (folder / name for name in CHECKPOINTS)
    if not has_checkpoint(folder):
        raise CheckpointError(
            Problem(folder, "no checkpoint to resume", "Drop --resume, or use --resume auto")
        )
    try:
        return checkpoint.load(latest), latest
    except CheckpointError as damaged:
        try:
            state = checkpoint.load(previous)
        except CheckpointError as also:
            raise CheckpointError(*damaged.problems, *also.problems) from also
        warn(f"{damaged.problems[0].subject}. Using prev.pt (step {state['position']['step']}).")
        return state, previous


def identity(recipe: Recipe) -> str:
    """Hash the recipe without paths, devices and compile, which may differ when a run is resumed."""
    alone = attrs.evolve(recipe, training=attrs.evolve(recipe.training, devices=1, compile=False))
    return sha256(public_toml(alone).encode()).hexdigest()[:16]


def write_metadata(folder: Path, status: str, **more: Any) -> None:
    """Write `metadata.json`: status, versions and environment of the run.

    No paths and no patients.
    """
    about = _about(folder) or {"started": _now()}
    about.pop("failure", None)
    environment = {name: os.environ[name] for name in ENVIRONMENT if name in os.environ}
    about |= {
        "status": status,
        "updated": _now(),
        "versions": versions(),
        "environment": environment,
        **more,
    }
    files.write(folder / "metadata.json", json.dumps(about, indent=2) + "\n")


def write_end(folder: Path, error: BaseException, code: int) -> None:
    """Record the end of an unfinished `running` run, `stopped` or `failed`, without naming a file
    or a patient.
    """
    if _about(folder).get("status") != "running":
        return
    if isinstance(error, StoppedError):
        write_metadata(folder, "stopped")
        return
    kind = type(error)
    reason = (
        (kind.__doc__ or "").strip().splitlines()[0]
        if issubclass(kind, MedgenError)
        else kind.__name__
    )
    write_metadata(
        folder, "failed", failure={"error": kind.__name__, "exit_code": code, "reason": reason}
    )


@contextmanager
def lock(folder: Path) -> Iterator[None]:
    """Lock the folder for this process while the block runs.

    Raises RunInUseError that names the owner.
    """
    try:
        with locks.whole(folder):
            sweep(folder)
            yield
    except locks.InUse as owner:
        raise RunInUseError(
            Problem(folder, f"in use by {owner}", "Wait, or train into another folder")
        ) from None


def _fresh(recipe: Recipe) -> Path:
    names = {
        "mode": recipe.names["mode"],
        "strategy": recipe.names["strategy"],
        "name": recipe.run.name,
        "size": size_text(recipe.data.image_size),
        "dimensions": recipe.data.axes,
        "timestamp": datetime.now().strftime("%Y%m%d-%H%M%S"),
    }
    wanted = recipe.run.root / recipe.run.folder.format(**names)
    for suffix in ("", *(f"-{count}" for count in range(2, 10_000))):
        try:
            return _make(wanted.with_name(wanted.name + suffix), exist_ok=False)
        except FileExistsError:
            continue
    raise StorageError(
        Problem(wanted, "ten thousand runs of that name exist", "Choose another run.name")
    )


def _make(folder: Path, exist_ok: bool = True) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=exist_ok)
    except FileExistsError:
        if folder.is_dir():
            raise
        raise StorageError(
            Problem(folder, "is a file", "Choose another run.dir or run.root")
        ) from None
    except OSError as error:
        raise StorageError(
            Problem(folder, reason(error), "Choose another run.dir or run.root")
        ) from error
    return folder


def _about(folder: Path) -> dict[str, Any]:
    """Read `metadata.json`; an empty dict if missing or damaged."""
    try:
        about = json.loads((folder / "metadata.json").read_text())
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return {}
    return about if isinstance(about, dict) else {}


def sweep(folder: Path) -> None:
    """Delete unfinished files of a killed process."""
    for stale in folder.glob(".tmp-*"):
        stale.unlink()
    files.recover(folder)


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")
