"""Choose the address, the port and the network interface over which ranks connect."""

from __future__ import annotations

import fcntl
import os
import socket
import struct
import subprocess
from contextlib import suppress

from medgen.errors import Problem, RankError, RecipeError
from medgen.ranks.place import number

SIOCGIFADDR = 0x8915
"""Linux's request for the address of a network interface."""


def interface(address: str) -> str | None:
    """Return the network interface on the route to another host; None if unknown.

    By default gloo takes the interface of this host's name's address, often loopback.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe, suppress(OSError):
        probe.connect((address, 1))  # sends nothing
        mine = socket.inet_aton(probe.getsockname()[0])
        for _, name in socket.if_nameindex():
            with suppress(OSError):  # an interface without an IPv4 address
                found = fcntl.ioctl(probe, SIOCGIFADDR, struct.pack("256s", name.encode()))
                if found[20:24] == mine and not name.startswith("lo"):
                    return name
    return None


def variables() -> dict[str, str]:
    """Return torch's MASTER_ADDR and MASTER_PORT from the environment or the step of `srun`.

    Empty counts as unset. Raises RecipeError for an invalid port.
    """
    job = number(os.environ, "SLURM_JOB_ID") * 7 + number(os.environ, "SLURM_STEP_ID")
    port = number(os.environ, "MASTER_PORT", 20_000 + job % 12_000)
    if not 0 < port < 65_536:
        raise RecipeError(
            Problem(
                "MASTER_PORT",
                f"got {port}, expected a port from 1 to 65535",
                "Unset it, or correct it",
            )
        )
    return {
        "MASTER_ADDR": os.environ.get("MASTER_ADDR", "").strip() or _first_node(),
        "MASTER_PORT": str(port),
    }


def _first_node() -> str:
    if os.environ.get("SLURM_STEP_NUM_NODES") == "1":
        return "127.0.0.1"
    nodes = os.environ.get("SLURM_STEP_NODELIST", "")
    try:
        listed = subprocess.run(
            ["scontrol", "show", "hostnames", nodes], capture_output=True, text=True, check=True
        )
    except (
        OSError,
        ValueError,
        subprocess.CalledProcessError,
    ) as error:  # ValueError: the output is no text
        raise RankError(_no_node(nodes, str(error))) from error
    if not (names := listed.stdout.split()):
        raise RankError(_no_node(nodes, "it names none"))
    return names[0]


def _no_node(nodes: str, reason: str) -> Problem:
    what = f"`scontrol show hostnames {nodes}` failed ({reason})"
    return Problem("srun", what, "Set MASTER_ADDR to the first node")
