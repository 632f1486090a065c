"""What a step measures on the device: kept there, read in one transfer, shown, and stopped on if it
is not finite.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from medgen.api.tables import TrainingSettings
from medgen.errors import NotFiniteError, Problem
from medgen.ranks import collectives
from medgen.run.run import TrainingRun
from medgen.system.console import warn
from medgen.training import device_memory
from medgen.training.throughput import Throughput

Rate = Callable[[int], float]
"""The learning rate of a step, from 0."""


class Readings:
    """Values of the steps since the last flush."""

    def __init__(self, run: TrainingRun, training: TrainingSettings, rate: Rate, speed: Throughput):
        self.run, self.training, self.rate, self.speed = run, training, rate, speed
        self.pending: list[tuple[int, int, dict[str, Tensor]]] = []
        self.skipped = torch.tensor(float(run.progress.skipped), device=run.device)

    def add(self, record: dict[str, Tensor]) -> None:
        """Keep the values of the step that is done, by name, on the device."""
        self.pending.append((self.run.step, self.run.epoch, record))

    def note_skip(self, bad: Tensor) -> None:
        """Count consecutive updates that were left out. bad: 1 for this one, else 0."""
        self.skipped = (self.skipped + bad) * bad

    def discard(self) -> None:
        """Forget unread values, of steps that are no part of the run."""
        self.pending.clear()

    def flush(self) -> None:
        """Read what was measured since the last time, in one transfer, and show it. Collective."""
        if not self.pending:
            return
        lines = self._read()
        self._report_skipped(lines)
        if collectives.is_rank_zero():
            self._show(lines)
        self._check_skipped()

    def _show(self, lines: list[tuple[int, int, dict[str, float]]]) -> None:
        run = self.run
        step, epoch, last = lines.pop()
        for line in lines:
            run.metrics_file.write(*line)
        every = [*(values for *_, values in lines), last]
        means = {name: sum(values[name] for values in every) / len(every) for name in last}
        status = self._status()
        run.metrics_file.write(step, epoch, {**last, **status})
        run.hooks.medgen_log(run=run, scalars={**means, **status}, images={})
        noticed = [turn.warning(step, means) for turn in run.turns.values()]
        for each in filter(None, [*noticed, self.speed.notice()]):
            warn(each)
        self.speed.restart()

    def _read(self) -> list[tuple[int, int, dict[str, float]]]:
        names = [list(record) for *_, record in self.pending]
        flat = [value for *_, record in self.pending for value in record.values()]
        shared = [key.startswith("loss/") for keys in names for key in keys]
        values: Iterator[float] = iter(
            collectives.all_reduce_selected(torch.stack([*flat, self.skipped]), [*shared, False])
        )
        lines = [
            (step, epoch, {key: next(values) for key in keys})
            for (step, epoch, _), keys in zip(self.pending, names, strict=True)
        ]
        self.run.progress.skipped = int(next(values))
        self.pending = []
        return lines

    def _status(self) -> dict[str, float]:
        run = self.run
        skipped = {"skipped": float(run.progress.skipped)} if run.progress.skipped else {}
        return skipped | {
            "learning_rate": self.rate(run.step - 1),
            **self.speed.read(),
            "memory_gb": device_memory.peak(run.device) / 1e9,
        }

    def _report_skipped(self, lines: list[tuple[int, int, dict[str, float]]]) -> None:
        size = self.training.batch_size
        for step, _, values in lines:
            if not all(
                math.isfinite(norm) for name, norm in values.items() if name.startswith("grad_norm")
            ):
                rows = self.run.train.slices((step - 1) * size, size)
                which = f"{self.run.recipe.data.noun} {', '.join(map(str, rows))} of the store"
                warn(f"step {step} was not finite and is left out ({which}).")

    def _check_skipped(self) -> None:
        run, skipped = self.run, self.run.progress.skipped
        if skipped > self.training.max_skipped:
            raise NotFiniteError(
                Problem(
                    run.dir,
                    f"{skipped} steps in a row were not finite, last good: step {run.step - skipped}",
                    "Lower training.learning_rate or use training.precision=fp32, then resume",
                )
            )
