"""Connect ranks, end them together, and report the rank that failed first."""

from __future__ import annotations

import os
import re
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import torch.distributed as dist

from medgen.config.checks import require_equal_shares
from medgen.errors import Problem, RankError, RecipeError, StoppedError
from medgen.ranks import beat_file, heartbeat, rendezvous
from medgen.system import console, torch_private

if TYPE_CHECKING:
    from medgen.api.recipe import Recipe
from medgen.ranks.collectives import State, barrier, broadcast_object, is_rank_zero, rank, size
from medgen.ranks.place import NOTES, PARENT, Place, place, take_device

PATIENCE = timedelta(days=30)
"""Timeout of collectives on the control group: practically none, as heartbeats detect a dead rank.
"""


AFTER = 5.0
"""Extra seconds before a collective times out, so that the heartbeat blames the hung rank, not a
rank that waits.
"""


def _check_apart() -> None:
    """Raise RecipeError on all ranks if two would use one GPU; NCCL would print forty lines."""
    if not torch.cuda.is_available():
        return
    mine = str(torch.cuda.get_device_properties(torch.cuda.current_device()).uuid)
    found = {broadcast_object(mine, source) for source in range(size())}
    if len(found) < size():
        raise RecipeError(
            Problem(
                "training.devices",
                f"{size()} processes have {len(found)} GPUs between them, expected one each",
                "Ask for as many GPUs as processes, or start fewer",
            )
        )


@contextmanager
def member(recipe: Recipe) -> Iterator[None]:
    """Join the other ranks, if this process is one of several. The first rank that fails reports."""
    where = place()
    if where is None or where.size == 1:
        yield
        return
    try:
        require_equal_shares(recipe, where.size)
    except RecipeError:  # all ranks raise this, and none may exit while others wait for it to join
        if where.rank:
            raise RankError() from None
        raise
    try:
        _join(where, recipe)
        _check_apart()
        yield
    except StoppedError:
        if not heartbeat.beats() and not _first_to_fail():
            raise RankError() from None
        console.err.quiet = False
        heartbeat.stop()
        raise
    except Exception as error:
        if is_lost_peer_error(error):
            raise RankError(*_about_the_lost()) from error
        heartbeat.leave("failed")
        if not _first_to_fail():
            raise RankError() from error
        console.err.quiet = False
        raise
    heartbeat.stop()
    dist.destroy_process_group()
    State.control, State.local = None, 0


def start_heartbeat(folder: Path, timeout: float, step: int) -> None:
    """Start heartbeats. Rank 0 watches all ranks, and rank 1 watches rank 0."""
    if size() == 1 or heartbeat.beats():
        return

    def silent(other: int) -> None:
        # only rank 1 reports rank 0, which may hold the counter of those who report
        if other == 0 or _first_to_fail():
            _leave_note("told")
            heartbeat.leave("failed")
            console.err.quiet = False
            console.fail(
                RankError(heartbeat.gone(folder, other, f"has been silent for {timeout:g} s"))
            )
        exit_now(RankError.exit_code)

    if is_rank_zero():
        beat_file.sweep(folder)
    barrier()
    others = range(1, size()) if is_rank_zero() else [0] if rank() == 1 else []
    heartbeat.start(folder, timeout, step, rank(), others, silent)
    if is_rank_zero():
        _leave_note("folder", str(folder))


def exit_now(code: int) -> None:
    """End the process at once after a failure: leaving a group in order would need all ranks."""
    if dist.is_initialized():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _join(where: Place, recipe: Recipe) -> None:
    exit_with_parent()
    os.environ |= rendezvous.variables()
    cuda = torch.cuda.is_available()
    if cuda:
        take_device(where)
    connect(where, "nccl" if cuda else "gloo", recipe.distributed.timeout)
    if where.rank:
        console.out.quiet = console.err.quiet = True


def connect(where: Place, backend: str, timeout: float) -> None:
    """Connect to the other ranks. Raises RankError that says what to check."""
    address, port = os.environ["MASTER_ADDR"], os.environ["MASTER_PORT"]
    try:
        socket.getaddrinfo(address, port)  # torch prints forty lines for an unknown host
        if name := rendezvous.interface(address):
            os.environ.setdefault("GLOO_SOCKET_IFNAME", name)
        allowed = timedelta(seconds=timeout + AFTER)
        dist.init_process_group(backend, timeout=allowed, rank=where.rank, world_size=where.size)
        State.control, State.local = dist.new_group(backend="gloo", timeout=allowed), where.local
        torch_private.extend_timeout(
            State.control, PATIENCE
        )  # the short timeout is for connecting only
    except (RuntimeError, ValueError, OSError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
        raise RankError(
            Problem(
                f"rank {where.rank} of {where.size}",
                f"could not join the others at {address}:{port} ({reason})",
                "See that all were started, that the port is free, and that GLOO_SOCKET_IFNAME, if it is set, names "
                "the network between the nodes",
            )
        ) from error


def exit_with_parent() -> None:
    """End this process when its parent is killed: nobody would report or stop it."""
    note = Path(os.environ.get(NOTES, ""), PARENT)
    parent = (
        int(note.read_text()) if NOTES in os.environ and note.exists() else os.getppid()
    )  # else gone already

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(beat_file.TICK)
        os._exit(RankError.exit_code)

    threading.Thread(target=watch, daemon=True).start()


def is_lost_peer_error(error: BaseException) -> bool:
    """Return True if an error only says that another rank is gone."""
    return isinstance(error, dist.DistError) or (
        isinstance(error, RuntimeError)
        and re.search("gloo|NCCL|Connection closed", str(error)) is not None
    )


def _about_the_lost() -> list[Problem]:
    """Describe the lost ranks, on one rank; nothing if medgen started the ranks of this node, and
    so reports them.
    """
    if NOTES in os.environ:
        return []
    line = None
    if heartbeat.beats():
        line = heartbeat.lost(size())
    elif _first_to_fail():
        what = f"rank {rank()} lost the others before it trained"
        line = Problem("", what, "Give the same command again")
    if line is None:
        return []
    console.err.quiet = False
    return [line]


def _first_to_fail() -> bool:
    """Return True on the first rank that reports an error."""
    where = place()
    try:
        if dist.is_initialized():
            first = torch_private.count_in_store("medgen/failed") == 1
        else:  # one rank per node reports, as nodes cannot ask each other
            first = where is None or where.local == 0
    except RuntimeError:  # the rank that holds the counter is gone
        return False
    if first:
        _leave_note("told")
    return first


def _leave_note(name: str, text: str = "") -> None:
    """Leave a note for the medgen process that started this one, if any."""
    if NOTES in os.environ:
        Path(os.environ[NOTES], name).write_text(text, encoding="utf-8", errors="surrogateescape")
