"""Where the processes that train together meet, and over which network."""

from __future__ import annotations

import fcntl
import os
import socket
import struct
import subprocess
from contextlib import suppress

from medgen.errors import RankError

SIOCGIFADDR = 0x8915
"""Linux's request for the address of a network interface."""


def interface(address: str) -> str | None:
    """The network interface on the way to another host, if it can be told.

    Left alone, gloo takes the one that has the address of this host's name, which is often loopback.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe, suppress(OSError):
        probe.connect((address, 1))  # sends nothing
        mine = socket.inet_aton(probe.getsockname()[0])
        for _, name in socket.if_nameindex():
            with suppress(OSError):  # one without such an address
                found = fcntl.ioctl(probe, SIOCGIFADDR, struct.pack("256s", name.encode()))
                if found[20:24] == mine and not name.startswith("lo"):
                    return name
    return None


def variables() -> dict[str, str]:
    """torch's variables for where ranks meet, if nobody has set them: those that `srun` started find it out."""
    if "MASTER_ADDR" in os.environ and "MASTER_PORT" in os.environ:
        return {}
    job = int(os.environ.get("SLURM_JOB_ID", 0)) * 7 + int(os.environ.get("SLURM_STEP_ID", 0))
    return {"MASTER_ADDR": os.environ.get("MASTER_ADDR") or _first_node(), "MASTER_PORT": str(20_000 + job % 12_000)}


def _first_node() -> str:
    if os.environ.get("SLURM_STEP_NUM_NODES") == "1":
        return "127.0.0.1"
    nodes = os.environ.get("SLURM_STEP_NODELIST", "")
    try:
        listed = subprocess.run(["scontrol", "show", "hostnames", nodes], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise RankError(
            f"srun: `scontrol show hostnames {nodes}` failed ({error}). Set MASTER_ADDR to the first node."
        ) from error
    return listed.stdout.split()[0]
