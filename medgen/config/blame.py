"""The plugin that an error comes from, so that its line names what to repair."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from medgen.api.recipe import Recipe
from medgen.api.values import Mode
from medgen.errors import MedgenError, PluginError, Problem, is_of_machine


@contextmanager
def building(where: str) -> Iterator[None]:
    """Turn what a plugin's `build` raises into PluginError. where: its table, as `losses.huber`."""
    try:
        yield
    except MedgenError:
        raise
    except Exception as error:
        if is_of_machine(error):
            raise
        raise PluginError(
            Problem(where, f"its build failed with {described(error)}", "Repair or replace it")
        ) from error


def mode_of(recipe: Recipe) -> Mode:
    """Build the mode of a recipe."""
    with building(f"mode.{recipe.names['mode']}"):
        return recipe.mode.build()


def require(where: str, made: object, expected: type) -> None:
    """Raise PluginError if what a `build` returned is of another type than what is called later."""
    if not isinstance(made, expected):
        what = f"its build returned an object of type {type(made).__name__}, expected a {expected.__name__}"
        raise PluginError(Problem(where, what, "Repair or replace it"))


def described(error: BaseException) -> str:
    """Describe an error by its type and text in one line, without a full stop."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}".rstrip(": .")
