"""One checkpoint format: a `.pt` that anyone opens with `torch.load(weights_only=True)`.

Written to a temporary file in the same folder, flushed to disk, read back and renamed; verified whenever it is read.
torch itself does not look at the zip's checksums, so a damaged file would load in silence. There is no unsafe fallback.
"""

from __future__ import annotations

import errno
import os
import pickle
import re
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from medgen.errors import CheckpointError, NotFiniteError, Problem, StorageError
from medgen.system import files

FORMAT = 1
FOREIGN = ("state_dict", "model_state_dict", "model", "network", "ema", "unet")
"""Under which names other programs keep weights."""
STRUCTURE = 4 << 20
"""Bytes that all but the tensors may take, 250 for each tensor; as objects in memory they take ten times as many."""
WRAPPERS = re.compile(r"(?<![^.])(module|_orig_mod)\.")
_MAKE_ROOM = "Free space or choose another folder, then give the same command again."


def key_paths(value: Any, prefix: str = "") -> Iterator[str]:
    """The path of every key in nested dicts and lists, such as `optimizers/network/state/0/exp_avg`."""
    items = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield f"{prefix}{key}"
        yield from key_paths(inner, f"{prefix}{key}/")


def tensors(value: Any, prefix: str = "") -> Iterator[tuple[str, torch.Tensor]]:
    """Every tensor in nested dicts and lists, with its path."""
    if isinstance(value, torch.Tensor):
        yield prefix.rstrip("/"), value
    items = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from tensors(inner, f"{prefix}{key}/")


def save(state: Mapping[str, Any], path: Path, previous: Path | None = None) -> None:
    """Write `state` to `path` so that at any moment the old file or the new one is there, whole.

    `previous` keeps the file that was at `path`. Raises NotFiniteError before anything is written if a tensor has NaN
    or infinity, and StorageError if the disk will not take it; the old files are then untouched.
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
    """The state in a checkpoint, on the CPU. Raises CheckpointError if a record or a key is not as it was saved."""
    verify(path)
    return _check_keys(path, _open(path))


def load_weights(path: Path) -> dict[str, torch.Tensor]:
    """The weights in a checkpoint, averaged ones if it has them; also in a plain `state_dict` of another program.

    Prefixes that wrappers leave in names (`module.`, `_orig_mod.`) are taken away. Raises CheckpointError.
    """
    state = load_any(path)
    weights = (state["averaged"] or state["network"]) if "format" in state else _find_weights(state)
    if not weights:
        raise CheckpointError(
            Problem(path, "has no weights", "Give a checkpoint of medgen or a file with a state_dict")
        )
    return {WRAPPERS.sub("", name): value for name, value in weights.items()}


def load_any(path: Path) -> dict[str, Any]:
    """What is in a file, verified; if medgen wrote it, its keys too."""
    verify(path)
    state = _open(path)
    if not isinstance(state, dict):
        raise CheckpointError(Problem(path, f"not a checkpoint ({type(state).__name__})", "Give one with a state_dict"))
    return _check_keys(path, state) if "format" in state else state


def verify(path: Path) -> None:
    """Check the zip's own checksums, and that torch will read these very records and nothing that grows or runs."""
    try:
        with zipfile.ZipFile(path) as archive:
            strange = _strange(archive.infolist())
            bad = None if strange else archive.testzip()
    except FileNotFoundError:
        raise CheckpointError(Problem(path, "no such checkpoint", "Check the path")) from None
    except OSError as error:
        raise _unread(path, error) from error
    except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError, ValueError, OverflowError) as error:
        raise CheckpointError(
            Problem(path, f"damaged or not a checkpoint ({_first_line(error)})", "Use another copy")
        ) from error
    if strange:
        raise CheckpointError(Problem(path, strange, "Use a checkpoint that medgen wrote"))
    if bad is not None:
        raise CheckpointError(Problem(path, f"checksum mismatch in record {bad}", "Use another copy"))


def _strange(records: list[zipfile.ZipInfo]) -> str | None:
    names = [record.filename for record in records]
    if any(record.compress_type != zipfile.ZIP_STORED for record in records):
        return "has compressed records"
    if len(names) != len(set(names)):
        return "has a record twice"
    if any(name.endswith("constants.pkl") for name in names):
        return "is a TorchScript program"
    if any(record.filename.endswith("data.pkl") and record.file_size > STRUCTURE for record in records):
        return f"has more than {STRUCTURE >> 20} MB beside its tensors"
    if records and all(record.header_offset for record in records):
        return "has something before its first record"
    return None


