"""Signals while code of others runs, which may raise what a signal raises, and may catch it."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from medgen.errors import Problem, StoppedError
from medgen.system.signals import NAMES, RepeatFilter, answered


@contextmanager
def interruptible(what: str) -> Iterator[Callable[[], None]]:
    """Answer signals, and yield a function that raises again what a signal raised, if one did.

    A plugin that raises KeyboardInterrupt as it is imported is broken; a user who presses Ctrl-C
    wants an end, though the plugin may have caught that. what: what is being done, for the message.
    """
    raised: list[BaseException] = []
    before: dict[int, Any] = {number: signal.getsignal(number) for number in NAMES}
    ear = RepeatFilter()

    def check() -> None:
        if raised:
            raise raised[0]

    def answer(number: int, frame: FrameType | None) -> None:
        if before[number] == signal.SIG_IGN or not ear.first(number):
            return
        try:
            if callable(before[number]):
                before[number](number, frame)
            else:
                name = NAMES[signal.Signals(number)]
                raise StoppedError(
                    Problem(what, f"stopped by {name}", "Give the same command again")
                )
        except BaseException as error:
            raised.append(error)
            raise

    if threading.current_thread() is threading.main_thread():  # which alone hears signals
        with answered(answer):
            yield check
    else:
        yield check
