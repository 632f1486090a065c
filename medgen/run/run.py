"""A run: a recipe being trained, and its folder. This is what callbacks see, as `medgen.Run`.

Its parts are what trains (`state`), how far it is (`progress`), when it stops (`stopping`) and its checkpoints
(`saving`). Nobody assigns to a run but these.
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
from medgen.run import choices, saving
from medgen.run.state import RunState
from medgen.run.stopping import Stopping
from medgen.run.weights import load_into


class MemoryTrial(NamedTuple):
    """What is tried out before the first step. smaller: `KEY=VALUE` that would need less memory, and may change."""

    what: str
    smaller: str = ""


class TrainingRun(RunState):
    """A run that can be trained, shown, stopped and saved. Built by `assemble`, which documents the arguments."""

    trial: MemoryTrial | None = None
    """What is being tried out before the first step."""
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
        """The hooks of everything that takes part in this run."""
        return self.plugins.hook

    def register(self, callbacks: Mapping[str, Callback]) -> None:
        """Let callbacks take part, by name, in this order. Raises pluggy's error for a misspelt hook."""
        self.callbacks |= callbacks
        for name in reversed(list(callbacks)):  # pluggy calls what was registered last first
            self.plugins.register(callbacks[name], name=name)
        self.plugins.check_pending()

    @contextmanager
    def trying(self, what: str, smaller: str = "") -> Iterator[None]:
        """Name what is tried before the first step; after an error the name stays, for its line."""
        self.trial = MemoryTrial(what, smaller)
        yield
        self.trial = None

    def settle_compile(self, works: bool) -> None:
        """Note whether compiled turns work here; what `training.compile = "auto"` stands for is kept with the run."""
        self.compiles = works
        if works or self.recipe.training.compile == choices.AUTO:
            self.recipe = choices.fill(self.recipe, {"compile": works})

    @property
    def current(self) -> TrainingRun | None:
        """The run that trains now: this one."""
        return self

    @property
    def stopping(self) -> str | None:
        """The reason to stop, if there is one."""
        return self.stops.reason

    @property
    def deadline(self) -> float:
        """The time, as of `time.time()`, by which everything must be saved."""
        return self.stops.deadline

    @property
    def has_advanced(self) -> bool:
        """True once this process has finished a step, or an epoch's end."""
        return self.stops.has_advanced

    def limit(self, deadline: float, until: int | None = None) -> None:
        """Set the time by which everything must be saved, and a step to stop at, although more are planned."""
        self.stops.limit(deadline, until)

    def stop(self, reason: str) -> None:
        """End the fit before the next step."""
        self.stops.request(reason)

    def stop_agreed(self) -> bool:
        """True if all ranks agree to stop now. Collective."""
        return self.stops.agreed()

    @property
    def is_rank_zero(self) -> bool:
        """True in the one process that writes files and shows progress."""
        return collectives.is_rank_zero()

    def show_every(self, steps: int) -> None:
        """Request that measured numbers pass through `medgen_log` at least every `steps` steps."""
        self.cadences.add(steps)

    def read_with(self, flush: Callable[[], None]) -> None:
        """Set what reads measured numbers from the device, so that a save misses no line."""
        self._flush = flush

    def flush(self) -> None:
        """Read what has been measured since the last time from the device, and show it. Collective."""
        self._flush()

    def log(self, scalars: Mapping[str, float], images: Mapping[str, Any] | None = None) -> None:
        """Show numbers and pictures (uint8 `[height, width, 3]`); the numbers also go to `metrics.jsonl`."""
        if not self.is_rank_zero:
            return
        if scalars:
            self.metrics_file.write(self.step, self.epoch, scalars)
        self.hooks.medgen_log(run=self, scalars=scalars, images=images or {})

    def save(self, name: str = "latest.pt") -> Path:
        """Write a checkpoint into the run's folder; the last `latest.pt` stays as `prev.pt`. Collective."""
        self.flush()
        path, began = self.dir / name, time.time()
        with heartbeat.busy():
            if self.is_rank_zero:
                saving.write(self, path)
                if name == "latest.pt":  # told before the wait, which another rank's end may cut short
                    heartbeat.mark(saved=self.step)
            collectives.barrier()
        self.stops.note_save(time.time() - began)
        return path

    def state_dict(self) -> dict[str, Any]:
        """Return the whole state, in plain values and tensors; no paths and no patient ids."""
        return saving.state_of(self)

    def load_state_dict(self, state: Mapping[str, Any], source: Path) -> None:
        """Take back the state in a checkpoint; everything in it must fit. Raises CheckpointError naming `source`."""
        saving.restore(self, state, source)

    def start_from(self, weights: Mapping[str, Any], source: Path) -> None:
        """Begin with these weights instead of random ones. Raises CheckpointError, as `load_into`."""
        for module in (self.network, self.averaged):
            if module is not None:
                load_into(module, weights, source)
