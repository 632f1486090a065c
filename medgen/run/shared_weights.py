"""Weights to hand on: a safetensors file with the recipe that builds their network, and nothing of
a run besides, neither optimizer nor data nor places of files.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import safetensors
import safetensors.torch
from torch import Tensor

from medgen.config.recipe import from_toml, public_toml
from medgen.errors import CheckpointError, Problem, StorageError, reason
from medgen.run import checkpoint
from medgen.system import files

SUFFIX = ".safetensors"
FORMAT = 1
KEY = "medgen"
"""Of the entry in the file's metadata."""


class SharedWeights(NamedTuple):
    """What is in a file. recipe: TOML; empty if it is not known. weights: fp32 by name. any_image:
    made for images of any name, not only for those of the recipe's mode.
    """

    recipe: str
    weights: dict[str, Tensor]
    any_image: bool


def write(source: Path, path: Path, any_image: bool = False) -> None:
    """Write the weights of a checkpoint to `path`, in fp16: the averaged ones if it has them.

    Raises CheckpointError for no checkpoint, or for weights beyond fp16, and StorageError.
    """
    state = checkpoint.load(source)
    weights = {
        name: value.half().contiguous() if value.is_floating_point() else value
        for name, value in (state["averaged"] or state["network"]).items()
    }
    if not all(bool(each.isfinite().all()) for each in weights.values()):
        what = "has weights beyond 65504, the largest number of fp16"
        raise CheckpointError(Problem(source, what, "Train with weight decay"))
    recipe = public_toml(from_toml(state["recipe"], source=str(source)))
    # one entry, as safetensors writes several in an order of its own at each call
    about = {KEY: json.dumps({"format": FORMAT, "recipe": recipe, "any_image": any_image})}
    try:
        files.write(path, safetensors.torch.save(weights, metadata=about))
    except OSError as error:
        raise StorageError(Problem(path, reason(error), "Name another file")) from error


def read(path: Path) -> SharedWeights:
    """Read a file of `write`. Raises CheckpointError for any other, or a damaged one."""
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            about = _about(file.metadata() or {})
            weights = {name: _full(file.get_tensor(name)) for name in file.keys()}  # noqa: SIM118
    except FileNotFoundError:
        raise CheckpointError(Problem(path, "no such file", "Check the path")) from None
    except OSError as error:
        raise files.unreadable(path, error) from error
    except safetensors.SafetensorError as error:
        what = f"damaged or not a safetensors file ({error})"
        raise CheckpointError(Problem(path, what, "Use another copy")) from error
    if about is None:
        fix = "Give one that `medgen export-weights` wrote"
        raise CheckpointError(Problem(path, "does not say which recipe its weights are of", fix))
    return SharedWeights(about["recipe"], weights, about["any_image"])


def load_any(path: Path) -> SharedWeights:
    """Read a file of `write`, a checkpoint, or another program's file, whose recipe is empty; see
    `checkpoint.load_weights`.
    """
    if path.suffix == SUFFIX:
        return read(path)
    state = checkpoint.load_any(path)
    recipe = state["recipe"] if "format" in state else ""
    return SharedWeights(recipe, checkpoint.weights_of(state, path), any_image=False)


def _about(metadata: Mapping[str, str]) -> dict[str, Any] | None:
    """Return what `write` says of the weights; None if another program wrote them."""
    try:
        about = json.loads(metadata.get(KEY, ""))
    except ValueError:
        return None
    known = isinstance(about, dict) and about.get("format") == FORMAT
    return about if known and {"recipe", "any_image"} <= about.keys() else None


def _full(value: Tensor) -> Tensor:
    return value.float() if value.is_floating_point() else value
