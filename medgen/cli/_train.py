"""What `medgen train` does."""

from __future__ import annotations

from pathlib import Path

from medgen.api.recipe import Recipe
from medgen.cli.options import say_result
from medgen.ranks import collectives, place, process_group, supervisor
from medgen.run import folder
from medgen.training import rehearsal, session
from medgen.training.session import own_recipe

__all__ = ["own_recipe", "train", "try_out"]


def try_out(recipe: Recipe) -> None:
    """Show what would be trained and what it costs."""
    rehearsal.dry_run(recipe)


def train(arguments: list[str], recipe: Recipe, resume: str | None) -> int:
    """Train in this process or one per device; return the exit code. resume: a folder, or `auto`."""
    if recipe.training.devices > 1 and place.place() is None:
        return supervisor.supervise(arguments, recipe)
    with process_group.member(recipe):
        if resume == "auto":
            resume = collectives.on_rank_zero(lambda: str(folder.find_unfinished(recipe) or ""))
        where = session.resume_with(recipe, Path(resume)) if resume else session.start(recipe)
        say_result(where)
    return 0
