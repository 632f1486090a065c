"""Options that several commands share, and the registry of plugins."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import click

from medgen.api.messages import did_you_mean
from medgen.config.registry import Registry

if TYPE_CHECKING:
    from medgen.api.recipe import Recipe


FOLDER = click.Path(path_type=Path)
LIMIT = 0.01
"""Share of copies among pairs that is tolerated: as many may be false alarms."""


with_option = click.option("--with", "layers", multiple=True, metavar="FILE", help="Layer to apply over the recipe.")


overrides_argument = click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")


class Group(click.Group):
    """A group of commands that suggests a name for an unknown one."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command of the arguments. Raises UsageError with the likely name."""
        try:
            return super().resolve_command(ctx, args)
        except click.NoSuchOption:
            raise
        except click.UsageError as error:
            hint = did_you_mean(args[0], self.list_commands(ctx))
            raise click.UsageError(f"{error.message} {hint}".rstrip(), ctx) from None


@lru_cache
def registry() -> Registry:
    """Return the installed plugins, imported once per process."""
    return Registry.load()


def load_recipe(name: str | Path, overrides: Sequence[str] = (), layers: Sequence[str] = ()) -> Recipe:
    """Load a recipe from a file or by name, with the installed plugins. Raises RecipeError with every mistake."""
    from medgen.config.recipe import load

    return load(name, overrides, layers, registry())


def say_result(path: Path) -> None:
    """Print the result's path, the last line of a long command."""
    from medgen.system.console import say

    say(str(path))
