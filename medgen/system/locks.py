"""Locks that end with their process; without such in a file system, files that name the owner.

An owner on another machine cannot be checked, so such files serve processes of one machine.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import platform
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from medgen.system import files
from medgen.system.console import warn

HELD = frozenset({errno.EAGAIN} | ({errno.EACCES} if sys.platform != "linux" else set()))
"""What a lock that another process holds gives; POSIX allows either, Linux has the first."""
YOUNG = 5.0
"""Seconds in which an empty owner file may still be written by its owner."""
LONG = 60.0
"""Seconds after which a lock that is held for moments, by a process on another machine, counts as
abandoned.
"""
TICK = 0.05

Owner = dict[str, Any]


class Locks:
    """Locks on numbers, which are bytes of a file."""

    def __init__(self, path: Path):
        self.path = path
        self._file = open(path, "a+b")  # noqa: SIM115 - closed by `close`; a lock ends when any handle is closed
        self._owned: dict[int, Path] = {}
        self.lacking = False
        """Whether owner files are used."""

    def close(self) -> None:
        """Give all back."""
        for number in list(self._owned):
            self.release(number)
        self._file.close()

    def take(self, number: int, shared: bool = False) -> bool:
        """Lock a number unless another process has it; returns whether that was possible."""
        how = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
        return self._lock(number, how | fcntl.LOCK_NB, shared)

    def wait(self, number: int) -> None:
        """Lock a number, which others hold for moments."""
        while not self._lock(number, fcntl.LOCK_EX, False):
            time.sleep(TICK)

    def release(self, number: int) -> None:
        """Give it back."""
        if owned := self._owned.pop(number, None):
            owned.unlink(missing_ok=True)
        else:
            fcntl.lockf(self._file, fcntl.LOCK_UN, 1, number)

    def _lock(self, number: int, how: int, shared: bool) -> bool:
        if not self.lacking:
            try:
                fcntl.lockf(self._file, how, 1, number)
            except OSError as error:
                if error.errno in HELD:
                    return False
                self.lacking = True
            else:
                return True
        return self._own(number, shared)

    def _own(self, number: int, shared: bool) -> bool:
        """As with locks of the system, one process may have both kinds of a number."""
        name = f"{self.path.name}-{number}"
        mine = self.path.with_name(f"{name}-{os.getpid()}-{platform.node()}" if shared else name)
        if not shared and any(
            lives(read(each)) for each in self.path.parent.glob(f"{name}-*") if not is_mine(each)
        ):
            return False
        owner = own(mine)
        if owner is None:
            if (before := self._owned.get(number, mine)) != mine:
                before.unlink(missing_ok=True)
            self._owned[number] = mine
        return owner is None


def own(path: Path) -> Owner | None:
    """Make an owner file for this process, or return the owner that it has, if that may live.

    Whoever is on another machine counts as gone after `LONG`.
    """
    while True:
        try:
            handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
        except FileExistsError:
            if is_mine(path):
                return None
            if _is_held(path):
                return read(path) or {}
            with contextlib.suppress(FileNotFoundError):  # another process found it abandoned too
                path.unlink()
            continue
        with open(handle, "w") as file:
            json.dump(_me(), file)
        return None


def _is_held(path: Path) -> bool:
    owner, age = read(path), _age(path)
    return age < YOUNG if owner is None else age < LONG if _is_elsewhere(owner) else lives(owner)


def lives(owner: Owner | None) -> bool:
    """Return whether an owner is a process of this machine that has not ended."""
    if owner is None or _is_elsewhere(owner):
        return False
    try:
        os.kill(int(owner["pid"]), 0)
    except PermissionError:
        return True
    except OSError:
        return False
    return bool(born(int(owner["pid"])) == owner.get("born"))


def is_mine(path: Path) -> bool:
    """Return whether an owner file names this very process."""
    owner, me = read(path), _me()
    return owner is not None and all(owner.get(key) == me[key] for key in ("pid", "node", "born"))


def read(path: Path) -> Owner | None:
    """Read the owner that a file names."""
    try:
        owner = json.loads(path.read_text())
    except (FileNotFoundError, ValueError):
        return None
    return owner if isinstance(owner, dict) and isinstance(owner.get("pid"), int) else None


def born(pid: int) -> str:
    """Return what tells a process from later ones of its id: boot id, and ticks since then."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()[19]}"
    except (OSError, IndexError):  # no Linux
        return ""


def describe(owner: Owner) -> str:
    """Return `pid 4711 on node gpu-06 since 12:03 (SLURM 24160)`."""
    job = f" (SLURM {owner['job']})" if owner.get("job") else ""
    return f"pid {owner.get('pid')} on node {owner.get('node')} since {owner.get('since')}{job}"


def _me() -> Owner:
    return {
        "pid": os.getpid(),
        "node": platform.node(),
        "since": time.strftime("%H:%M"),
        "job": os.environ.get("SLURM_JOB_ID", ""),
        "born": born(os.getpid()),
    }


def _is_elsewhere(owner: Owner) -> bool:
    return owner.get("node") != platform.node()


def _age(path: Path) -> float:
    try:
        return time.time() - path.stat().st_mtime
    except FileNotFoundError:
        return float("inf")


class InUse(Exception):
    """Another process has the folder; the text says which."""


@contextlib.contextmanager
def whole(folder: Path) -> Iterator[None]:
    """Hold a folder while this process lives. Raises InUse. Warns of what its file system lacks."""
    path = folder / ".lock"
    with open(path, "a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise InUse(file.read().strip()) from None
        except OSError:  # whatever it is, it does not say that another process holds it
            with _owned(folder):
                yield
            return
        file.seek(0)
        file.truncate()
        file.write(describe(_me()))
        file.flush()
        files.probe(folder)
        yield


@contextlib.contextmanager
def _owned(folder: Path) -> Iterator[None]:
    path = folder / ".lock-owner"
    owner = read(path)
    if owner is not None and lives(owner) and not is_mine(path):
        raise InUse(describe(owner))
    files.probe(folder, "locks")
    if owner is not None and _is_elsewhere(owner):
        warn(f"{folder}: was in use by {describe(owner)}. See that it has ended.")
        path.unlink(missing_ok=True)
    if (other := own(path)) is not None:
        raise InUse(describe(other))
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
