"""Find weights that packages bring by the name that recipes give them, such as "brain"."""

from __future__ import annotations

from pathlib import Path
from typing import cast

from medgen.api.recipe import WeightsSettings
from medgen.config.registry import Registry
from medgen.errors import Problem, RecipeError


def find(path: Path, purpose: str, key: str, axes: int = 2) -> Path:
    """Return the file that a setting means: of weights of this name, or else `path` itself.

    purpose: the name of a mode, or `autoencoder`. key: the setting. axes: spatial ones of a sample;
    of volumes, the purpose ends in `_3d`. Raises RecipeError if the weights serve other purposes
    alone, and PluginError if their plugin is broken.
    """
    entry = Registry.load().find("weights", path.name) if path.name == str(path) else None
    if entry is None:
        return path
    files = cast("type[WeightsSettings]", entry.settings_class).files
    purpose = purpose if axes == 2 else f"{purpose}_{axes}d"
    if purpose not in files:
        what = f'got "{path}", which has weights for {", ".join(files)}, not for {purpose}'
        raise RecipeError(Problem(key, what, "Leave it out, or give a file"))
    return files[purpose]
