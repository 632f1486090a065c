"""One checkpoint format: a `.pt` that anyone opens with `torch.load(weights_only=True)`.

Written to a temporary file in the same folder, flushed to disk, read back and renamed; verified whenever it is read.
torch itself does not look at the zip's checksums, so a damaged file would load in silence. There is no unsafe fallback.
"""

from __future__ import annotations

import os
import pickle
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from medgen.errors import CheckpointError, NotFiniteError, StorageError

FORMAT = 1


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
    temporary = path.with_name(f".tmp-{os.getpid()}-{path.name}")
    try:
        _write(full, temporary)
        if previous is not None and path.exists():
            _keep(path, previous)
        os.replace(temporary, path)
        _sync_folder(path.parent)
    except OSError as error:
        raise StorageError(_storage_problem(path, full, error)) from error
    finally:
        temporary.unlink(missing_ok=True)


def load(path: Path) -> dict[str, Any]:
    """The state in a checkpoint, on the CPU. Raises CheckpointError if a record or a key is not as it was saved."""
    verify(path)
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, ValueError, EOFError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(
            f"{path}: not a medgen checkpoint ({_first_line(error)}). Use one that medgen wrote."
        ) from error
    return _check_keys(path, state)


def verify(path: Path) -> None:
    """Check the zip's own checksums, and that nothing in it is compressed (so it cannot grow when read)."""
    try:
        with zipfile.ZipFile(path) as archive:
            if any(info.compress_type != zipfile.ZIP_STORED for info in archive.infolist()):
                raise CheckpointError(f"{path}: has compressed records. Use a checkpoint that medgen wrote.")
            bad = archive.testzip()
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such checkpoint. Check the path.") from None
    except (
        zipfile.BadZipFile,
        EOFError,
        OSError,
        NotImplementedError,
        RuntimeError,
        ValueError,
        OverflowError,
    ) as error:
        raise CheckpointError(
            f"{path}: damaged or not a checkpoint ({_first_line(error)}). Use another copy."
        ) from error
    if bad is not None:
        raise CheckpointError(f"{path}: checksum mismatch in record {bad}. Use another copy.")


def _write(full: Mapping[str, Any], temporary: Path) -> None:
    # torch writes through our file object, so that a full disk arrives as an OSError with its errno
    with open(temporary, "wb") as file:
        torch.save(full, file)
        file.flush()
        os.fsync(file.fileno())
    verify(temporary)


def _keep(path: Path, previous: Path) -> None:
    # link and rename, so that there is never a moment without a file at `path`
    link = previous.with_name(f".tmp-{os.getpid()}-{previous.name}")
    link.unlink(missing_ok=True)
    os.link(path, link)
    os.replace(link, previous)


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _check_finite(state: Mapping[str, Any], path: Path) -> None:
    for name, value in tensors(state):
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise NotFiniteError(
                f"{path}: {name} has NaN or infinity, so nothing was written. Lower the learning rate and resume."
            )


def _check_keys(path: Path, state: Any) -> dict[str, Any]:
    if not isinstance(state, dict) or "format" not in state:
        raise CheckpointError(f"{path}: not a medgen checkpoint (no key 'format'). Use one that medgen wrote.")
    if state["format"] != FORMAT:
        raise CheckpointError(
            f"{path}: format {state['format']}, this medgen reads {FORMAT}. Use the medgen that wrote it."
        )
    expected = state.pop("keys", None)
    if not isinstance(expected, list):
        raise CheckpointError(f"{path}: the key 'keys' is missing. Use another copy.")
    found = set(key_paths(state))
    wrong = sorted(set(expected) ^ found)
    if wrong:
        word = "missing" if wrong[0] not in found else "unexpected"
        raise CheckpointError(f"{path}: the key '{wrong[0]}' is {word} ({len(wrong)} in all). Use another copy.")
    return state


def _storage_problem(path: Path, full: Mapping[str, Any], error: OSError) -> str:
    need = sum(value.nbytes for _, value in tensors(full)) / 1e6
    return f"{path}: {error.strerror or error} (needs {need:.0f} MB). Free space or choose another folder, then resume."


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:120]
