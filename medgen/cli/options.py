"""Options that several commands share, and the registry of plugins."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import click

from medgen.config import registration
from medgen.errors import PluginError

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
            from medgen.api.settings import did_you_mean

            hint = did_you_mean(args[0], self.list_commands(ctx))
            raise click.UsageError(f"{error.message}{hint}", ctx) from None


class OpenGroup(Group):
    """A group with the commands of plugins beside the core's. Plugins name a command of group `data` `data NAME`."""

    @property
    def _prefix(self) -> str:
        return f"{self.name} " if self.name in registration.GROUPS else ""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return all names, sorted."""
        return sorted({*super().list_commands(ctx), *(name for name, _ in self._added())})

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        """Return the command. If several have this name, return one that raises; `--help` asks for each."""
        own, added = super().get_command(ctx, name), [command for each, command in self._added() if each == name]
        if len(added) + bool(own) < 2:
            return own or next(iter(added), None)
        whole = f"{self._prefix}{name}"
        return _Ambiguous(whole, registry().givers(whole, core=bool(own)))

    def _added(self) -> Iterator[tuple[str, click.Command]]:
        """Yield the commands that plugins add to this group, and their names in it."""
        for command in registry().commands():
            group, space, own = str(command.name).rpartition(" ")
            if group + space == self._prefix:
                yield own, command


class _Ambiguous(click.Command):
    """A command whose name several distributions use."""

    def __init__(self, name: str, givers: Sequence[str]):
        from medgen.config.registry import ambiguous

        self.problem = ambiguous(f"command.{name}", givers)
        super().__init__(name, help=f"Given by {' and '.join(givers)}.", add_help_option=False)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Raise PluginError, whatever the arguments."""
        raise PluginError(self.problem)


@lru_cache
def registry() -> Registry:
    """Return the installed plugins, imported once per process."""
    from medgen.config.registry import Registry

    return Registry.load()


def say_result(path: Path) -> None:
    """Print the result's path, the last line of a long command."""
    from medgen.system.console import say

    say(str(path))
