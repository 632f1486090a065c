"""Stop a run early, on all ranks at once: by a signal, a callback, a time limit or a step."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager

from medgen.ranks import collectives
from medgen.run.progress import Progress

TIME_LIMIT, REQUEST = "the time limit", "request"
"""Reasons to stop, besides those of signals and callbacks."""
SAVES_LEFT = 3
"""Saves, of the slowest save's duration, for which to leave time before the deadline."""


class Stopping:
    """Hold the reason to stop, if any, and the limits.

    deadline: time, as of `time.time()`, to have saved by. until: step at which to stop early.
    """

    def __init__(self, progress: Progress):
        self.progress = progress
        self.reason: str | None = None
        self.deadline, self.until = math.inf, None
        self._asked = self._longest = self._saving = 0.0
        self._first: tuple[int, int] | None = None
        self._measures = self._decided = False
        self._vote = collectives.AsyncAny()

    until: int | None

    def request(self, reason: str) -> None:
        """Stop before the next step; the first reason counts."""
        self.reason = self.reason or reason

    def limit(self, deadline: float, until: int | None) -> None:
        """Set deadline and step to stop at."""
        self.deadline, self.until = deadline, until

    @contextmanager
    def without_target(self) -> Iterator[None]:
        """Ignore `until` within the block, whose steps do not count."""
        until, self.until = self.until, None
        try:
            yield
        finally:
            self.until = until

    @property
    def has_advanced(self) -> bool:
        """Return True once this process has finished a step, or an epoch's end."""
        return self._first is not None and self._position() != self._first

    def note_save(self, seconds: float) -> None:
        """Record the duration of a save in seconds."""
        self._saving = max(self._saving, seconds)

    def agreed(self) -> bool:
        """Return True if all ranks agree to stop; called between two pieces of work. Collective.

        Leaves time before the deadline for another piece as long as the longest so far, and for
        saves. Work before the second step, such as compilation, does not count as a piece.
        """
        now = time.time()
        if self._first is None:
            self._first = self._position()
        if self._measures:
            self._longest = max(self._longest, now - self._asked)
        self._measures, self._asked = self.has_advanced, now
        saves = SAVES_LEFT if self.has_advanced else 1
        if now + self._longest + saves * self._saving > self.deadline:
            self.request(TIME_LIMIT)
        if self.progress.step == self.until:
            self.request(f"{REQUEST} at step {self.until}")
        if not self._decided and self._vote(self.reason is not None):
            self.reason, self._decided = collectives.first_stop_reason(self.reason), True
        return self._decided

    def _position(self) -> tuple[int, int]:
        return self.progress.step, self.progress.epochs_ended
