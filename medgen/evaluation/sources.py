"""What a command's REAL and KEY=VALUE say: where the real scans are, and the settings of what
judges pairs.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal, overload

import attrs

from medgen.api.measures import FeaturesSettings, SegmenterSettings
from medgen.api.recipe import Recipe
from medgen.api.structure import structure
from medgen.api.tables import DataSettings
from medgen.api.values import MEASURES
from medgen.config import recipe as recipes
from medgen.config.overlay import Layers
from medgen.config.registry import Registry
from medgen.data.scans.layouts import mask_names
from medgen.errors import Problem, RecipeError
from medgen.run import checkpoint


@attrs.frozen
class Source:
    """Real scans. images, masks: names of the channels that a recipe reads of them. name: for
    messages and reports.
    """

    data: DataSettings
    images: tuple[str, ...]
    masks: tuple[str, ...]
    name: str

    @classmethod
    def of(cls, recipe: Recipe, name: str = "") -> Source:
        """The scans that a recipe trains on."""
        mode, masks = recipe.mode.build(), mask_names(recipe.data)
        named = tuple(each for each in mode.names if each in masks)
        images = tuple(each for each in mode.images if each not in masks)
        return cls(
            recipe.data, images, named or tuple(sorted(masks)), name or recipe.data.root.name
        )


def real(where: str, overrides: Sequence[str] = (), registry: Registry | None = None) -> Source:
    """The scans of a recipe, of a run or a checkpoint, which hold a recipe, or in a folder of
    patients.

    overrides: `KEY=VALUE` of the recipe, those of plugins that judge pairs (`features.x.y=1`) left
    out.
    """
    path, given = Path(where), [each for each in overrides if _kind(each) not in MEASURES]
    registry = registry or Registry.load()
    if (path / "recipe.toml").is_file():
        return Source.of(recipes.load(path / "recipe.toml", given, (), registry))
    if path.is_dir():
        data = recipes.data_settings(given)
        return Source(attrs.evolve(data, root=path), (), tuple(sorted(mask_names(data))), path.name)
    if path.suffix == ".pt":
        return Source.of(_in_checkpoint(path, given, registry))
    return Source.of(recipes.load(where, given, (), registry))


def _in_checkpoint(path: Path, overrides: Sequence[str], registry: Registry) -> Recipe:
    recipe = recipes.from_toml(checkpoint.load(path)["recipe"], registry, str(path), overrides)
    if not any(each.partition("=")[0].strip() == "data.root" for each in overrides):
        raise RecipeError(
            Problem(path, "data.root: a checkpoint names no folder", "Add data.root=FOLDER")
        )
    return recipe


@overload
def measure(
    kind: Literal["features"], name: str, overrides: Iterable[str], registry: Registry
) -> FeaturesSettings: ...
@overload
def measure(
    kind: Literal["segmenters"], name: str, overrides: Iterable[str], registry: Registry
) -> SegmenterSettings: ...
def measure(kind: str, name: str, overrides: Iterable[str], registry: Registry) -> object:
    """The settings object of a plugin that judges pairs, `features` or `segmenters`, as `KEY=VALUE`
    set it.

    Raises RecipeError with every mistake, PluginError if there is no such plugin.
    """
    laid = Layers()
    entry = registry.get(kind, name)
    wrong = [
        problem for each in overrides if _kind(each) == kind for problem in laid.lay_override(each)
    ]
    table = laid.tables.get(kind, {}).get(name, {})
    made, problems = structure(table, entry.settings_class, f"{kind}.{name}")
    if wrong or made is None:
        raise RecipeError(*wrong, *problems)
    return made


def _kind(override: str) -> str:
    return override.partition("=")[0].partition(".")[0].strip()


def require_used(
    overrides: Iterable[str], features: Iterable[str] = (), segmenters: Iterable[str] = ()
) -> None:
    """Raise RecipeError if a `KEY=VALUE` sets a plugin that judges pairs, but is none of those that
    are used.
    """
    used = {"features": tuple(features), "segmenters": tuple(segmenters)}
    for each in overrides:
        kind, name = (*each.partition("=")[0].split("."), "", "")[:2]
        if kind in used and name.strip() not in used[kind]:
            among = ", ".join(used[kind]) or "none"
            raise RecipeError(
                Problem(
                    each,
                    f"sets {kind}.{name}, which is not used here (used: {among})",
                    "Leave it out",
                )
            )
