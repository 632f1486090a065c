"""Set, before they are imported, what libraries read from the environment, unless it is set."""

from __future__ import annotations

import getpass
import os


def prepare() -> None:
    """Set what torch and monai need. Call it before either is imported."""
    _name_the_user()
    # threads that spin at the end of a parallel loop take the cores that other processes need
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def _name_the_user() -> None:
    """Name a user id without a name, as in `docker run --user 1234`; monai and torch ask for it."""
    try:
        getpass.getuser()
    except (KeyError, OSError):  # OSError since Python 3.13
        os.environ["LOGNAME"] = f"uid{os.getuid()}"
