"""Signals that ask for an end: what is being done stops where nothing is lost."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

NAMES = {signal.SIGTERM: "SIGTERM", signal.SIGUSR1: "SIGUSR1", signal.SIGINT: "Ctrl-C"}


class Stop:
    """Whether to stop, and why. command: what to type to go on."""

    def __init__(self, command: str = "the same command"):
        self.command = command
        self.reason: str | None = None

    @property
    def exit_code(self) -> int:
        """130 for Ctrl-C, else 75, which asks a scheduler to start the job again."""
        return 130 if self.reason == NAMES[signal.SIGINT] else 75


@contextmanager
def asked_to_stop(command: str) -> Iterator[Stop]:
    """The first signal sets the reason and does nothing else; a second one ends the process at once."""
    stop = Stop(command)

    def handle(number: int, _: FrameType | None) -> None:
        if stop.reason:
            os._exit(128 + number)
        stop.reason = NAMES[signal.Signals(number)]

    before = {number: signal.signal(number, handle) for number in NAMES}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
