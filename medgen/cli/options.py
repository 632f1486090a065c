"""What several commands take, and the plugins that all of them know."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from medgen.config.registry import Registry


FOLDER = click.Path(path_type=Path)


with_option = click.option("--with", "layers", multiple=True, metavar="FILE", help="Lay another recipe over this one.")


overrides_argument = click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")


class Group(click.Group):
    """Commands, of which a likely one is named where a name is unknown."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """See click. Raises UsageError with the likely name."""
        try:
            return super().resolve_command(ctx, args)
        except click.NoSuchOption:
            raise
        except click.UsageError as error:
            from medgen.api.settings import did_you_mean

            hint = did_you_mean(args[0], self.list_commands(ctx))
            raise click.UsageError(f"{error.message}{hint}", ctx) from None


@lru_cache
def registry() -> Registry:
    """The plugins that are installed, walked once a process."""
    from medgen.config.registry import Registry

    return Registry.load()


def say_result(path: Path) -> None:
    """The last line of everything that takes long: where the result is."""
    from medgen.system.console import say

    say(str(path))
