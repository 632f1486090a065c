"""Signals that ask for an end: what is being done stops where nothing is lost."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

NAMES = {
    signal.SIGTERM: "SIGTERM",
    signal.SIGUSR1: "SIGUSR1",
    signal.SIGHUP: "SIGHUP",
    signal.SIGINT: "Ctrl-C",
}

SAME = 1.0
"""Seconds in which a signal that comes twice is one: Slurm sends it to every process, and each
passes it on.
"""


def exit_code_for(reason: str | None) -> int:
    """Return the exit code after a stop: 130 for Ctrl-C, else 75, so that jobs are requeued.

    reason: a signal's name in `NAMES`, or any other reason to stop.
    """
    return 130 if reason == NAMES[signal.SIGINT] else 75


class RepeatFilter:
    """Tells signals sent again by someone who will not wait from those delivered twice."""

    def __init__(self, clock: Callable[[], float] = time.monotonic):
        self._clock = clock
        self._heard: dict[int, float] = {}

    def first(self, number: int) -> bool:
        """Return whether a signal is the first of its kind; a repeated one ends the process.

        SLURM sends SIGUSR1 first and SIGTERM later, so one of another kind must not.
        """
        now, before = self._clock(), self._heard.get(number)
        if before is None:
            self._heard[number] = now
        elif now - before > SAME:
            os._exit(128 + number)
        return before is None


class Stop:
    """Whether to stop, and why. command: what to type to go on."""

    def __init__(self, command: str = "the same command"):
        self.command = command
        self.reason: str | None = None

    @property
    def exit_code(self) -> int:
        """Return the exit code for the reason."""
        return exit_code_for(self.reason)


@contextmanager
def answered(answer: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Send signals that ask for an end to `answer`, but SIGHUP of a closing terminal under `nohup`."""
    meant = [
        each for each in NAMES if each != signal.SIGHUP or signal.getsignal(each) != signal.SIG_IGN
    ]
    before = {number: signal.signal(number, answer) for number in meant}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def asked_to_stop(command: str) -> Iterator[Stop]:
    """Let the first signal set the reason and nothing else; a repeated one ends the process."""
    stop, ear = Stop(command), RepeatFilter()

    def handle(number: int, _: FrameType | None) -> None:
        if ear.first(number):
            stop.reason = stop.reason or NAMES[signal.Signals(number)]

    with answered(handle):
        yield stop