def reserve(folder: Path, size: int, copies: int) -> None:
    """Raise StorageError unless `copies` files of `size` bytes fit in the folder and no limit forbids one of them."""
    free = files.free_space(folder)
    need = f"{size / 1e6:.0f} MB" + f" x {copies} checkpoints" * (copies > 1)
    if free is not None and free < size * copies:
        raise StorageError(Problem(folder, f"disk full (needs {need}, {free / 1e6:.0f} MB free)", _MAKE_ROOM))
    trial = files.temporary(folder / "room")
    try:
        with open(trial, "wb") as file:
            _allocate(file.fileno(), max(size, 1))
    except OSError as error:
        raise StorageError(Problem(folder, f"{error.strerror} (needs {need})", _MAKE_ROOM)) from error
    finally:
        trial.unlink(missing_ok=True)


def _allocate(handle: int, size: int) -> None:
    if not hasattr(os, "posix_fallocate"):
        return
    try:
        os.posix_fallocate(handle, 0, size)
    except OSError as error:
        if error.errno not in files.UNSUPPORTED:  # then this file system cannot tell
            raise


def size(state: Mapping[str, Any]) -> int:
    """Bytes of all tensors."""
    return sum(value.nbytes for _, value in tensors(state))


def _find_weights(state: Mapping[str, Any]) -> Mapping[str, Any]:
    """Where programs put their weights: on top, or under one of a few names."""
    for each in (state, *(state.get(name) for name in FOREIGN)):
        if isinstance(each, Mapping) and each and all(isinstance(value, torch.Tensor) for value in each.values()):
            return each
    return {}


def _open(path: Path) -> Any:
    try:
        with open(path, "rb") as file:
            return torch.load(file, map_location="cpu", weights_only=True)
    except OSError as error:
        raise _unread(path, error) from error
    except RuntimeError as error:
        if "allocate memory" in str(error):
            raise MemoryError(f"{path}: {_first_line(error)}") from error
        raise _not_ours(path, error) from error
    except (pickle.UnpicklingError, ValueError, EOFError, KeyError, TypeError, AttributeError) as error:
        raise _not_ours(path, error) from error


def _not_ours(path: Path, error: Exception) -> CheckpointError:
    return CheckpointError(
        Problem(path, f"not a medgen checkpoint ({_first_line(error)})", "Use one that medgen wrote")
    )


def _unread(path: Path, error: OSError) -> CheckpointError | StorageError:
    """Damage, such as offsets that lead nowhere, or a file that may be whole, and must not be taken for lost."""
    if error.errno in files.NOT_NOW:
        return files.unreadable(path, error)
    return CheckpointError(Problem(path, f"damaged or not a checkpoint ({_first_line(error)})", "Use another copy"))


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
    """Whether the file is worth keeping in the place of the one before."""
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
                    path, f"{name} has NaN or infinity, so nothing was written", "Lower the learning rate and resume"
                )
            )


def _check_keys(path: Path, state: Any) -> dict[str, Any]:
    if not isinstance(state, dict) or "format" not in state:
        raise CheckpointError(Problem(path, "not a medgen checkpoint (no key 'format')", "Use one that medgen wrote"))
    if state["format"] != FORMAT:
        raise CheckpointError(
            Problem(path, f"format {state['format']}, this medgen reads {FORMAT}", "Use the medgen that wrote it")
        )
    expected = state.pop("keys", None)
    if not isinstance(expected, list):
        raise CheckpointError(Problem(path, "the key 'keys' is missing", "Use another copy"))
    try:
        found = set(key_paths(state))
    except RecursionError:
        raise CheckpointError(Problem(path, "is nested too deeply", "Use a checkpoint that medgen wrote")) from None
    wrong = sorted(set(expected) ^ found)
    if wrong:
        word = "missing" if wrong[0] not in found else "unexpected"
        raise CheckpointError(
            Problem(path, f"the key '{wrong[0]}' is {word} ({len(wrong)} in all)", "Use another copy")
        )
    return state


def _storage_problem(path: Path, full: Mapping[str, Any], error: OSError) -> Problem:
    free = files.free_space(path.parent) if error.errno in (errno.ENOSPC, errno.EDQUOT) else None
    room = "" if free is None else f", {free / 1e6:.0f} MB free"
    what = f"{error.strerror or error} (needs {size(full) / 1e6:.0f} MB{room})"
    return Problem(path, what, "Make room for it, then resume")


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:120]
