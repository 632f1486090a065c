"""Every hook of medgen, and when it is called. This file is the manual; it has no logic."""
# mypy: disable-error-code="empty-body"

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pluggy

if TYPE_CHECKING:
    import click
    from torch import Tensor

    from medgen.api.recipe import Run

hookspec = pluggy.HookspecMarker("medgen")
hookimpl = pluggy.HookimplMarker("medgen")


class Registration:
    """Called once on each plugin module that an entry point of the group `medgen` names."""

    @hookspec
    def medgen_modes(self) -> Mapping[str, type]:
        """Settings classes of modes by name; `build()` gives a `Mode`."""

    @hookspec
    def medgen_strategies(self) -> Mapping[str, type]:
        """Settings classes of strategies by name; `build()` gives a (diffusion) strategy."""

    @hookspec
    def medgen_spaces(self) -> Mapping[str, type]:
        """Settings classes of spaces by name; `build(mode, device)` gives a `Space`."""

    @hookspec
    def medgen_networks(self) -> Mapping[str, type]:
        """Settings classes of networks by name; `build(in_channels, out_channels)` gives a module.

        An autoencoder gives one with `encode` and `decode` instead; see `Autoencoder`.
        """

    @hookspec
    def medgen_losses(self) -> Mapping[str, type]:
        """Settings classes of losses by name; `build(device)` gives a `LossFunction`."""

    @hookspec
    def medgen_callbacks(self) -> Mapping[str, type]:
        """Settings classes of callbacks by name; `build(run)` gives an object with lifecycle hooks."""

    @hookspec
    def medgen_features(self) -> Mapping[str, type]:
        """Settings classes of what images are compared by; `build(device)` gives an `Extractor`."""

    @hookspec
    def medgen_segmenters(self) -> Mapping[str, type]:
        """Settings classes of networks that find lesions; `build(in_channels)` gives `network(x)`."""

    @hookspec
    def medgen_weights(self) -> Mapping[str, type]:
        """Settings classes of trained weights by name; `files` has their paths."""

    @hookspec
    def medgen_tables(self) -> Mapping[str, type]:
        """Settings classes of tables that commands of the plugin read, by the table's name."""

    @hookspec
    def medgen_commands(self) -> Sequence[click.Command]:
        """Commands to add to `medgen`, or to its group `data` with a name such as `data demo`.

        Import torch inside them, so that `medgen --help` stays fast.
        """


class Lifecycle:
    """Called on the callbacks of a run, in the order of the recipe."""

    @hookspec
    def medgen_run_start(self, run: Run) -> None:
        """The run is assembled and its state restored; nothing has been trained in this process."""

    @hookspec(firstresult=True)
    def medgen_fit(self, run: Run) -> bool | None:
        """Return True to own the whole fit; the core's loop is then not entered.

        For a callback with `PhasedSettings`, run is a `PhasedRun`, which consists of child runs.
        """

    @hookspec
    def medgen_step_end(self, run: Run, losses: Mapping[str, Tensor]) -> None:
        """An optimizer step is done. losses: means over the batch by name, on the device; reading
        one costs a sync.
        """

    @hookspec
    def medgen_memory_check(self, run: Run) -> None:
        """On a GPU, before the first step: do once, and leave no trace of it, what may need more
        memory than a step.

        Do it within `run.trying(...)`, so that an error's line says what did not fit.
        """

    @hookspec
    def medgen_validate(self, run: Run) -> Mapping[str, float] | None:
        """Measure; all results are merged."""

    @hookspec
    def medgen_epoch_end(self, run: Run, metrics: Mapping[str, float]) -> None:
        """An epoch is done. metrics: what validation gave, empty where none was due."""

    @hookspec
    def medgen_log(self, run: Run, scalars: Mapping[str, float], images: Mapping[str, Any]) -> None:
        """Numbers and pictures (uint8 arrays `[height, width, 3]`) to show; rank 0 only, each
        passes here once.
        """

    @hookspec
    def medgen_run_end(self, run: Run, error: BaseException | None) -> None:
        """The run ends: done, stopped or failed."""
