"""Options that several commands share, and the registry of plugins."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from medgen.api.messages import did_you_mean
from medgen.config import plugin_hooks
from medgen.config.recipe import load
from medgen.config.registry import Registry, ambiguous
from medgen.errors import PluginError, Problem, RecipeError

if TYPE_CHECKING:
    from medgen.api.recipe import Recipe


Command = TypeVar("Command", bound=Callable[..., Any])
FOLDER = click.Path(path_type=Path)
LIMIT = 0.01
"""Share of copies among pairs that is tolerated: as many may be false alarms."""


with_option = click.option(
    "--with", "layers", multiple=True, metavar="FILE", help="Layer to apply over the recipe."
)


overrides_argument = click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")


def seed_option(what: str) -> Callable[[Command], Command]:
    """Return the option `--seed`. what: stays the same with the seed."""
    help = f"Same seed, same {what}."
    return click.option("--seed", type=int, default=0, show_default=True, help=help)


def real_and_pairs(command: Command) -> Command:
    """Add the arguments of commands that hold pairs against real scans."""
    command = click.argument("pairs", type=FOLDER, metavar="PAIRS")(overrides_argument(command))
    return click.argument("real", metavar="REAL")(command)


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


class OpenGroup(Group):
    """A group with the commands of plugins beside the core's. Plugins name a command of group
    `data` `data NAME`.
    """

    @property
    def _prefix(self) -> str:
        return f"{self.name} " if self.name in plugin_hooks.GROUPS else ""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return all names, sorted."""
        return sorted({*super().list_commands(ctx), *(name for name, _ in self._added())})

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        """Return the command. If several share the name, return one that raises when it runs."""
        own, added = (
            super().get_command(ctx, name),
            [command for each, command in self._added() if each == name],
        )
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
        self.problem = ambiguous(f"command.{name}", givers)
        super().__init__(name, help=f"Given by {' and '.join(givers)}.", add_help_option=False)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Raise PluginError, whatever the arguments."""
        raise PluginError(self.problem)


@lru_cache
def registry() -> Registry:
    """Return the installed plugins, imported once per process."""
    return Registry.load()


def load_recipe(
    name: str | Path, overrides: Sequence[str] = (), layers: Sequence[str] = ()
) -> Recipe:
    """Load a recipe by file or name, with installed plugins. Raises RecipeError with all mistakes."""
    return load(name, overrides, layers, registry())


def say_result(path: Path) -> None:
    """Print the result's path, the last line of a long command."""
    from medgen.system.console import say

    say(str(path))


def in_run(option: str, model: Path | None) -> Path | None:
    """Return the newest checkpoint of a run's folder, any other path as it is. Raises RecipeError
    if it is no model.
    """
    if model is None or (model / "latest.pt").is_file():
        return model and model / "latest.pt"
    if model.is_dir() and option == "--image-model":
        raise RecipeError(
            Problem(
                option,
                f"{model} is a folder without latest.pt",
                "Give a checkpoint, or the folder of a run",
            )
        )
    if model.name.lower().endswith((".nii", ".nii.gz")):
        masks = ", or the folder that the masks lie in" if option == "--seg-model" else ""
        raise RecipeError(
            Problem(
                option, f"{model} is a scan or a mask, not a model", f"Give a checkpoint{masks}"
            )
        )
    return model
