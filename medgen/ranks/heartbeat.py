"""Keep the heartbeat of this process, and report ranks whose heartbeat stops.

Before `start` is called, all functions do nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

from medgen.errors import Problem, continue_command
from medgen.ranks.beat_file import TICK, Heartbeat, read_beat

LOOK = 8 * TICK
"""Seconds within which a living rank writes a heartbeat or ends."""


_pulse: Heartbeat | None = None


def start(
    folder: Path,
    timeout: float,
    step: int,
    rank: int,
    others: Iterable[int],
    silent: Callable[[int], None],
) -> None:
    """Start writing heartbeats and watching other ranks; see `Heartbeat`."""
    global _pulse
    _pulse = Heartbeat(folder, timeout, step, rank, others, silent)


def stop() -> None:
    """Stop, after all ranks have finished."""
    global _pulse
    if _pulse:
        _pulse.stop()
    _pulse = None


def beats() -> bool:
    """Return True if this process writes heartbeats."""
    return _pulse is not None


def leave(state: str) -> None:
    """Write this rank's final state, as `Heartbeat.leave`."""
    if _pulse:
        _pulse.leave(state)


def lost(count: int) -> Problem | None:
    """Report ranks, of `count`, whose heartbeat stopped after this rank lost its connection.

    Takes `LOOK` seconds. None: a failed rank has reported, or another rank that lost the
    connection will report.
    """
    if not _pulse:
        return None
    folder, before = _pulse.folder, _pulse.heard(count)
    if any(beat and beat.state in ("failed", "lost") for beat in before):
        _pulse.leave("left")
        return None
    _pulse.leave("lost")
    time.sleep(LOOK)
    after = _pulse.heard(count)
    states = [beat.state if beat else "" for beat in after]
    if "failed" in states or "lost" in states[: _pulse.rank]:
        return None
    _pulse.leave("failed")
    silent = [
        n for n in range(count) if states[n] not in ("lost", "left") and before[n] == after[n]
    ]
    if not silent:
        return gone(folder, _pulse.rank, "lost the connection to the others")
    return gone(
        folder, silent[0], f"and {len(silent) - 1} more are gone" if silent[1:] else "is gone"
    )


def mark(step: int | None = None, saved: int | None = None) -> None:
    """Count progress of this rank. step: optimizer steps done. saved: step of `latest.pt`."""
    if not _pulse:
        return
    _pulse.step = _pulse.step if step is None else step
    _pulse.mark(_pulse.state)
    if saved is not None:
        _pulse.saved = saved
        with suppress(OSError):
            _pulse.write()  # a report of a rank's end reads `saved` here


def working() -> AbstractContextManager[None]:
    """Require progress within the timeout while the block trains."""
    return _doing("working")


def waiting() -> AbstractContextManager[None]:
    """Allow any time while the block waits for other ranks."""
    return _doing("waiting")


def busy() -> AbstractContextManager[None]:
    """Allow any time while the block does a long operation, such as a save."""
    return _doing("busy")


@contextmanager
def _doing(state: str) -> Iterator[None]:
    pulse = _pulse
    if pulse is None:
        yield
        return
    before = pulse.state
    pulse.mark(state)
    try:
        yield
    finally:
        pulse.mark(before)


def gone(folder: Path, number: int, what: str, options: str = "") -> Problem:
    """Describe the end of a rank that could not report, with the command that continues the run."""
    beat, first = read_beat(folder, number), read_beat(folder, 0)
    who = f"rank {number}" + (f" (pid {beat.pid})" if beat else "")
    at = (
        f" at step {max(beat.step, first.saved if first else 0)}" if beat else ""
    )  # every rank takes part in a save
    saved = f"last checkpoint: step {first.saved}" if first else "see the last checkpoint"
    return Problem(
        folder,
        f"{who} {what}{at}; {saved}",
        "Continue",
        command=f"{continue_command(folder)}{options}",
    )
