"""Looks for words in all bytes of all files: also in what is packed, encoded or in names."""

from __future__ import annotations

import base64
import contextlib
import gzip
import io
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path


def find(root: Path, words: Sequence[bytes]) -> list[str]:
    """Which file below `root` has which word, in its content or in its name."""
    found = []
    for path in sorted(root.rglob("*")):
        parts = [str(path.relative_to(root)).encode()]
        if path.is_file():
            parts += layers(path.read_bytes())
        found += [
            f"{path}: {word.decode()}" for word in words if any(has(part, word) for part in parts)
        ]
    return found


def has(data: bytes, word: bytes) -> bool:
    """In any case, as UTF-8 or UTF-16, as hexadecimal digits or in base64."""
    small = word.lower()
    forms = (small, small.decode().encode("utf-16-le"), word.hex().encode())
    return any(form in data.lower() for form in forms) or any(
        form in data for form in base64_forms(word)
    )


def base64_forms(word: bytes) -> Iterator[bytes]:
    """The characters that depend on nothing but the word, at each offset that it can have."""
    for skip in range(3):
        whole = base64.b64encode(bytes(skip) + word)
        yield whole[(skip * 8 + 5) // 6 : (skip + len(word)) * 8 // 6]


def layers(data: bytes) -> Iterator[bytes]:
    """The bytes, and those inside if they are a gzip file, a zip archive or a PNG."""
    yield data
    if data[:2] == b"\x1f\x8b":
        inside = unpacked(data)
        if inside:
            yield from layers(inside)
    elif data[:2] == b"PK" and zipfile.is_zipfile(io.BytesIO(data)):
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            for name in archive.namelist():
                yield name.encode()
                yield from layers(archive.read(name))
    elif data[:8] == b"\x89PNG\r\n\x1a\n":
        yield from chunks(data)


def unpacked(data: bytes) -> bytes:
    """What is in a gzip file, as far as it can be read; random numbers begin as one now and then."""
    inside, found = gzip.GzipFile(fileobj=io.BytesIO(data)), bytearray()
    with contextlib.suppress(OSError, EOFError, zlib.error):
        while part := inside.read1():
            found += part
    return bytes(found)


def chunks(data: bytes) -> Iterator[bytes]:
    """Chunks of a PNG, and what is compressed in its texts."""
    place = 8
    while place < len(data):
        size = int.from_bytes(data[place : place + 4], "big")
        chunk = data[place + 8 : place + 8 + size]
        if data[place + 4 : place + 8] in (b"zTXt", b"iTXt"):
            yield zlib.decompress(chunk.split(b"\0", 2)[-1])
        yield chunk
        place += size + 12
