"""Load a trained generator from a checkpoint, and sample from it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from medgen.api.recipe import Recipe
from medgen.api.values import Mode
from medgen.config.recipe import from_toml
from medgen.config.registry import Registry
from medgen.data.grid import Grid
from medgen.data.scans.layouts import mask_names
from medgen.errors import CheckpointError, Problem, RecipeError
from medgen.generation.manifest import sha256
from medgen.generation.numbers import Row, Table, as_given, table
from medgen.run import checkpoint, optim
from medgen.run.assemble import Parts, Saved, build, default_device
from medgen.run.weights import load_into
from medgen.system.names import is_file_name
from medgen.training import sampling, tiles
from medgen.training.lesion_masks import mask_channels
from medgen.training.number_channels import of_whole


class Model(NamedTuple):
    """A trained generator: the checkpoint's averaged weights, if any, and the description of its
    training data.

    grid: of a generated sample. masks: names of the channels that are masks. digest: sha256 of the
    file. numbers: of its training slices; None if it is given none.
    """

    recipe: Recipe
    parts: Parts
    device: torch.device
    grid: Grid
    masks: frozenset[str]
    digest: str
    numbers: Table | None = None

    @property
    def masks_given(self) -> tuple[str, ...]:
        """Return the names of the masks that it is given."""
        return tuple(name for name in self.parts.mode.condition if name in self.masks)

    @property
    def scans_given(self) -> tuple[str, ...]:
        """Return the names of the images that it is given, such as that of tissues."""
        return tuple(name for name in self.parts.mode.condition if name not in self.masks)


def load_model(
    path: Path, registry: Registry | None = None, device: torch.device | None = None
) -> Model:
    """Load the generator from a checkpoint, which needs no other file. Raises CheckpointError or
    PluginError.
    """
    device = device or default_device()
    digest = sha256(path)
    state = checkpoint.load(path)
    if digest is None or sha256(path) != digest:  # a training may have saved anew in the meantime
        raise CheckpointError(
            Problem(path, "was replaced as it was read", "Try again, or give a copy of it")
        )
    recipe = _recipe(path, state, registry)
    if recipe.strategy.unconditional:
        what = f"holds an autoencoder (strategy.{recipe.names['strategy']}), which generates nothing by itself"
        raise CheckpointError(
            Problem(path, what, "Train a model in its latents with [space.latent], and give that")
        )
    parts = build(recipe, device, Saved(state, path))
    _check_names(path, parts.mode)
    load_into(parts.network, state["averaged"] or state["network"], path)
    grid = Grid.of(recipe.data, _spacing(path, state))
    parts.network.eval().requires_grad_(False)
    if state["channels_last"]:
        optim.use_channels_last(parts.network, recipe.data.axes)
    known = table(path, parts.mode, state["data"])
    return Model(recipe, parts, device, grid, mask_names(recipe.data), digest, known)


def _spacing(path: Path, state: Mapping[str, Any]) -> float:
    """Return mm per pixel."""
    try:
        spacing = float(state["data"]["spacing"])
    except (KeyError, TypeError, ValueError) as error:
        what = f"the state of its data does not fit ({type(error).__name__}: {error})"
        raise CheckpointError(Problem(path, what, "Use a checkpoint that medgen wrote")) from error
    if not 0 < spacing < math.inf:
        raise CheckpointError(
            Problem(path, f"has pixels of {spacing:g} mm", "Use a checkpoint that medgen wrote")
        )
    return spacing


def _recipe(path: Path, state: Mapping[str, Any], registry: Registry | None) -> Recipe:
    """Return the recipe in a checkpoint, after checking that it has everything that a generator
    needs.
    """
    lacking = [
        key
        for key in ("averaged", "channels_last", "data", "network", "recipe", "space")
        if key not in state
    ]
    if lacking or not isinstance(state["recipe"], str):
        what = f"the key '{(lacking or ['recipe'])[0]}' is missing or of another type"
        raise CheckpointError(Problem(path, what, "Use a checkpoint that medgen wrote"))
    try:
        return from_toml(state["recipe"], registry)
    except RecipeError as error:
        raise CheckpointError(
            *(each._replace(where=f"{path}: {each.where}") for each in error.problems)
        ) from error


def _check_names(path: Path, mode: Mode) -> None:
    """Check channel names, which become file names."""
    for name in mode.names:
        if not is_file_name(name):
            what = f"its mode has a channel {name!r}, which cannot be the name of a file"
            raise CheckpointError(
                Problem(path, what, "Use a checkpoint that you trust, of another mode")
            )


def draw_samples(
    model: Model,
    condition: Tensor,
    generators: Sequence[torch.Generator],
    steps: int | None,
    numbers: Sequence[Row] = (),
    guidance: float | None = None,
) -> Tensor:
    """Sample `[batch, channel, *space]` in [-1, 1] on the CPU, for conditions in [-1, 1].

    numbers: of each sample, by name, where the model is given any. A model of crops makes the whole
    in tiles of their size.
    """
    mode, space, strategy, network = model.parts
    draw = sampling.noise(generators, space.shape(condition.shape[2:]), model.device)
    condition, given = condition.to(model.device), as_given(numbers, mode.scalars, model.device)
    place, crops = of_whole(mode, condition), tiles.of_crops(space, model.recipe.data)
    with sampling.autocast(model.device, model.recipe.training.precision):
        made = sampling.sample(
            strategy,
            space,
            network,
            condition,
            draw,
            steps,
            numbers=given,
            place=place,
            tiles=crops,
            guidance=guidance,
            masks=mask_channels(mode.condition, model.masks),
        )
    return made.float().cpu()
