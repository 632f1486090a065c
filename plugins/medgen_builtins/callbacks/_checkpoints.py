"""Save a run, and delete what is not kept."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

from medgen import Callback, Run, hookimpl
from medgen.ranks.collectives import AsyncAny
from medgen.run import room

FILES = 4
"""latest.pt, prev.pt, best.pt, and the one being written."""


class Times(NamedTuple):
    """When to save; see the settings `Checkpoints`."""

    every_steps: int
    every_minutes: float
    every_epochs: int


class Saving(Callback):
    """Saves last of all callbacks, so that their state of this moment is in the file."""

    def __init__(self, times: Times, keep: int, metric: str, gain: bool):
        self.times, self.keep, self.metric = times, keep, metric.removeprefix("-")
        self._sign = -1.0 if gain else 1.0
        self._due = AsyncAny()  # ranks have clocks of their own, and save together
        self.best: float | None = None
        self.best_step = 0
        self.epochs: list[str] = []
        self._saved, self._clock = -1, time.monotonic()

    @hookimpl
    def medgen_run_start(self, run: Run) -> None:
        self._saved = run.step
        if run.step == 0:
            self._try(run)

    @hookimpl(trylast=True)
    def medgen_step_end(self, run: Run) -> None:
        if run.epoch_due:  # saved once it is worked off: what it measured would be shown twice after a crash in between
            return
        by_step = self.times.every_steps and run.step % self.times.every_steps == 0
        by_time = self._due(self._minutes() >= self.times.every_minutes)
        if by_step or by_time:
            self._save(run)

    @hookimpl(trylast=True)
    def medgen_epoch_end(self, run: Run, metrics: Mapping[str, float]) -> None:
        value = self._score(metrics)
        if value is not None and (self.best is None or value < self.best):
            self.best, self.best_step = value, run.step
            run.save("best.pt")
        every = self.times.every_epochs
        if every and run.epochs_ended % every == 0:
            self._save_epoch(run)
        self._save(run)

    @hookimpl(trylast=True)
    def medgen_run_end(self, run: Run, error: BaseException | None) -> None:
        if error is None and (self._saved != run.step or not (run.dir / "latest.pt").exists()):
            self._save(run)

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best, "best_step": self.best_step, "epochs": list(self.epochs)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.best, self.best_step, self.epochs = (
            state["best"],
            state["best_step"],
            list(state["epochs"]),
        )

    def _save(self, run: Run) -> None:
        run.save()
        self._saved, self._clock = run.step, time.monotonic()

    def _minutes(self) -> float:
        return (time.monotonic() - self._clock) / 60

    def _score(self, metrics: Mapping[str, float]) -> float | None:
        value = metrics.get(self.metric)
        return None if value is None or not math.isfinite(value) else self._sign * value

    def _save_epoch(self, run: Run) -> None:
        """Write a file, then, once it is on disk, delete the oldest files of this run."""
        name = f"epoch_{run.epochs_ended:05d}.pt"
        kept = [each for each in self.epochs if each != name]
        self.epochs = [*kept, name][-self.keep :]
        run.save(name)
        for old in set(kept) - set(self.epochs):
            (run.dir / old).unlink(missing_ok=True)

    def _try(self, run: Run) -> None:
        """Save before the first step, so that a small or read-only disk fails now."""
        self._save(run)
        if not run.is_rank_zero:
            return
        moments = 2 * sum(each.nbytes for turn in run.turns.values() for each in turn.parameters())
        size = (run.dir / "latest.pt").stat().st_size + moments
        kept = self.keep if self.times.every_epochs else 0
        room.reserve(run.dir, size, FILES + kept)
