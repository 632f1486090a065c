"""One process's work on a run: take the folder, restore, train, and say how it ended."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from medgen.api.recipe import Recipe
from medgen.api.tables import size_text
from medgen.config import compatibility
from medgen.config.checks import require_equal_shares
from medgen.config.recipe import load
from medgen.errors import CheckpointError, Problem
from medgen.ranks import collectives, process_group
from medgen.run import auto_settings, folder
from medgen.run.assemble import default_device
from medgen.run.open import begin, restore
from medgen.run.run import TrainingRun
from medgen.system import files
from medgen.system.console import say, warn
from medgen.training import trainer
from medgen.training.interruption import Signals, at_work, recorded
from medgen.training.memory_advice import explained_memory
from medgen.training.phases import PhasedRun, owner, recipes
from medgen.training.time_limit import deadline, unfinished


def start(recipe: Recipe, until: int | None = None) -> Path:
    """Train a new run, or its first `until` steps. Returns its folder."""
    began, device, asked = time.time(), default_device(), recipe.training.precision
    where = Path(collectives.on_rank_zero(lambda: str(folder.create(recipe))))
    recipe = auto_settings.settle(recipe, device)
    with at_work(where) as signals:
        if collectives.is_rank_zero():
            folder.claim(where)
            folder.write_recipe(where, recipe)
        auto_settings.tell(recipe, device, asked)
        with recorded(where):
            if owner(recipe):
                return _train_children(recipe, where, began, signals, until)
            run = begin(recipe, where)
            with _started(run, began, signals, until):
                trainer.fit(run)
            return _ended(run, began)


def resume(where: Path, overrides: Sequence[str] = (), layers: Sequence[str] = ()) -> Path:
    """Continue the run in a folder with its own recipe. Returns its folder."""
    return resume_with(own_recipe(where, overrides, layers), where)


def own_recipe(where: Path, overrides: Sequence[str] = (), layers: Sequence[str] = ()) -> Recipe:
    """The recipe with which the run in a folder is continued."""
    if not where.is_dir():
        raise CheckpointError(
            Problem(where, "no such folder", "Check the path, or use --resume auto")
        )
    path = files.current(where / "recipe.toml")
    if not files.exists(path):
        raise CheckpointError(
            Problem(where, "no checkpoint to resume", "Drop --resume, or use --resume auto")
        )
    return load(path, overrides, layers)


def resume_with(recipe: Recipe, where: Path) -> Path:
    """Continue the run in a folder, from its newest checkpoint that is whole, as far as the recipe
    still fits.
    """
    began = time.time()
    with at_work(where) as signals, recorded(where):
        if owner(recipe):
            old = own_recipe(where)
            recipe = auto_settings.fill(recipe, auto_settings.of(old))
            compatibility.check(old, recipe, where)
            auto_settings.tell(recipe, default_device(), auto_settings.KEPT)
            return _train_children(recipe, where, began, signals)
        run = restore(recipe, where)
        if run.complete and not run.epoch_due:
            say(f"already complete (step {run.step}/{run.total_steps})")
            return where
        auto_settings.tell(run.recipe, run.device, auto_settings.KEPT)
        if run.is_rank_zero:
            folder.write_recipe(where, run.recipe)
        with _started(run, began, signals):
            trainer.fit(run)
        return _ended(run, began)


@contextmanager
def _started(
    run: TrainingRun, began: float, signals: Signals, until: int | None = None
) -> Iterator[None]:
    """Set what may stop the run, and say what is trained; explain a lack of memory in the block."""
    run.limit(deadline(run.recipe.training, began), until)
    signals.attach(run)
    process_group.start_heartbeat(run.dir, run.recipe.distributed.timeout, run.step)
    if run.is_rank_zero:
        _introduce(run)
    with explained_memory(run):
        yield


def _ended(run: TrainingRun, began: float) -> Path:
    """Write how the run ended. Returns its folder. Raises StoppedError if it is not finished."""
    finished = run.complete and not run.epoch_due
    if not run.is_rank_zero:
        return run.dir
    folder.write_recipe(run.dir, run.recipe)  # with what was chosen when it was first compiled
    folder.write_metadata(run.dir, "complete" if finished else "stopped", **_result(run))
    return run.dir if finished else unfinished(run, began, f"at step {run.step}")


def _train_children(
    recipe: Recipe, where: Path, began: float, signals: Signals, until: int | None = None
) -> Path:
    """Let the callback that owns the fit train its child runs, all of this folder."""
    work = PhasedRun(recipe, where)
    work.limit(deadline(recipe.training, began), until)
    for each in recipes(recipe):
        require_equal_shares(each, collectives.size())
    process_group.start_heartbeat(where, recipe.distributed.timeout, 0)
    if collectives.is_rank_zero():
        folder.write_recipe(where, recipe)
        identity, training = folder.identity(recipe), recipe.training
        folder.write_metadata(
            where, "running", recipe=identity, seed=recipe.run.seed, precision=training.precision
        )
    say(f"run      {where}")
    signals.attach(work)
    with explained_memory(work):
        work.hooks.medgen_fit(run=work)
    if not collectives.is_rank_zero():
        return where
    folder.write_metadata(where, "complete" if work.complete else "stopped")
    return where if work.complete else unfinished(work, began, "between two steps")


def _introduce(run: TrainingRun) -> None:
    if run.recipe.data.patch_size and not (run.recipe.strategy.unconditional or run.mode.has_place):
        key = f'mode.{run.recipe.names["mode"]}.numbers=["place"]'
        what = "this model is not told where in the whole a crop lies, and so knows no heads"
        warn(f"data.patch_size: {what}. Give {key}.")
    folder.write_metadata(
        run.dir,
        "running",
        recipe=folder.identity(run.recipe),
        seed=run.recipe.run.seed,
        precision=run.recipe.training.precision,
        device=str(run.device),
        parameters=sum(each.numel() for each in run.network.parameters()),
        data={"fingerprint": run.store.fingerprint, "train": run.train.size, "val": run.val.size},
    )
    describe(run)
    say(f"run      {run.dir}" + (f", from step {run.step}" if run.step else ""))


def describe(run: TrainingRun) -> None:
    parameters = sum(each.numel() for each in run.network.parameters())
    patients = f"{run.store.patients('train')} + {run.store.patients('val')} patients"
    data, what = run.recipe.data, run.recipe.data.noun
    if data.crop != "none":
        what = f"crops around lesions, {run.store.grid.spacing[0]:g} mm a pixel,"
    cut = f" in crops of {size_text(data.patch_size)} px" if data.patch_size else ""
    say(f"data     {run.train.size} {what} to train on{cut}, {run.val.size} held out ({patients})")
    say(
        f"network  {parameters / 1e6:.1f} M parameters on {run.device}, {run.recipe.training.precision}"
    )


def _result(run: TrainingRun) -> dict[str, Any]:
    return {
        "step": run.step,
        "total_steps": run.total_steps,
        "training_seconds": round(run.seconds, 1),
    }
