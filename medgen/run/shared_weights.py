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
import torch
from torch import Tensor

from medgen.config.recipe import from_toml, public_toml
from medgen.errors import CheckpointError, Problem, StorageError, reason
from medgen.run import checkpoint
from medgen.system import files

SUFFIX = ".safetensors"
FORMATS = {16: 1, 8: 2}
"""By bits of a weight."""
SCALE = ":scale"
"""Ends the name of what the whole numbers of a weight are multiplied by."""
KEY = "medgen"
"""Of the entry in the file's metadata."""


class SharedWeights(NamedTuple):
    """What is in a file. recipe: TOML; empty if it is not known. weights: fp32 by name. any_image:
    made for images of any name, not only for those of the recipe's mode.
    """

    recipe: str
    weights: dict[str, Tensor]
    any_image: bool


def write(source: Path, path: Path, any_image: bool = False, bits: int = 16) -> None:
    """Write the weights of a checkpoint to `path`: the averaged ones if it has them.

    bits: 16 for fp16; 8 for whole numbers from -127 to 127 with a scale for each output channel,
    where a weight has more than one axis. Raises CheckpointError for no checkpoint, or for weights
    beyond fp16, and StorageError.
    """
    state = checkpoint.load(source)
    weights: dict[str, Tensor] = {}
    for name, value in (state["averaged"] or state["network"]).items():
        if bits == 8 and value.is_floating_point() and value.ndim > 1:
            weights[name], weights[name + SCALE] = _whole_numbers(value)
        else:
            weights[name] = value.half().contiguous() if value.is_floating_point() else value
    if not all(bool(each.isfinite().all()) for each in weights.values()):
        what = "has weights beyond 65504, the largest number of fp16"
        raise CheckpointError(Problem(source, what, "Train with weight decay"))
    recipe = public_toml(from_toml(state["recipe"], source=str(source)))
    # one entry, as safetensors writes several in an order of its own at each call
    about = {KEY: json.dumps({"format": FORMATS[bits], "recipe": recipe, "any_image": any_image})}
    try:
        files.write(path, safetensors.torch.save(weights, metadata=about))
    except OSError as error:
        raise StorageError(Problem(path, reason(error), "Name another file")) from error


def read(path: Path) -> SharedWeights:
    """Read a file of `write`. Raises CheckpointError for any other, or a damaged one."""
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            about = _about(file.metadata() or {})
            weights = _full({name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118
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
    known = isinstance(about, dict) and about.get("format") in FORMATS.values()
    return about if known and {"recipe", "any_image"} <= about.keys() else None


def _whole_numbers(value: Tensor) -> tuple[Tensor, Tensor]:
    """Return int8 of the shape of `value`, and the fp32 scale of each row, `[row, 1, ...]`."""
    largest = value.float().abs().amax(tuple(range(1, value.ndim)), keepdim=True)
    scale = largest.clamp_min(torch.finfo(torch.float32).tiny) / 127
    return (value.float() / scale).round().to(torch.int8), scale


def _full(stored: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights in fp32."""
    weights = {}
    for name, value in stored.items():
        if name + SCALE in stored:
            weights[name] = value.float() * stored[name + SCALE]
        elif not name.endswith(SCALE):
            weights[name] = value.float() if value.is_floating_point() else value
    return weights
