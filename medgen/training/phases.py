"""A run that trains nothing itself: a callback owns its fit and trains child runs, such as phases
at growing sizes.
"""

from __future__ import annotations

import gc
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pluggy

from medgen.api.hooks import Lifecycle
from medgen.api.interfaces import Callback
from medgen.api.recipe import PhasedSettings, Recipe
from medgen.config.blame import building
from medgen.errors import Problem, StoppedError, continue_command
from medgen.ranks import collectives
from medgen.run import auto_settings, folder
from medgen.run.open import begin, restore
from medgen.system.signals import exit_code_for
from medgen.training import trainer

if TYPE_CHECKING:
    from medgen.run.run import TrainingRun


def owner(recipe: Recipe) -> PhasedSettings | None:
    """Return the settings of the callback, if any, that splits a run into child runs."""
    return next(
        (each for each in recipe.callbacks.values() if isinstance(each, PhasedSettings)), None
    )


def recipes(recipe: Recipe) -> list[Recipe]:
    """Return what is trained: the recipe itself, or those of its child runs."""
    owning = owner(recipe)
    return list(owning.phases(recipe).values()) if owning else [recipe]


class PhasedRun:
    """Holds child runs together, without network or data; its one callback owns the fit."""

    has_advanced = False
    """True once this process has finished a step of a child, or an epoch's end."""
    complete = False
    """True once every child is done."""

    def __init__(self, recipe: Recipe, where: Path):
        self.recipe, self.dir = recipe, where
        self.current: TrainingRun | None = None
        """The child that is trained now."""
        self.deadline, self.until = math.inf, None
        self.stopping: str | None = None
        self._preparing = False
        manager = pluggy.PluginManager("medgen")
        manager.add_hookspecs(Lifecycle)
        for name, settings in recipe.callbacks.items():
            if isinstance(settings, PhasedSettings):
                with building(f"callbacks.{name}"):
                    manager.register(settings.build(), name=name)
        self.hooks = manager.hook

    until: int | None

    def limit(self, deadline: float, until: int | None = None) -> None:
        """Set the time by which everything must be saved, and a step to stop a child at."""
        self.deadline, self.until = deadline, until

    def finish(self) -> None:
        """Note that every child is done."""
        self.complete = True

    def stop(self, reason: str) -> None:
        """End the child's fit before its next step; without a child, at once or before the next."""
        self.stopping = self.stopping or reason
        if self.current is not None:
            self.current.stop(reason)
        elif self._preparing:
            raise stopped(self.dir, reason, "between two phases")

    def child(
        self, recipe: Recipe, name: str, callbacks: Mapping[str, Callback] | None = None
    ) -> tuple[TrainingRun, bool]:
        """Return the child run in the folder `name`, restored or new, and whether it is new.

        callbacks: more of them, by name; their state is in the child's checkpoints.
        """
        where = self.dir / name
        where.mkdir(exist_ok=True)
        if collectives.is_rank_zero():
            folder.sweep(where)
        new = not collectives.on_rank_zero(lambda: folder.has_checkpoint(where))
        with self._interruptible():
            recipe = auto_settings.fill(recipe, auto_settings.of(self.recipe))
            run = begin(recipe, where, callbacks) if new else restore(recipe, where, callbacks)
        run.limit(self.deadline, self.until)
        return run, new

    def fit(self, child: TrainingRun) -> None:
        """Train a child until it is done or stopped; a stop that was asked of this run reaches it."""
        self.current = child
        if self.stopping:
            child.stop(self.stopping)
        trainer.fit(child)
        self.has_advanced = self.has_advanced or child.has_advanced
        self.current = None
        self._keep(child.recipe)
        gc.collect()  # a run and its callbacks hold each other, and the next child needs the memory

    def _keep(self, child: Recipe) -> None:
        """Keep what was chosen for one child for all further ones, wherever this run goes on."""
        filled = auto_settings.fill(self.recipe, auto_settings.of(child))
        if filled is not self.recipe:
            self.recipe = filled
            if collectives.is_rank_zero():
                folder.write_recipe(self.dir, filled)

    @contextmanager
    def _interruptible(self) -> Iterator[None]:
        """Let signals interrupt, as a slice store may take longer to fill than a signal leaves."""
        self._preparing = True
        try:
            yield
        finally:
            self._preparing = False


def stopped(where: Path, reason: str | None, at: str) -> StoppedError:
    """Return the error that ends the process after everything is saved."""
    return StoppedError(
        Problem(
            where, f"stopped by {reason} {at}, saved", "Continue", command=continue_command(where)
        ),
        exit_code=exit_code_for(reason),
    )
