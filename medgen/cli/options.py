"""Options that several commands share, and the registry of plugins."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from medgen.config.registry import Registry


FOLDER = click.Path(path_type=Path)


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
            from medgen.api.messages import did_you_mean

            hint = did_you_mean(args[0], self.list_commands(ctx))
            raise click.UsageError(f"{error.message} {hint}".rstrip(), ctx) from None


@lru_cache
def registry() -> Registry:
    """Return the installed plugins, imported once per process."""
    from medgen.config.registry import Registry

    return Registry.load()


def say_result(path: Path) -> None:
    """Print the result's path, the last line of a long command."""
    from medgen.system.console import say

    say(str(path))
