"""Load an autoencoder from a checkpoint for the latent space, whose state contains all of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from medgen.api.recipe import Recipe
from medgen.config.recipe import from_toml
from medgen.errors import CheckpointError, Problem, RecipeError
from medgen.run import checkpoint, named_weights, shared_weights
from medgen.run.shared_weights import SharedWeights
from medgen.run.weights import load_into
from medgen_builtins.spaces._codec import Codec

if TYPE_CHECKING:
    from medgen.api.values import Mode

NEWEST = ("final_model.pt", "best.pt", "latest.pt")
"""Checkpoints of a run's folder by preference; the first that exists is used."""
CONTRACT = ("encode", "decode", "latent_channels", "factor")
"""What a network needs to be an autoencoder, see `Autoencoder`."""


def read(
    path: Path,
    key: str,
    names: Sequence[str],
    count: int,
    factor: int,
    axes: int,
    device: torch.device,
) -> Codec:
    """Load the autoencoder from a file or a run's folder, with averaged weights if there are any.

    key: the setting that names it. names, count: the channels that it is for. axes: spatial ones of
    a sample. Raises CheckpointError or RecipeError.
    """
    if path == Path():
        raise RecipeError(
            Problem(key, 'got "", expected a checkpoint of an autoencoder', "Give one")
        )
    found = _find(named_weights.find(path, "autoencoder", key, axes), key)
    given = _weights(found)
    fitting = None if given.any_image else names
    codec = _build(given.recipe, given.weights, found, fitting, count, axes, device)
    if codec.autoencoder.factor != factor:
        fits = codec.autoencoder.factor
        raise RecipeError(
            Problem(
                "space.latent.factor",
                f"got {factor}, expected {fits}, that of {found}",
                f"Give space.latent.factor={fits}",
            )
        )
    return codec


def _find(path: Path, key: str) -> Path:
    """Return the file that `key` means: the best of a run's folder, or the path."""
    found = next((path / name for name in NEWEST if (path / name).is_file()), path)
    if found.is_dir():
        fix = f"Give {key} a checkpoint of an autoencoder"
        raise CheckpointError(Problem(found, f"has none of {', '.join(NEWEST)}", fix))
    return found


def _weights(path: Path) -> SharedWeights:
    if path.suffix == shared_weights.SUFFIX:
        return shared_weights.read(path)
    state = checkpoint.load(path)
    return SharedWeights(state["recipe"], state["averaged"] or state["network"], any_image=False)


def restore(
    state: Mapping[str, Any], count: int, factor: int, axes: int, device: torch.device
) -> Codec:
    """Rebuild a codec from `Codec.state_dict`. count, axes: as of `read`."""
    source = Path("autoencoder")
    codec = _build(state["recipe"], state["weights"], source, None, count, axes, device)
    if codec.digest != state["digest"] or codec.autoencoder.factor != factor:
        raise ValueError("its autoencoder is not the one that it was trained with")
    for name in ("shift", "scale"):
        value = state[name]
        if len(value) != codec.channels or value.ndim not in (1, 1 + axes):
            raise ValueError(f"its {name} is of {tuple(value.shape)}")
        setattr(codec, name, value.to(device))
    return codec


def _build(
    text: str,
    weights: Mapping[str, Any],
    source: Path,
    names: Sequence[str] | None,
    count: int,
    axes: int,
    device: torch.device,
) -> Codec:
    """names: those that the autoencoder must know; None: it knows these, or is for any."""
    recipe = _recipe(text, source)
    mode = recipe.mode.build()
    if names is not None and not _fits(mode, names):
        what = f"an autoencoder of {', '.join(mode.images)}, but the recipe's mode has {', '.join(names)}"
        raise CheckpointError(Problem(source, what, "Use one of these, or one that pools them"))
    if recipe.data.axes != axes:
        what = f"an autoencoder of {recipe.data.noun}, but data.dimensions is {axes}"
        raise CheckpointError(Problem(source, what, "Use one that was trained with the same"))
    module = recipe.network.build(mode.channels, mode.channels, recipe.data.axes)
    if not all(hasattr(module, name) for name in CONTRACT):
        what = f"network.{recipe.names['network']} is no autoencoder"
        raise CheckpointError(
            Problem(source, what, "Use a checkpoint of one, such as strategy.vae trains")
        )
    load_into(module, weights, source)
    codec = Codec(text, module, count, mode.channels, device)
    codec.trained = recipe.data.trained_shape if recipe.data.patch_size else ()
    return codec


def _recipe(text: str, source: Path) -> Recipe:
    try:
        return from_toml(text)
    except RecipeError as error:
        raise CheckpointError(
            *(each._replace(where=f"{source}: {each.where}") for each in error.problems)
        ) from error


def _fits(mode: Mode, names: Sequence[str]) -> bool:
    """True for the same channels in the same order, or an autoencoder of single channels."""
    return tuple(names) == mode.images or (mode.channels == 1 and set(names) <= set(mode.images))
