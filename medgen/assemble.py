"""Recipe to Run: build what the recipe's settings describe, and connect it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import pluggy
import torch
from torch import nn

from medgen import seeds
from medgen.console import progress
from medgen.data.layouts import mask_names
from medgen.data.store import SliceStore, open_store
from medgen.hookspecs import Lifecycle
from medgen.journal import Journal
from medgen.kinds import Mode, Space
from medgen.recipe import Recipe
from medgen.run import Run


class Parts(NamedTuple):
    """What a recipe builds without data: enough to load weights and sample."""

    mode: Mode
    space: Space
    strategy: Any
    network: nn.Module


def default_device() -> torch.device:
    """The GPU, where there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def build(recipe: Recipe, device: torch.device) -> Parts:
    """Mode, space, strategy and network; the initial weights depend on the seed alone."""
    mode = recipe.mode.build()
    space = recipe.space.build(mode, device)
    seeds.seed_globals(recipe.run.seed, "init")
    network = recipe.network.build(space.channels + space.condition_channels, space.channels)
    return Parts(mode, space, recipe.strategy.build(), network.to(device))


def assemble(recipe: Recipe, folder: Path, device: torch.device | None = None, journal: int = 0) -> Run:
    """A run that can be trained, its callbacks registered on a plugin manager of its own.

    journal: bytes of `metrics.jsonl` to keep, from the checkpoint that is about to be loaded.
    """
    device = device or default_device()
    parts = build(recipe, device)
    store = prepare_data(recipe, parts.mode)
    losses = {name: settings.build(device) for name, settings in recipe.losses.items()}
    turns = {turn.name: turn for turn in parts.strategy.turns(parts.mode, parts.space, parts.network, losses, device)}
    run = Run(recipe, folder, device, store, *parts, turns)
    if run.channels_last:
        parts.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stubs lack it
    run.journal = Journal(folder / "metrics.jsonl", journal)
    _add_callbacks(run)
    return run


def prepare_data(recipe: Recipe, mode: Mode) -> SliceStore:
    """Open the slice store of a recipe's data; fill it first where there is none, with a bar."""
    with progress("slice store", unit="patients") as bar:
        return open_store(recipe.data, mode.names, mask_names(recipe.data), progress=bar.update)


def _add_callbacks(run: Run) -> None:
    from medgen.validation import Validation

    manager = pluggy.PluginManager("medgen")
    manager.add_hookspecs(Lifecycle)
    run.hooks = manager.hook
    manager.register(Validation(run), name="validation")
    for name, settings in run.recipe.callbacks.items():
        run.callbacks[name] = settings.build(run)
    # pluggy calls what was registered last first; recipes are read from the top
    for name in reversed(run.callbacks):
        manager.register(run.callbacks[name], name=name)
    manager.check_pending()
