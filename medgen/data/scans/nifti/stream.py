"""A file's bytes, inflated with every checksum checked, never more than its header announces."""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from isal import isal_zlib

from medgen.data.scans.nifti.problems import COPY, Refused, naming, refusal

POINTER_BYTES = 1024
"""A file that only says where its content is takes less than this."""


CHUNK = 1 << 20


ZIPPED_CHUNK = 1 << 16


GZIP_MAGIC = b"\x1f\x8b"


GZIP_MAX_RATIO = 1032
"""Deflate's own limit, so the length of a file bounds what it can hold."""


NIFTI1, NIFTI2 = 348, 540


def digest(path: Path) -> str:
    """Return sha256 of the file's bytes. Raises `DataError` if it cannot be read."""
    sha = hashlib.sha256()
    with naming(path), open_scan(path) as file:
        while chunk := file.read(CHUNK):
            sha.update(chunk)
    return sha.hexdigest()


def stand_in(start: bytes) -> tuple[str, str] | None:
    """Return what a file (by its first bytes) or link is instead of a scan, and how to get one."""
    if start.startswith(b"version https://git-lfs"):
        return "a git-lfs pointer, not the scan", "Fetch it with `git lfs pull`"
    if start.startswith(b"/annex/objects/"):
        return "a git-annex pointer, not the scan", "Fetch it with `git annex get`"
    if b"\0" not in start and b"annex/objects/" in start[:POINTER_BYTES].replace(b"\\", b"/"):
        return "a git-annex link without its content", "Fetch it with `git annex get`"
    return None


@contextlib.contextmanager
def open_scan(path: Path) -> Iterator[BinaryIO]:
    """Open a file; what the system says against it, then or while it is read, is a problem."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # opening a pipe would wait for ever
            raise refusal("is not a file", "Give a .nii or .nii.gz file")
        with path.open("rb") as file:
            yield file
    except OSError as error:
        found = stand_in(os.fsencode(os.readlink(path))) if path.is_symlink() else None
        if isinstance(error, FileNotFoundError) and found:
            raise refusal(f"is {found[0]}", found[1]) from None
        raise refusal(
            f"cannot be read ({error.strerror})", "Check its path, its permissions and the disk"
        ) from None
    except MemoryError:
        raise refusal(
            "needs more memory than there is", "Crop it, or give the job more memory"
        ) from None


def is_zipped(name: str, start: bytes) -> bool:
    """Return whether the file is gzip, which its name and its first bytes must both say."""
    if not name.endswith((".nii", ".nii.gz")):
        raise refusal("is not named .nii or .nii.gz", "Convert it to NIfTI")
    zipped = start.startswith(GZIP_MAGIC)
    if name.endswith(".gz") == zipped:
        return zipped
    if zipped:
        raise refusal("is gzip, but named .nii", "Rename it to .nii.gz")
    if size_and_byte_order(start):
        raise refusal("is not gzip, but named .gz", "Rename it to .nii")
    raise foreign_format("gzip", start)


def foreign_format(wanted: str, start: bytes) -> Refused:
    """Say what a file that is not what it should be most likely is."""
    if not start:
        return refusal("is empty", COPY)
    if not start.strip(b"\0"):
        return refusal("starts with zeros only (written in part)", COPY)
    if found := stand_in(start):
        return refusal(f"is {found[0]}", found[1])
    if start.lstrip().startswith(b"<"):
        return refusal("is a web page, not a scan", "Download it again, logged in")
    return refusal(f"is not {wanted} (starts with bytes {start[:4].hex(' ')})", COPY)


def inflated_pieces(file: BinaryIO, zipped: bool) -> Iterator[bytes]:
    """Yield the file's bytes, inflated, a chunk at a time, the whole header within the first."""
    pieces = _inflated(file) if zipped else iter(lambda: file.read(CHUNK), b"")
    first = b""
    while len(first) < NIFTI2 and (piece := next(pieces, None)) is not None:
        first += piece
    yield first
    yield from pieces


def _inflated(file: BinaryIO) -> Iterator[bytes]:
    """Yield the members of a gzip file, checking checksums and lengths, and that nothing follows."""
    member, data = isal_zlib.decompressobj(wbits=31), file.read(ZIPPED_CHUNK)
    while True:
        piece = _inflate(member, data)
        yield piece
        if member.eof:
            data = member.unused_data + file.read(ZIPPED_CHUNK)
            if not data:
                return
            if not data.startswith(GZIP_MAGIC):
                raise refusal("has other bytes after the end of its gzip stream", COPY)
            member = isal_zlib.decompressobj(wbits=31)
        else:
            data = member.unconsumed_tail or file.read(ZIPPED_CHUNK)
            if not data and not piece:
                raise refusal("is cut off, its gzip stream does not end", COPY)


def _inflate(member: Any, data: bytes) -> bytes:
    try:
        return bytes(member.decompress(data, CHUNK))
    except isal_zlib.IsalError as error:  # type: ignore[misc]  # its stub declares an instance
        what = "checksum mismatch" if "checksum" in str(error) else "stream cannot be inflated"
        raise refusal(f"gzip {what} (file damaged)", COPY) from None


def size_and_byte_order(start: bytes) -> tuple[int, str] | None:
    """Return the header's length and byte order, by its own first four bytes."""
    for order in "<>":
        size = int(np.frombuffer(start[:4].ljust(4, b"\0"), f"{order}i4")[0])
        if size in (NIFTI1, NIFTI2):
            return size, order
    return None
