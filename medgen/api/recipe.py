"""What a recipe is, and what the settings classes derive from that it composes."""
# mypy: disable-error-code="empty-body"

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Protocol

import attrs

from medgen.api.contract import Contract
from medgen.api.interfaces import Callback, LossFunction, Space, Strategy
from medgen.api.run_state import RunState
from medgen.api.tables import DataSettings, DistributedSettings, RunSettings, TrainingSettings
from medgen.api.values import Better, Mode
from medgen.errors import Problem

if TYPE_CHECKING:
    import torch
    from torch import nn


class Settings(Contract):
    """A table of a recipe. Fields are its keys; all else are the members of a kind."""

    may_change: ClassVar[tuple[str, ...]] = ()
    """Names of the keys that a resumed run may alter; all others are refused."""

    def check(self, recipe: Recipe) -> Iterable[Problem]:
        """Find mistakes that involve several keys or tables, each with its key path as `where`."""
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

    output: ClassVar[str] = ""
    """Name of the setting that says what the network puts out; empty without one."""

    def metrics(self, recipe: Recipe) -> Mapping[str, Better] | None:
        """Return the names of metrics besides `loss/val` and its terms; None if not known yet."""
        return None

    def build(self) -> Strategy:
        """Return the strategy."""


class SpaceSettings(Settings):
    """Where samples are diffused."""

    measures: ClassVar[bool] = False
    """True if the space measures `moments` of its channels."""
    output: ClassVar[str] = ""
    """Name of the setting that says what a network is given and puts out; empty without one."""

    def spatial(self, size: Sequence[int]) -> tuple[int, ...]:
        """Return the spatial size of an encoded sample, for the checks of a recipe."""
        return tuple(size)

    def build(self, mode: Mode, device: torch.device, axes: int = 2) -> Space:
        """Return the space.

        axes: spatial ones of a sample, given for volumes only; a plugin of slices may leave it out.
        """


class NetworkSettings(Settings):
    """What learns."""

    checkpointing: bool = True
    """A field of this name, if it has one, saves memory by computing activations again; True:
    nothing more to save.
    """
    latent_channels: int = 0
    """Channels of the latents of an autoencoder; 0: the network is none."""

    def build(self, in_channels: int, out_channels: int, axes: int = 2) -> nn.Module:
        """Return a module `network(x, t)`, t in 0..1000; an autoencoder has `encode` and `decode`.

        axes: spatial ones of a sample, given for volumes only; a plugin of slices may leave it out.
        """


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
        """Return the names of what its `medgen_validate` gives, so that
        `callbacks.checkpoints.metric` may be one.
        """
        return {}

    def build(self, run: Run) -> Callback:
        """Return the object with lifecycle hooks."""


class PhasedSettings(Settings):
    """A callback that owns the fit with `medgen_fit`; its run is a `PhasedRun` of child runs."""

    def phases(self, recipe: Recipe) -> Mapping[str, Recipe]:
        """Return the recipe of each child run by the name of its folder, in order."""

    def build(self) -> Callback:
        """Return the object that trains them."""


class TableSettings(Settings):
    """A table that a plugin's command reads."""

    public: ClassVar[bool] = True
    """False: left out of checkpoints, as it names users or folders and changes no result."""


class WeightsSettings(Settings):
    """Trained weights that a package brings; recipes name them where they name a checkpoint."""

    files: ClassVar[Mapping[str, Path]]
    """Files of `medgen export-weights` by what they are for: the name of a mode, or `autoencoder`; with
    `_3d` at its end if they are for volumes.
    """


@attrs.frozen(kw_only=True)
class Recipe:
    """An experiment: settings objects, all defaults filled in. `names` has the plugin's name for
    each single kind.
    """

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
        """Return what each loss is multiplied by."""
        return {name: loss.weight for name, loss in self.losses.items()}


class Run(RunState, Protocol):
    """A run as callbacks see it: what trains, and how far it is. See `RunState` for more members."""

    @property
    def recipe(self) -> Recipe:
        """Return the resolved recipe."""
