"""Which versions made a file."""

from __future__ import annotations

import platform
from importlib.metadata import version

from medgen import __version__


def versions() -> dict[str, str]:
    """Of Python and of the packages that decide results."""
    return {
        "python": platform.python_version(),
        "medgen": __version__,  # not of metadata, of which there may be older ones
        **{name: version(name) for name in ("torch", "monai", "numpy")},
    }
