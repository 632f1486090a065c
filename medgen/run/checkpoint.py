"""One checkpoint format: a `.pt` that anyone opens with `torch.load(weights_only=True)`.

Written to a temporary file in the same folder, flushed to disk, read back and renamed; verified
whenever it is read.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from medgen.errors import CheckpointError, NotFiniteError, Problem, StorageError
from medgen.run import archive
from medgen.run.archive import verify
from medgen.run.tensor_tree import key_paths, size, tensors
from medgen.system import files

FORMAT = 1
FOREIGN = ("state_dict", "model_state_dict", "model", "network", "ema", "unet")
"""Under which names other programs keep weights."""
WRAPPERS = re.compile(r"(?<![^.])(module|_orig_mod)\.")


def save(state: Mapping[str, Any], path: Path, previous: Path | None = None) -> None:
    """Write `state` to `path` so that at any moment the old file or the new one is there, whole.

    `previous` keeps the file that was at `path`. Raises NotFiniteError before anything is written
    if a tensor has NaN or infinity, and StorageError if the disk will not take it; the old files
    are then untouched.
    """
    _check_finite(state, path)
    full = {"format": FORMAT, **state}
    full["keys"] = sorted(key_paths(full))
    try:
        with files.replacing(path) as temporary:
            _write(full, temporary)
            if previous is not None and files.exists(path) and _is_whole(path):
                _keep(path, previous)
        files.sync_folder(path.parent)
    except OSError as error:
        raise StorageError(_storage_problem(path, full, error)) from error
    _whole[path] = _stamp(path)


def load(path: Path) -> dict[str, Any]:
    """Return the state in a checkpoint, on the CPU. Raises CheckpointError if a record or a key is
    not as it was saved.
    """
    verify(path)
    return _check_keys(path, archive.read(path))


def load_weights(path: Path) -> dict[str, torch.Tensor]:
    """Return a checkpoint's weights, averaged if it has them; also of a plain `state_dict`.

    Prefixes of wrappers (`module.`, `_orig_mod.`) are removed. Raises CheckpointError.
    """
    return weights_of(load_any(path), path)


def weights_of(state: Mapping[str, Any], path: Path) -> dict[str, torch.Tensor]:
    """Return the weights in what `load_any` read from a file; see `load_weights`."""
    weights = (state["averaged"] or state["network"]) if "format" in state else _find_weights(state)
    if not weights:
        raise CheckpointError(
            Problem(
                path, "has no weights", "Give a checkpoint of medgen or a file with a state_dict"
            )
        )
    return {WRAPPERS.sub("", name): value for name, value in weights.items()}


def load_any(path: Path) -> dict[str, Any]:
    """Return what is in a file, verified; if medgen wrote it, its keys too."""
    verify(path)
    state = archive.read(path)
    if not isinstance(state, dict):
        raise CheckpointError(
            Problem(
                path, f"not a checkpoint ({type(state).__name__})", "Give one with a state_dict"
            )
        )
    return _check_keys(path, state) if "format" in state else state


def _find_weights(state: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return where programs put their weights: on top, or under one of a few names."""
    for each in (state, *(state.get(name) for name in FOREIGN)):
        if (
            isinstance(each, Mapping)
            and each
            and all(isinstance(value, torch.Tensor) for value in each.values())
        ):
            return each
    return {}


def _write(full: Mapping[str, Any], temporary: Path) -> None:
    # torch writes through our file object, so that a full disk arrives as an OSError with its errno
    with open(temporary, "wb") as file:
        torch.save(full, file)
        files.flush(file)
    verify(temporary)


_whole: dict[Path, tuple[int, ...]] = {}
"""What this process has verified of checkpoints, so that they are not read again at each save."""


def _stamp(path: Path) -> tuple[int, ...]:
    stat = os.stat(path)
    return stat.st_size, stat.st_mtime_ns, stat.st_ino


def _is_whole(path: Path) -> bool:
    """Return whether the file is worth keeping in the place of the one before."""
    if _whole.get(path) == _stamp(path):
        return True
    try:
        verify(path)
    except CheckpointError:
        return False
    return True


def _keep(path: Path, previous: Path) -> None:
    files.keep(path, previous)


def _check_finite(state: Mapping[str, Any], path: Path) -> None:
    for name, value in tensors(state):
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise NotFiniteError(
                Problem(
                    path,
                    f"{name} has NaN or infinity, so nothing was written",
                    "Lower the learning rate and resume",
                )
            )


def _check_keys(path: Path, state: Any) -> dict[str, Any]:
    if not isinstance(state, dict) or "format" not in state:
        raise CheckpointError(
            Problem(path, "not a medgen checkpoint (no key 'format')", "Use one that medgen wrote")
        )
    if state["format"] != FORMAT:
        raise CheckpointError(
            Problem(
                path,
                f"format {state['format']}, this medgen reads {FORMAT}",
                "Use the medgen that wrote it",
            )
        )
    expected = state.pop("keys", None)
    if not isinstance(expected, list):
        raise CheckpointError(Problem(path, "the key 'keys' is missing", "Use another copy"))
    try:
        found = set(key_paths(state))
    except RecursionError:
        raise CheckpointError(
            Problem(path, "is nested too deeply", "Use a checkpoint that medgen wrote")
        ) from None
    wrong = sorted(set(expected) ^ found)
    if wrong:
        word = "missing" if wrong[0] not in found else "unexpected"
        raise CheckpointError(
            Problem(
                path, f"the key '{wrong[0]}' is {word} ({len(wrong)} in all)", "Use another copy"
            )
        )
    return state


def _storage_problem(path: Path, full: Mapping[str, Any], error: OSError) -> Problem:
    free = files.free_space(path.parent) if error.errno in (errno.ENOSPC, errno.EDQUOT) else None
    room = "" if free is None else f", {free / 1e6:.0f} MB free"
    what = f"{error.strerror or error} (needs {size(full) / 1e6:.0f} MB{room})"
    return Problem(path, what, "Make room for it, then resume")
