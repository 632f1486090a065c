"""Runs in a temporary folder, of which nothing stays, and what a dry run tells."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from medgen.api.recipe import Recipe
from medgen.config.checks import require_equal_shares
from medgen.data.store import cache_folder
from medgen.data.store.file_memo import cache_root
from medgen.run import auto_settings
from medgen.run.assemble import default_device
from medgen.run.open import begin
from medgen.run.run import TrainingRun
from medgen.system.console import say
from medgen.training.dry_run import lines as cost_lines
from medgen.training.memory_advice import explained_memory
from medgen.training.phases import recipes
from medgen.training.session import describe


def dry_run(recipe: Recipe) -> None:
    """Train a step or two in a temporary folder, and print what would be trained and what it costs.

    The slice store is filled and kept, as training reads the same.
    """
    began, device, asked = time.time(), default_device(), recipe.training.precision
    recipe = auto_settings.settle(recipe, device)
    auto_settings.tell(recipe, device, asked)
    for each in recipes(recipe):
        require_equal_shares(each, each.training.devices)
        with rehearsal(each) as run:
            describe(run)
            samples = run.progress.epoch_samples
            say(
                f"plan     {run.total_steps} steps of {each.training.batch_size}, {samples} samples an epoch"
            )
            for line in cost_lines(run):
                say(line)
    if cache_folder.has_built(began):
        say(f"kept     the slice store, which training reads, in {cache_root()}")


@contextmanager
def rehearsal(recipe: Recipe) -> Iterator[TrainingRun]:
    """Begin a run in a temporary folder, of which nothing stays."""
    with tempfile.TemporaryDirectory() as where:
        run = begin(recipe, Path(where))
        try:
            with explained_memory(run, kept=False):
                yield run
        finally:
            run.train.close()
            run.metrics_file.close()
