"""A run: a recipe being trained, and its folder. This is what callbacks see."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import pluggy
import torch
from torch import Tensor, nn

from medgen.api.interfaces import Callback, Space, Turn
from medgen.api.recipe import Recipe
from medgen.api.tables import TrainingSettings
from medgen.api.values import Batch, Mode
from medgen.config.recipe import public_toml
from medgen.data.store.loader import Loader
from medgen.errors import CheckpointError, StorageError
from medgen.ranks import collectives, heartbeat
from medgen.run import checkpoint
from medgen.run.metrics_file import MetricsFile
from medgen.run.versions import versions
from medgen.system.console import warn

if TYPE_CHECKING:
    from medgen.data.store.latent_store import LatentStore
    from medgen.data.store.store import SliceStore

RETRY_AFTER = (1.0, 5.0, 20.0)
"""Seconds before each further try to save: quotas are raised and file systems come back."""
TIME_LIMIT, REQUEST = "the time limit", "request"
"""Why a run stops, besides signals and what callbacks say."""
SAVES_LEFT = 3
"""So many times the slowest save is kept free before a time limit."""


def learning_rate(training: TrainingSettings, step: int, total: int) -> float:
    """The rate of step 0..total-1: linear warm-up, then cosine, linear or constant down to `min_lr` times the peak."""
    if step < training.warmup_steps:
        return training.learning_rate * (step + 1) / training.warmup_steps
    done = (step - training.warmup_steps) / max(1, total - training.warmup_steps)
    shape = {"cosine": 0.5 * (1 + math.cos(math.pi * done)), "linear": 1 - done, "constant": 1.0}[training.schedule]
    return training.learning_rate * (training.min_lr + (1 - training.min_lr) * shape)


class MemoryTrial(NamedTuple):
    """What is tried out before the first step. smaller: `KEY=VALUE` that would need less memory, and may change."""

    what: str
    smaller: str = ""


class TrainingRun:
    """Everything that trains, where it stands, and how to save it. `network` is the raw module, never a wrapper.

    `averaged` is a slot that a callback may fill with a module; checkpoints store it and `generate` prefers it.
    """

    averaged: nn.Module | None = None
    plugins: pluggy.PluginManager
    metrics_file: MetricsFile
    flush: Callable[[], None]
    """Reads what has been measured from the device; whoever trains sets it, so that a save misses no line."""
    deadline = math.inf
    """The time (as of `time.time()`) by which everything must be saved."""
    until: int | None = None
    """A step to stop at, although more are planned."""
    trial: MemoryTrial | None = None
    """What is being tried out before the first step."""
    compiles = False
    """Whether the turns are compiled, as tried in this process."""
    most_epochs: int | None = None
    """Epochs after which a child run ends, if not before."""

    def __init__(
        self,
        recipe: Recipe,
        folder: Path,
        device: torch.device,
        store: SliceStore,
        mode: Mode,
        space: Space,
        strategy: Any,
        network: nn.Module,
        turns: Mapping[str, Turn],
        prepared: LatentStore | None = None,
    ):
        self.recipe, self.dir, self.device, self.store = recipe, folder, device, store
        self.mode, self.space, self.strategy, self.network, self.turns = mode, space, strategy, network, dict(turns)
        self.train = Loader(store, mode, "train", recipe.run.seed, prepared)
        self.val = Loader(store, mode, "val", prepared=prepared)
        self.channels_last = channels_last(recipe.training, network)
        self.optimizers = {name: optimizer(turn, recipe.training) for name, turn in turns.items()}
        self.callbacks: dict[str, Callback] = {}
        self.cadences: set[int] = {50}
        self.step = self.samples = self.epochs_ended = self.skipped = 0
        self.stopping: str | None = None
        self._began, self._seconds = time.monotonic(), 0.0
        self._asked, self._longest, self._saving = 0.0, 0.0, 0.0
        self._first: tuple[int, int] | None = None
        self._measures = False
        self._vote, self._decided = collectives.AsyncAny(), False
        self.flush = lambda: None

    @property
    def hooks(self) -> pluggy.HookRelay:
        """The hooks of everything that takes part in this run."""
        return self.plugins.hook

    @contextmanager
    def trying(self, what: str, smaller: str = "") -> Iterator[None]:
        """Name what is tried before the first step; after an error the name stays, for its line."""
        self.trial = MemoryTrial(what, smaller)
        yield
        self.trial = None

    @property
    def masks(self) -> frozenset[str]:
        """Names of the channels that are masks."""
        return self.store.masks

    @property
    def epoch_samples(self) -> int:
        """Samples in an epoch, as logs, validation and checkpoints count them."""
        training = self.recipe.training
        cap = training.epoch_steps * training.batch_size
        return min(self.train.size, cap) if cap else self.train.size

    @property
    def total_steps(self) -> int:
        """Optimizer steps of the whole run."""
        training = self.recipe.training
        steps = training.steps or self._steps(training.epochs)
        return steps if self.most_epochs is None else min(steps, self._steps(self.most_epochs))

    def _steps(self, epochs: int) -> int:
        return math.ceil(epochs * self.epoch_samples / self.recipe.training.batch_size)

    @property
    def epoch(self) -> int:
        """The epoch of the last sample seen, from 1."""
        return max(0, self.samples - 1) // self.epoch_samples + 1

    @property
    def epoch_due(self) -> bool:
        """An epoch's samples have been seen, and its end has not been worked off yet; the last may be short."""
        seen = self.samples / self.epoch_samples
        return (math.ceil(seen) if self.complete else math.floor(seen)) > self.epochs_ended

    @property
    def complete(self) -> bool:
        """Every step is done."""
        return self.step >= self.total_steps

    @property
    def seconds(self) -> float:
        """Training time over all processes that worked on this run."""
        return self._seconds + time.monotonic() - self._began

    def reopen_epoch(self) -> None:
        """A run that was complete goes on for longer: its last epoch, if it was short, has not ended after all."""
        if not self.complete:
            self.epochs_ended = min(self.epochs_ended, self.samples // self.epoch_samples)

    def stop(self, reason: str) -> None:
        """End the fit before the next step."""
        self.stopping = self.stopping or reason

    @property
    def has_advanced(self) -> bool:
        """Whether this process has finished a step, or an epoch's end."""
        return self._first is not None and (self.step, self.epochs_ended) != self._first

    def stop_agreed(self) -> bool:
        """True if all ranks agree to stop, which is asked between any two pieces of work. Collective.

        Leaves room before the deadline for another piece that takes as long as the longest so far, and for saves. What
        comes before the second step, such as compilation, is no such piece.
        """
        now = time.time()
        if self._first is None:
            self._first = self.step, self.epochs_ended
        if self._measures:
            self._longest = max(self._longest, now - self._asked)
        self._measures, self._asked = self.has_advanced, now
        saves = SAVES_LEFT if self.has_advanced else 1
        if now + self._longest + saves * self._saving > self.deadline:
            self.stop(TIME_LIMIT)
        if self.step == self.until:
            self.stop(f"{REQUEST} at step {self.until}")
        if not self._decided and self._vote(self.stopping is not None):
            self.stopping, self._decided = collectives.first_stop_reason(self.stopping), True
        return self._decided

    @property
    def is_rank_zero(self) -> bool:
        """Whether this process writes and shows; of several that train together one does."""
        return collectives.is_rank_zero()

    def show_every(self, steps: int) -> None:
        """Ask that numbers are read from the device and pass through `medgen_log` at least every so many steps."""
        self.cadences.add(steps)

    def learning_rate(self, step: int) -> float:
        """The rate of a step (from 0)."""
        return learning_rate(self.recipe.training, step, self.total_steps)

    def to_device(self, batch: Batch) -> Batch:
        """What a feed's `at` or `stored` gave, on the run's device and prepared by the space."""
        image, condition = (part.to(self.device, non_blocking=True).float() for part in batch)
        return Batch(image if self.train.prepared else self.space.prepare(image), condition)

    def log(self, scalars: Mapping[str, float], images: Mapping[str, Any] | None = None) -> None:
        """Show numbers and pictures (uint8 `[height, width, 3]`); the numbers also go to `metrics.jsonl`."""
        if not self.is_rank_zero:
            return
        if scalars:
            self.metrics_file.write(self.step, self.epoch, scalars)
        self.hooks.medgen_log(run=self, scalars=scalars, images=images or {})

    def save(self, name: str = "latest.pt") -> Path:
        """Write a checkpoint into the run's folder; the last `latest.pt` stays as `prev.pt`.

        All ranks call it and wait, rank 0 writes.
        """
        self.flush()
        path, began = self.dir / name, time.time()
        with heartbeat.busy():
            if self.is_rank_zero:
                self._write(path)
                if name == "latest.pt":  # told before the wait, which another rank's end may cut short
                    heartbeat.mark(saved=self.step)
            collectives.barrier()
        self._saving = max(self._saving, time.time() - began)
        return path

    def state_dict(self) -> dict[str, Any]:
        """The whole state, in plain values and tensors; no paths and no patient ids."""
        return {
            "recipe": public_toml(self.recipe),
            "network": self.network.state_dict(),
            "turns": {name: dict(own_state(turn, self.network)) for name, turn in self.turns.items()},
            "averaged": None if self.averaged is None else self.averaged.state_dict(),
            "space": dict(self.space.state_dict()),
            "optimizers": {name: optimizer.state_dict() for name, optimizer in self.optimizers.items()},
            "callbacks": {name: each.state_dict() for name, each in self._with_state()},
            "position": {name: getattr(self, name) for name in PROGRESS_FIELDS},
            "data": self._data(),
            "channels_last": self.channels_last,
            "journal": self.metrics_file.length(),
            "seconds": self.seconds,
            "versions": versions(),
        }

    def load_state_dict(self, state: Mapping[str, Any], source: Path) -> None:
        """Take back what `state_dict` gave; everything in it must fit. Raises CheckpointError naming `source`."""
        try:
            self._restore(state, source)
        except KeyError as error:
            raise CheckpointError(f"{source}: the key {error} is missing. Resume with what wrote it.") from error

    def start_from(self, weights: Mapping[str, Any], source: Path) -> None:
        """Begin with these weights instead of random ones; strictly, as `load_into`."""
        for module in (self.network, self.averaged):
            if module is not None:
                load_into(module, weights, source)

    def _restore(self, state: Mapping[str, Any], source: Path) -> None:
        stateful = dict(self._with_state())
        if set(state["callbacks"]) != set(stateful):
            given, wanted = sorted(state["callbacks"]), sorted(stateful)
            raise CheckpointError(
                f"{source}: has the state of callbacks {given}, the recipe has {wanted}. "
                "Resume with the run's own recipe."
            )
        load_into(self.network, state["network"], source)
        for name, turn in self.turns.items():
            _load(own_state(turn, self.network), state["turns"][name], source)
        if self.averaged is not None:
            load_into(self.averaged, state["averaged"], source)
        self.space.load_state_dict(state["space"])
        for name, each in self.optimizers.items():
            each.load_state_dict(state["optimizers"][name])
        for name, callback in stateful.items():
            callback.load_state_dict(state["callbacks"][name])
        for name in PROGRESS_FIELDS:
            setattr(self, name, state["position"][name])
        self._seconds = state["seconds"]
        if state["data"]["fingerprint"] != self.store.fingerprint:  # the caller has accepted that
            self.epochs_ended = self.samples // self.epoch_samples

    def _data(self) -> dict[str, Any]:
        sizes = {"train": self.train.size, "val": self.val.size}
        patients = {split: self.store.patients(split) for split in sizes}
        return {
            "fingerprint": self.store.fingerprint,
            "spacing": float(self.store.spacing),
            "samples": sizes,
            "patients": patients,
        }

    def _write(self, path: Path) -> None:
        """A failure is tried again a few times, unless nothing was trained that could be lost."""
        previous = self.dir / "prev.pt" if path.name == "latest.pt" else None
        for wait in RETRY_AFTER if self.step else ():
            try:
                return checkpoint.save(self.state_dict(), path, previous)
            except StorageError as error:
                warn(f"{error.problems[0].split('. ')[0]}. Trying again in {wait:.0f} s.")
                time.sleep(wait)
        return checkpoint.save(self.state_dict(), path, previous)

    def _with_state(self) -> list[tuple[str, Any]]:
        return [
            (name, each) for name, each in self.callbacks.items() if type(each).state_dict is not Callback.state_dict
        ]


PROGRESS_FIELDS = ("step", "samples", "epochs_ended", "skipped")


def optimizer(turn: Turn, training: TrainingSettings) -> torch.optim.AdamW:
    """Fused AdamW: three times as fast as the loop, and it skips a step by a flag on the device."""
    return torch.optim.AdamW(
        turn.parameters(), lr=training.learning_rate, betas=turn.betas, weight_decay=training.weight_decay, fused=True
    )


def channels_last(training: TrainingSettings, network: nn.Module) -> bool:
    """The rule: bf16 and every width (what the norms see) at least 128; measured to be slower below."""
    if training.memory_format != "auto":
        return training.memory_format == "channels_last"
    widths = [module.num_channels for module in network.modules() if isinstance(module, nn.GroupNorm)]
    return training.precision == "bf16" and bool(widths) and min(widths) >= 128


def load_into(module: nn.Module, weights: Mapping[str, Any] | None, source: Path) -> None:
    """Strictly: a missing, extra or differently shaped tensor is a CheckpointError."""
    _load(module.state_dict(), weights, source)


def own_state(turn: Turn, network: nn.Module) -> dict[str, Tensor]:
    """What a turn has besides the network, by name: a discriminator's weights, for one."""
    known = {id(each) for each in network.state_dict(keep_vars=True).values()}
    state = cast("nn.Module", turn).state_dict(keep_vars=True)
    return {name: each.detach() for name, each in state.items() if id(each) not in known}


def _load(wanted: Mapping[str, Tensor], weights: Mapping[str, Any] | None, source: Path) -> None:
    given = weights if isinstance(weights, Mapping) else {}
    wrong = [name for name in wanted if getattr(given.get(name), "shape", None) != wanted[name].shape]
    extra = [name for name in given if name not in wanted]
    if wrong or extra:
        first = _misfit([*wrong, *extra][0], given, wanted)
        raise CheckpointError(
            f"{source}: weights do not fit the recipe: {len(wrong)} of {len(wanted)} tensors would stay as they are, "
            f"{len(extra)} are left over ({first}). Use the recipe that trained them."
        )
    with torch.no_grad():
        for name, each in wanted.items():
            each.copy_(given[name])


def _misfit(name: str, given: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    shapes = [f"{tuple(getattr(each[name], 'shape', ()))}" if name in each else "none" for each in (given, wanted)]
    return f"{name}: has {shapes[0]}, expected {shapes[1]}"
