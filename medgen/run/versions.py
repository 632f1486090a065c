"""Record the versions that made a file."""

from __future__ import annotations

import platform
from importlib.metadata import version

from medgen import __version__


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that decide results."""
    return {
        "python": platform.python_version(),
        "medgen": __version__,  # not from metadata, which may be left over from an older version
        **{name: version(name) for name in ("torch", "monai", "numpy")},
    }
