"""What libraries read from the environment when they are imported, set before that where nobody
else has.
"""

from __future__ import annotations

import getpass
import os


def prepare() -> None:
    """Set what torch and monai need. Call it before either is imported."""
    _name_the_user()
    # threads that spin at the end of a parallel loop take the cores that other processes need
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def _name_the_user() -> None:
    """Give a user id without a name one, as in `docker run --user 1234`: monai asks for it, and
    torch's compiler.
    """
    try:
        getpass.getuser()
    except (KeyError, OSError):  # OSError since Python 3.13
        os.environ["LOGNAME"] = f"uid{os.getuid()}"
