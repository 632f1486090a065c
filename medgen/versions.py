"""Which versions made a file."""

from __future__ import annotations

import platform
from importlib.metadata import version


def versions() -> dict[str, str]:
    """Of Python and of the packages that decide results."""
    return {
        "python": platform.python_version(),
        **{name: version(name) for name in ("medgen", "torch", "monai", "numpy")},
    }
