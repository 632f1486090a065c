"""Define the run that callbacks see, as `medgen.Run`: a recipe being trained, and its folder.

Parts: models and data (`state`), counters (`progress`), reasons to stop (`stopping`), checkpoints
(`saving`). Only these assign to a run.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pluggy

from medgen.api.hooks import Lifecycle
from medgen.api.interfaces import Callback
from medgen.ranks import collectives, heartbeat
from medgen.run import auto_settings, saving
from medgen.run.state import RunState
from medgen.run.stopping import Stopping
from medgen.run.weights import load_into


class MemoryTrial(NamedTuple):
    """Name what is tried before the first step.

    smaller: `KEY=VALUE` that needs less memory and may change.
    """

    what: str
    smaller: str = ""


class TrainingRun(RunState):
    """Train, show, stop and save a recipe. Built by `assemble`; arguments as `RunState`."""

    trial: MemoryTrial | None = None
    """What is tried before the first step."""
    compiles = False
    """True if the turns are compiled, as tried in this process."""

    def __init__(self, *parts: Any):
        super().__init__(*parts)
        self.plugins = pluggy.PluginManager("medgen")
        self.plugins.add_hookspecs(Lifecycle)
        self.cadences: set[int] = {50}
        self.stops = Stopping(self.progress)
        self._flush: Callable[[], None] = lambda: None

    @property
    def hooks(self) -> pluggy.HookRelay:
        """Return the hooks of all callbacks of this run."""
        return self.plugins.hook

    def register(self, callbacks: Mapping[str, Callback]) -> None:
        """Register callbacks by name, called in this order.

        Raises pluggy's error for a misspelt hook.
        """
        self.callbacks |= callbacks
        for name in reversed(list(callbacks)):  # pluggy calls what was registered last first
            self.plugins.register(callbacks[name], name=name)
        self.plugins.check_pending()

    @contextmanager
    def trying(self, what: str, smaller: str = "") -> Iterator[None]:
        """Name what the block tries before the first step; after an error the message has the name."""
        self.trial = MemoryTrial(what, smaller)
        yield
        self.trial = None

    def settle_compile(self, works: bool) -> None:
        """Record whether compiled turns work here; the decision replaces `training.compile =
        "auto"` for the run's life.
        """
        self.compiles = works
        if works or self.recipe.training.compile == auto_settings.AUTO:
            self.recipe = auto_settings.fill(self.recipe, {"compile": works})

    @property
    def current(self) -> TrainingRun | None:
        """Return the run that trains now: this run."""
        return self

    @property
    def stopping(self) -> str | None:
        """Return the reason to stop, or None."""
        return self.stops.reason

    @property
    def deadline(self) -> float:
        """Return the time, as of `time.time()`, by which everything must be saved."""
        return self.stops.deadline

    @property
    def has_advanced(self) -> bool:
        """Return True once this process has finished a step, or an epoch's end."""
        return self.stops.has_advanced

    def limit(self, deadline: float, until: int | None = None) -> None:
        """Set the time by which everything must be saved, and a step at which to stop early."""
        self.stops.limit(deadline, until)

    def stop(self, reason: str) -> None:
        """End the fit before the next step."""
        self.stops.request(reason)

    def stop_agreed(self) -> bool:
        """Return True if all ranks agree to stop now. Collective."""
        return self.stops.agreed()

    @property
    def is_rank_zero(self) -> bool:
        """Return True in the process that writes files and shows progress."""
        return collectives.is_rank_zero()

    def show_every(self, steps: int) -> None:
        """Send measured numbers through `medgen_log` at least every `steps` steps."""
        self.cadences.add(steps)

    def read_with(self, flush: Callable[[], None]) -> None:
        """Set the function that reads measured numbers from the device; saves call `flush` first."""
        self._flush = flush

    def flush(self) -> None:
        """Read the numbers measured since the last call from the device, and log them. Collective."""
        self._flush()

    def log(self, scalars: Mapping[str, float], images: Mapping[str, Any] | None = None) -> None:
        """Log pictures (uint8 `[height, width, 3]`) and numbers, these also in `metrics.jsonl`."""
        if not self.is_rank_zero:
            return
        if scalars:
            self.metrics_file.write(self.step, self.epoch, scalars)
        self.hooks.medgen_log(run=self, scalars=scalars, images=images or {})

    def save(self, name: str = "latest.pt") -> Path:
        """Write a checkpoint into the run's folder; the previous `latest.pt` becomes `prev.pt`.

        Collective.
        """
        self.flush()
        path, began = self.dir / name, time.time()
        with heartbeat.busy():
            if self.is_rank_zero:
                saving.write(self, path)
                if name == "latest.pt":  # before the barrier, which a dead rank may break
                    heartbeat.mark(saved=self.step)
            collectives.barrier()
        self.stops.note_save(time.time() - began)
        return path

    def state_dict(self) -> dict[str, Any]:
        """Return the whole state as plain values and tensors, without paths and patient ids."""
        return saving.state_of(self)

    def load_state_dict(self, state: Mapping[str, Any], source: Path) -> None:
        """Restore the state of a checkpoint.

        Raises CheckpointError that names `source` if anything does not fit.
        """
        saving.restore(self, state, source)

    def start_from(self, weights: Mapping[str, Any], source: Path) -> None:
        """Replace the initial weights. Raises CheckpointError, as `load_into`."""
        for module in (self.network, self.averaged):
            if module is not None:
                load_into(module, weights, source)
