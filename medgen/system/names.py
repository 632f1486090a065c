"""Names of files in any encoding: Python shows bytes that the locale cannot read as surrogates.

Under UTF-8, which is nearly everywhere, these functions change nothing.
"""

from __future__ import annotations

import os
import unicodedata


def raw(name: str) -> bytes:
    """Return a name's bytes as in the file system, in any locale; orders and hashes use them."""
    return name.encode("utf-8", "surrogateescape")


def native(text: str) -> str:
    """Return text from a recipe as a file's name, for which the locale's encoding may be too small."""
    return os.fsdecode(raw(text))


def portable(name: str) -> str:
    """Return the name of a file as text for a recipe, which is UTF-8."""
    return os.fsencode(name).decode("utf-8", "surrogateescape")


def key(name: str) -> bytes:
    """Return bytes to order, pair and hash the names of files by, the same in every locale and in
    both forms of accents.

    macOS writes `e` and an accent (NFD) where others write one character (NFC).
    """
    return raw(unicodedata.normalize("NFC", portable(name)))


def composed(name: str) -> str:
    """Return the name of a file with accents as one character each (NFC), as the locale shows it."""
    return os.fsdecode(key(name))


def is_utf8(text: str) -> bool:
    """Return whether a recipe, which is UTF-8, can hold a text."""
    return not any("\udc80" <= each <= "\udcff" for each in text)
