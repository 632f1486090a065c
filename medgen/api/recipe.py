"""What a recipe is, and what the settings classes derive from that it composes."""
# mypy: disable-error-code="empty-body"

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import attrs

from medgen.api.contract import Contract
from medgen.api.interfaces import Callback, Extractor, LossFunction, Space, Strategy, Turn
from medgen.api.tables import DataSettings, DistributedSettings, RunSettings, TrainingSettings
from medgen.api.values import Batch, Better, Mode, SliceFacts

if TYPE_CHECKING:
    import numpy as np
    import torch
    from torch import nn


class Settings(Contract):
    """A table of a recipe. Fields are its keys; all else are the members of a kind."""

    may_change: ClassVar[tuple[str, ...]] = ()
    """Names of the keys that a resumed run may alter; all others are refused."""

    def check(self, recipe: Recipe) -> Iterable[str]:
        """Find mistakes that only several keys or tables together can tell.

        Each reads `<key path>: <what is wrong>. <What to do>.`
        """
        return ()


class ModeSettings(Settings):
    """What is generated, given what."""

    def build(self) -> Mode:
        """Return names of channels."""


class StrategySettings(Settings):
    """How a model is trained and sampled."""

    unconditional: ClassVar[bool] = False
    """True if the network gets no condition channels."""
    gives: ClassVar[tuple[str, ...]] = ("target", "x0")
    """Names of what its predictions have, for losses to read."""

    def metrics(self, recipe: Recipe) -> Mapping[str, Better] | None:
        """Return the names of what validation gives besides `loss/val` and its terms; None: not known yet."""
        return None

    def build(self) -> Strategy:
        """Return the strategy."""


class SpaceSettings(Settings):
    """Where samples are diffused."""

    def spatial(self, size: Sequence[int]) -> tuple[int, ...]:
        """Return the spatial size of an encoded sample, for the checks of a recipe."""
        return tuple(size)

    def build(self, mode: Mode, device: torch.device) -> Space:
        """Return the space."""


class NetworkSettings(Settings):
    """What learns."""

    checkpointing: bool = True
    """A field of this name, if it has one, saves memory by computing activations again; True: nothing more to save."""
    latent_channels: int = 0
    """Channels of the latents of an autoencoder; 0: the network is none."""

    def build(self, in_channels: int, out_channels: int) -> nn.Module:
        """Return a module `network(x, t)` with t in 0..1000; an autoencoder: one with `encode` and `decode`."""


class LossSettings(Settings):
    """What is minimised. The core gives every class of this kind a field `weight`."""

    needs: ClassVar[tuple[str, ...]] = ("target",)
    """Names of what it reads of a prediction."""
    weight: float = 1.0
    """What the core multiplies the loss by."""

    def build(self, device: torch.device) -> LossFunction:
        """Return `loss(prediction, noisy)`: `[batch]`, fp32."""


class CallbackSettings(Settings):
    """What takes part in a run."""

    def metrics(self, recipe: Recipe) -> Mapping[str, Better]:
        """Return the names of what its `medgen_validate` gives, so that `callbacks.checkpoints.metric` may be one."""
        return {}

    def build(self, run: Run) -> Callback:
        """Return the object with lifecycle hooks."""


class PhasedSettings(Settings):
    """A callback that owns the fit with `medgen_fit`: its run, a `PhasedRun`, consists of child runs."""

    def phases(self, recipe: Recipe) -> Mapping[str, Recipe]:
        """Return the recipe of each child run by the name of its folder, in order."""

    def build(self) -> Callback:
        """Return the object that trains them."""


class FeaturesSettings(Contract):
    """What images are compared by. Commands take its fields as `features.NAME.KEY=VALUE`."""

    anatomy: bool = False
    """True if the features know heads, so that the verdict on pairs comes from them. A member, or a field."""

    def build(self, device: torch.device) -> Extractor:
        """Return what turns images into features."""


class SegmenterSettings(Contract):
    """What finds lesions. Commands take its fields as `segmenters.NAME.KEY=VALUE`."""

    def build(self, in_channels: int) -> nn.Module:
        """Return a module `network(x)`: images `[n, in_channels, h, w]` in [-1, 1] to logits `[n, 1, h, w]`."""


class TableSettings(Settings):
    """A table that a plugin's command reads."""

    public: ClassVar[bool] = True
    """False: left out of checkpoints, as it names users or folders and changes no result."""


