"""A run's folder: made once, used by one process at a time, found again."""

from __future__ import annotations

import fcntl
import json
import os
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from hashlib import sha256
from pathlib import Path
from typing import Any

from medgen import checkpoint
from medgen.console import warn
from medgen.errors import CheckpointError, RecipeError, RunInUseError, StorageError
from medgen.recipe import Recipe, public_toml, to_toml
from medgen.versions import versions

ENVIRONMENT = ("SLURM_JOB_ID", "SLURM_ARRAY_TASK_ID", "SLURM_JOB_NUM_NODES", "CUDA_VISIBLE_DEVICES")
"""What metadata keeps of the environment; all else may be private."""


def create(recipe: Recipe) -> Path:
    """A new folder for a run of this recipe, with its `recipe.toml`. Raises RecipeError if `run.dir` holds a run."""
    folder = _exact(recipe.run.dir) if recipe.run.dir else _fresh(recipe)
    (folder / "recipe.toml").write_text(to_toml(recipe))
    return folder


def find_unfinished(recipe: Recipe) -> Path | None:
    """What `--resume auto` continues: the run in `run.dir`, else the newest unfinished run of this very recipe."""
    if recipe.run.dir:
        return recipe.run.dir if (recipe.run.dir / "latest.pt").exists() else None
    wanted = identity(recipe)
    files = sorted(recipe.run.root.glob("**/metadata.json"), key=lambda path: path.stat().st_mtime, reverse=True)
    for path in files:
        about = json.loads(path.read_text())
        if about.get("recipe") == wanted and about.get("status") != "complete" and (path.parent / "latest.pt").exists():
            return path.parent
    return None


def latest_state(folder: Path) -> tuple[dict[str, Any], Path]:
    """The newest checkpoint that is whole. Raises CheckpointError naming both if neither is."""
    latest, previous = folder / "latest.pt", folder / "prev.pt"
    if not latest.exists() and not previous.exists():
        raise CheckpointError(f"{folder}: no checkpoint to resume. Drop --resume, or use --resume auto.")
    try:
        return checkpoint.load(latest), latest
    except CheckpointError as damaged:
        try:
            state = checkpoint.load(previous)
        except CheckpointError as also:
            raise CheckpointError([*damaged.problems, *also.problems]) from also
        warn(f"{damaged.problems[0].split('. ')[0]}. Using prev.pt (step {state['position']['step']}).")
        return state, previous


def identity(recipe: Recipe) -> str:
    """A hash of the recipe without paths."""
    return sha256(public_toml(recipe).encode()).hexdigest()[:16]


def write_metadata(folder: Path, status: str, **more: Any) -> None:
    """`metadata.json`: what made this run, and how it stands. No paths and no patients."""
    path = folder / "metadata.json"
    about = json.loads(path.read_text()) if path.exists() else {"started": _now()}
    environment = {name: os.environ[name] for name in ENVIRONMENT if name in os.environ}
    about |= {"status": status, "updated": _now(), "versions": versions(), "environment": environment, **more}
    temporary = path.with_name(f".tmp-{os.getpid()}-{path.name}")
    temporary.write_text(json.dumps(about, indent=2) + "\n")
    temporary.replace(path)


@contextmanager
def lock(folder: Path) -> Iterator[None]:
    """Hold the folder for this process, and as long as it lives. Raises RunInUseError, naming the owner."""
    with open(folder / ".lock", "a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise RunInUseError(
                f"{folder}: in use by {file.read().strip()}. Wait, or train into another folder."
            ) from None
        _write_owner(file)
        _sweep(folder)
        yield


def _exact(folder: Path) -> Path:
    if (folder / "metadata.json").exists():
        raise RecipeError(
            f"run.dir: {folder} holds a run already. Continue it with --resume {folder}, or choose another folder."
        )
    return _make(folder)


def _fresh(recipe: Recipe) -> Path:
    names = {
        "mode": recipe.names["mode"],
        "strategy": recipe.names["strategy"],
        "name": recipe.run.name,
        "size": recipe.data.image_size,
        "timestamp": datetime.now().strftime("%Y%m%d-%H%M%S"),
    }
    wanted = recipe.run.root / recipe.run.folder.format(**names)
    for suffix in ("", *(f"-{count}" for count in range(2, 10_000))):
        try:
            return _make(wanted.with_name(wanted.name + suffix), exist_ok=False)
        except FileExistsError:
            continue
    raise StorageError(f"{wanted}: ten thousand runs of that name exist. Choose another run.name.")


def _make(folder: Path, exist_ok: bool = True) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=exist_ok)
    except FileExistsError:
        if folder.is_dir():
            raise
        raise StorageError(f"{folder}: is a file. Choose another run.dir or run.root.") from None
    except OSError as error:
        raise StorageError(f"{folder}: {error.strerror}. Choose another run.dir or run.root.") from error
    return folder


def _write_owner(file: Any) -> None:
    job = f" (SLURM {os.environ['SLURM_JOB_ID']})" if "SLURM_JOB_ID" in os.environ else ""
    file.seek(0)
    file.truncate()
    file.write(f"pid {os.getpid()} on node {platform.node()} since {time.strftime('%H:%M')}{job}")
    file.flush()


def _sweep(folder: Path) -> None:
    for stale in folder.glob(".tmp-*"):
        stale.unlink()


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")
