"""Build a run from a recipe: models, losses, data, callbacks."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from medgen import seeds
from medgen.api.interfaces import Callback, Space
from medgen.api.recipe import CallbackSettings, Recipe
from medgen.api.values import Batch, Mode
from medgen.config.blame import building, require
from medgen.data.scans.layouts import mask_names
from medgen.data.store import slice_numbers
from medgen.data.store.latent_store import LatentStore, open_latent_store
from medgen.data.store.loader import Loader
from medgen.data.store.slice_store import SliceStore
from medgen.data.store.store import open_store
from medgen.errors import CheckpointError, Problem
from medgen.ranks import collectives
from medgen.run import auto_settings, optim
from medgen.run.metrics_file import MetricsFile
from medgen.run.run import TrainingRun
from medgen.system.console import progress


class Parts(NamedTuple):
    """Hold what a recipe builds without data: enough to load weights and sample."""

    mode: Mode
    space: Space
    strategy: Any
    network: nn.Module


def default_device() -> torch.device:
    """Return the GPU if there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


class Saved(NamedTuple):
    """Hold a checkpoint's state and the file that messages name."""

    state: Mapping[str, Any]
    source: Path


def build(recipe: Recipe, device: torch.device, saved: Saved | None = None) -> Parts:
    """Build mode, space, strategy and network, with initial weights that depend only on the seed.

    saved: checkpoint from which the space restores its state before the network is built, as the
    state may decide the number of channels.
    """
    names = recipe.names
    with building(f"mode.{names['mode']}"):
        mode = recipe.mode.build()
    with building(f"space.{names['space']}"):
        space = recipe.space.build(mode, device, *_axes(recipe))
    if saved is not None:
        _restore_space(space, saved)
    channels = space.channels
    given = 0 if recipe.strategy.unconditional else _given_channels(recipe, mode, space)
    with building(f"strategy.{names['strategy']}"):
        strategy = recipe.strategy.build()
    seeds.seed_globals(recipe.run.seed, "init")
    with building(f"network.{names['network']}"):
        outputs = channels * strategy.network_outputs
        network = recipe.network.build(channels + given, outputs, *_axes(recipe))
        require(f"network.{names['network']}", network, nn.Module)
    strategy.shape, strategy.space = recipe.data.trained_shape, space
    return Parts(mode, space, strategy, network.to(device))


def _given_channels(recipe: Recipe, mode: Mode, space: Space) -> int:
    """Return how many channels `number_channels.conditions` gives a network besides the sample."""
    places = recipe.data.axes if mode.has_place else 0
    return space.condition_channels + len(mode.scalars) + places


def _axes(recipe: Recipe) -> tuple[int, ...]:
    """What `build` gets of the number of axes: nothing for slices, so that a plugin of slices need
    not name it.
    """
    return () if recipe.data.axes == 2 else (recipe.data.axes,)


def assemble(
    recipe: Recipe,
    folder: Path,
    device: torch.device | None = None,
    saved: Saved | None = None,
    callbacks: Mapping[str, Callback] | None = None,
) -> TrainingRun:
    """Build a run that can be trained, with its callbacks on a plugin manager of its own.

    saved: checkpoint that the caller loads next. callbacks: additional ones, by name.
    """
    device = device or default_device()
    recipe = auto_settings.settle(recipe, device)
    parts = build(recipe, device, saved)
    with collectives.first_on_node():
        store = prepare_data(recipe, parts.mode)
        prepared = prepare_images(recipe, parts, store, device, new=saved is None)
    losses = dict(_losses(recipe, device))
    seeds.seed_globals(recipe.run.seed, "init/turns")
    turns = {
        turn.name: turn
        for turn in parts.strategy.turns(parts.mode, parts.space, parts.network, losses, device)
    }
    journal = folder / "metrics.jsonl" if collectives.is_rank_zero() else Path(os.devnull)
    metrics_file = MetricsFile(journal, saved.state["journal"] if saved else 0)
    run = TrainingRun(recipe, folder, device, store, *parts, turns, metrics_file, prepared)
    if run.channels_last:
        optim.use_channels_last(parts.network, recipe.data.axes)
    run.register({**dict(_callbacks(run)), **(callbacks or {})})
    return run


def _losses(recipe: Recipe, device: torch.device) -> Iterator[tuple[str, Any]]:
    for name, settings in recipe.losses.items():
        with building(f"losses.{name}"):
            yield name, settings.build(device)


def prepare_data(recipe: Recipe, mode: Mode) -> SliceStore:
    """Open the slice store of a recipe's data.

    A missing store is built first, with a progress bar; then the mode's numbers are measured.
    """
    with progress("slice store", unit="steps, two per patient") as bar:
        store = open_store(recipe.data, mode.names, mask_names(recipe.data), progress=bar.update)
    for name in mode.scalars:
        slice_numbers.measured(store, name)
    return store


def prepare_images(
    recipe: Recipe, parts: Parts, store: SliceStore, device: torch.device, new: bool
) -> LatentStore | None:
    """Open the store of prepared slices; None if the space prepares none.

    A missing store is built first, with a progress bar. new: calibrate the space on the training
    slices.
    """
    space, prepared = parts.space, None
    if space.key is not None:
        space.shape(recipe.data.shape)  # raises for a wrong size before the slow preparation
        with progress("prepared slices", unit="slices") as bar:
            prepared = open_latent_store(store, parts.mode, space, device, progress=bar.update)
    if new:
        space.calibrate(_training_samples(recipe, parts, store, prepared, device))
    return prepared


def _training_samples(
    recipe: Recipe,
    parts: Parts,
    store: SliceStore,
    prepared: LatentStore | None,
    device: torch.device,
) -> Iterator[Batch]:
    """Yield the training samples once, fp32 on the device. Nothing is read until the first is asked for."""
    feed = Loader(store, parts.mode, "train", prepared=prepared)
    with contextlib.closing(feed):
        for part in _parts(feed.size, recipe.data.axes):
            yield feed.stored(part).map(lambda each: each.to(device).float())


def _parts(count: int, axes: int) -> Iterator[np.ndarray]:
    """Yield the indices below `count`: 256 slices at a time, volumes one by one."""
    some = 256 if axes == 2 else 1
    return (np.arange(start, min(start + some, count)) for start in range(0, count, some))


def _restore_space(space: Space, saved: Saved) -> None:
    try:
        space.load_state_dict(saved.state["space"])
    except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
        what = f"the state of its space does not fit ({type(error).__name__}: {error})"
        raise CheckpointError(
            Problem(saved.source, what, "Use a checkpoint that medgen wrote")
        ) from error


def _callbacks(run: TrainingRun) -> Iterator[tuple[str, Callback]]:
    for name, settings in run.recipe.callbacks.items():
        if isinstance(settings, CallbackSettings):
            with building(f"callbacks.{name}"):
                callback = settings.build(run)
                require(f"callbacks.{name}", callback, Callback)
            yield name, callback