@attrs.frozen(kw_only=True)
class Recipe:
    """An experiment: settings objects, all defaults filled in. `names` has the plugin's name for each single kind."""

    data: DataSettings
    training: TrainingSettings
    run: RunSettings
    distributed: DistributedSettings
    mode: ModeSettings
    strategy: StrategySettings
    space: SpaceSettings
    network: NetworkSettings
    losses: dict[str, LossSettings]
    callbacks: dict[str, CallbackSettings | PhasedSettings]
    tables: dict[str, TableSettings]
    names: dict[str, str]

    @property
    def loss_weights(self) -> dict[str, float]:
        """What each loss is multiplied by."""
        return {name: loss.weight for name, loss in self.losses.items()}


class Slices(Protocol):
    """The slices of one split, in the order of their numbers."""

    @property
    def size(self) -> int:
        """Number of slices."""

    def read(self, numbers: np.ndarray) -> Batch:
        """Images and conditions of these slices, in [-1, 1], on the CPU."""

    def stored(self, numbers: np.ndarray) -> Batch:
        """The same, with images as the space's `prepare` stores them."""

    @property
    def spacing(self) -> float:
        """Return mm per pixel."""

    def facts(self, numbers: np.ndarray) -> SliceFacts:
        """Return whose these slices are, where in the head they lie, and how large their lesions are."""

    def with_large_lesions(self, count: int) -> np.ndarray:
        """Numbers of `count` slices, spread over the half that has the larger lesions."""


class Run(Protocol):
    """Everything that trains, and how far it is. `network` is the raw module, never a wrapper.

    averaged: a slot that a callback may fill with a module; checkpoints store it and `generate` prefers it.
    """

    averaged: nn.Module | None

    @property
    def recipe(self) -> Recipe:
        """The resolved recipe."""

    @property
    def dir(self) -> Path:
        """The run's folder."""

    @property
    def device(self) -> torch.device:
        """The device that this rank trains on."""

    @property
    def mode(self) -> Mode:
        """What is generated, given what."""

    @property
    def space(self) -> Space:
        """Where it is diffused."""

    @property
    def strategy(self) -> Any:
        """What the strategy's `build` gave."""

    @property
    def network(self) -> nn.Module:
        """The network that is trained."""

    @property
    def turns(self) -> Mapping[str, Turn]:
        """The turns of a step by name, in order."""

    @property
    def train(self) -> Slices:
        """The slices to train on."""

    @property
    def val(self) -> Slices:
        """The held-out slices."""

    @property
    def masks(self) -> frozenset[str]:
        """Names of the channels that are masks."""

    @property
    def step(self) -> int:
        """Optimizer steps done."""

    @property
    def total_steps(self) -> int:
        """Optimizer steps of the whole run."""

    @property
    def epoch(self) -> int:
        """The epoch of the last sample seen, from 1."""

    @property
    def epochs_ended(self) -> int:
        """Epochs whose end has been worked off."""

    @property
    def epoch_due(self) -> bool:
        """True between the last sample of an epoch and the work at its end."""

    @property
    def complete(self) -> bool:
        """True once every step is done."""

    @property
    def is_rank_zero(self) -> bool:
        """True in the one process that writes files and shows progress."""

    def to_device(self, batch: Batch) -> Batch:
        """Move a batch to the device, prepared by the space."""

    def log(self, scalars: Mapping[str, float], images: Mapping[str, Any] | None = None) -> None:
        """Show numbers and pictures (uint8 `[height, width, 3]`); the numbers also go to `metrics.jsonl`."""

    def show_every(self, steps: int) -> None:
        """Request that measured numbers pass through `medgen_log` at least every `steps` steps."""

    def flush(self) -> None:
        """Read what has been measured since the last time from the device, and show it. Collective."""

    def save(self, name: str = "latest.pt") -> Path:
        """Write a checkpoint into the run's folder. Collective."""

    def stop(self, reason: str) -> None:
        """End the fit before the next step."""

    def trying(self, what: str, smaller: str = "") -> AbstractContextManager[None]:
        """Name what is tried before the first step, and a `KEY=VALUE` that needs less memory, for errors."""

    def stop_agreed(self) -> bool:
        """True if all ranks agree to stop now. Collective."""
