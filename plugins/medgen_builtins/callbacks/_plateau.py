"""The end of a phase: a curve that no longer falls."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from typing import Any, NamedTuple

from medgen import Callback, DataError, Problem, RecipeError, Run, hookimpl

KEY = "callbacks.progressive_vae"


class Rule(NamedTuple):
    """When a curve counts as flat; see the settings `ProgressiveVae`."""

    metric: str
    window: int
    min_improvement: float
    min_epochs: int
    patience: int


class Plateau(Callback):
    """Notices when a curve stops falling; a callback of a phase, whose checkpoints keep its state.

    The mean is that of the last `window` values, or of as many as there are. Up to the epoch
    `min_epochs`, the best mean is simply the last. From then on an epoch is one of progress if its
    mean is `min_improvement` percent below the best, which it then becomes. After `patience` epochs
    in a row without progress it fires: for a flat curve at the epoch `min_epochs + patience`. A
    value that is not finite is no progress and is left out of the mean.
    """

    def __init__(self, rule: Rule):
        self.rule = rule
        self.recent: deque[float] = deque(maxlen=rule.window)
        self.best: float | None = None
        self.epochs = self.waited = 0

    @property
    def fired(self) -> bool:
        """Return True once the curve has reached its plateau."""
        return self.waited >= self.rule.patience

    def add(self, value: float) -> bool:
        """Take the next epoch's value. Returns `fired`."""
        self.epochs += 1
        progress = self._progress(value) if math.isfinite(value) else False
        self.waited = 0 if progress or self.epochs <= self.rule.min_epochs else self.waited + 1
        return self.fired

    def _progress(self, value: float) -> bool:
        self.recent.append(value)
        mean = math.fsum(self.recent) / len(self.recent)
        if self.best is None or self.epochs <= self.rule.min_epochs:
            self.best = mean
            return True
        better = mean < self.best - abs(self.best) * self.rule.min_improvement / 100
        self.best = mean if better else self.best
        return better

    @hookimpl
    def medgen_run_start(self, run: Run) -> None:
        if run.val.size == 0:
            raise DataError(
                Problem(
                    KEY,
                    "no slices are held out, so no plateau can be seen",
                    "Raise data.val_fraction",
                )
            )
        if self.fired:
            run.stop("a plateau")

    @hookimpl
    def medgen_epoch_end(self, run: Run, metrics: Mapping[str, float]) -> None:
        if metrics and self.add(self._value(metrics)):
            run.stop("a plateau")

    def state_dict(self) -> dict[str, Any]:
        return {
            "recent": list(self.recent),
            "best": self.best,
            "epochs": self.epochs,
            "waited": self.waited,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.recent.extend(state["recent"])
        self.best, self.epochs, self.waited = state["best"], state["epochs"], state["waited"]

    def _value(self, metrics: Mapping[str, float]) -> float:
        name = self.rule.metric
        if name.lstrip("-") not in metrics:
            raise RecipeError(
                Problem(
                    f"{KEY}.metric",
                    f"got {name!r}, expected one of {', '.join(metrics)}",
                    "Choose one",
                )
            )
        return -metrics[name[1:]] if name.startswith("-") else metrics[name]
