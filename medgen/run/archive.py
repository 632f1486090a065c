"""The zip file that a checkpoint is: verified, and opened without running anything in it.

torch itself does not look at the zip's checksums, so a damaged file would load in silence. There is
no unsafe fallback.
"""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path

import torch

from medgen.errors import CheckpointError, Problem, StorageError
from medgen.system import file_systems, files

STRUCTURE = 4 << 20
"""Bytes that all but the tensors may take, 250 for each tensor; as objects in memory they take ten
times as many.
"""


def verify(path: Path) -> None:
    """Check the zip's own checksums, and that torch will read these very records and nothing that
    grows or runs.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            strange = _strange(archive.infolist())
            bad = None if strange else archive.testzip()
    except FileNotFoundError:
        raise CheckpointError(Problem(path, "no such checkpoint", "Check the path")) from None
    except OSError as error:
        raise _unread(path, error) from error
    except (
        zipfile.BadZipFile,
        EOFError,
        NotImplementedError,
        RuntimeError,
        ValueError,
        OverflowError,
    ) as error:
        raise CheckpointError(
            Problem(path, f"damaged or not a checkpoint ({_first_line(error)})", "Use another copy")
        ) from error
    if strange:
        raise CheckpointError(Problem(path, strange, "Use a checkpoint that medgen wrote"))
    if bad is not None:
        raise CheckpointError(
            Problem(path, f"checksum mismatch in record {bad}", "Use another copy")
        )


def _strange(records: list[zipfile.ZipInfo]) -> str | None:
    names = [record.filename for record in records]
    if any(record.compress_type != zipfile.ZIP_STORED for record in records):
        return "has compressed records"
    if len(names) != len(set(names)):
        return "has a record twice"
    if any(name.endswith("constants.pkl") for name in names):
        return "is a TorchScript program"
    if any(
        record.filename.endswith("data.pkl") and record.file_size > STRUCTURE for record in records
    ):
        return f"has more than {STRUCTURE >> 20} MB beside its tensors"
    if records and all(record.header_offset for record in records):
        return "has something before its first record"
    return None


def read(path: Path) -> object:
    try:
        with open(path, "rb") as file:
            return torch.load(file, map_location="cpu", weights_only=True)
    except OSError as error:
        raise _unread(path, error) from error
    except RuntimeError as error:
        if "allocate memory" in str(error):
            raise MemoryError(f"{path}: {_first_line(error)}") from error
        raise _not_ours(path, error) from error
    except (
        pickle.UnpicklingError,
        ValueError,
        EOFError,
        KeyError,
        TypeError,
        AttributeError,
    ) as error:
        raise _not_ours(path, error) from error


def _not_ours(path: Path, error: Exception) -> CheckpointError:
    return CheckpointError(
        Problem(
            path, f"not a medgen checkpoint ({_first_line(error)})", "Use one that medgen wrote"
        )
    )


def _unread(path: Path, error: OSError) -> CheckpointError | StorageError:
    """Describe damage, or a read error of a file that may be whole and must not count as lost."""
    if error.errno in file_systems.NOT_NOW:
        return files.unreadable(path, error)
    if isinstance(error, IsADirectoryError):
        fix = f"Give a checkpoint in it, such as {path / 'latest.pt'}"
        return CheckpointError(Problem(path, "is a folder, not a checkpoint", fix))
    return CheckpointError(
        Problem(path, f"damaged or not a checkpoint ({_first_line(error)})", "Use another copy")
    )


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:120]
