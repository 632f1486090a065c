"""One process's work on a run: take the folder, restore, train, and say how it ended."""

from __future__ import annotations

import os
import shlex
import signal
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from medgen import folder, trainer
from medgen.assemble import assemble
from medgen.console import say
from medgen.errors import CheckpointError, StoppedError
from medgen.recipe import Recipe, load
from medgen.run import Run

SIGNALS = {signal.SIGTERM: "SIGTERM", signal.SIGUSR1: "SIGUSR1", signal.SIGINT: "Ctrl-C"}


def start(recipe: Recipe) -> Path:
    """Train a new run. Returns its folder."""
    where = folder.create(recipe)
    with folder.lock(where):
        return _work(recipe, where, None, None)


def resume(where: Path, overrides: Sequence[str] = (), layers: Sequence[str] = ()) -> Path:
    """Continue the run in a folder, from its newest checkpoint that is whole. Returns its folder."""
    if not (where / "recipe.toml").exists():
        raise CheckpointError(f"{where}: no checkpoint to resume. Drop --resume, or use --resume auto.")
    recipe = load(where / "recipe.toml", overrides, layers)
    with folder.lock(where):
        state, source = folder.latest_state(where)
        return _work(recipe, where, state, source)


def dry_run(recipe: Recipe) -> None:
    """Do everything up to the first step in a temporary folder, and say what would be trained."""
    with tempfile.TemporaryDirectory() as where:
        run = assemble(recipe, Path(where))
        _describe(run)
        say(f"plan     {run.total_steps} steps of {recipe.training.batch_size}, {run.epoch_samples} samples an epoch")
        run.train.close()
        run.journal.close()


def _work(recipe: Recipe, where: Path, state: dict[str, Any] | None, source: Path | None) -> Path:
    run = assemble(recipe, where, journal=state["journal"] if state else 0)
    if state is not None and source is not None:
        run.load_state_dict(state, source)
    if state and run.complete and not run.epoch_due:
        say(f"already complete (step {run.step}/{run.total_steps})")
        return where
    _introduce(run)
    with _signals(run):
        trainer.fit(run)
    finished = run.complete and not run.epoch_due
    folder.write_metadata(where, "complete" if finished else "stopped", **_result(run))
    if not finished:
        code = 130 if run.stopping == SIGNALS[signal.SIGINT] else 75
        raise StoppedError(
            f"{where}: stopped by {run.stopping} at step {run.step}, saved. Continue: {continue_command(where)}", code
        )
    return where


def continue_command(where: Path) -> str:
    """What to type to go on."""
    return f"medgen train --resume {shlex.quote(str(where))}"


def _introduce(run: Run) -> None:
    folder.write_metadata(
        run.dir,
        "running",
        recipe=folder.identity(run.recipe),
        seed=run.recipe.run.seed,
        device=str(run.device),
        parameters=sum(each.numel() for each in run.network.parameters()),
        data={"fingerprint": run.store.fingerprint, "train": run.train.size, "val": run.val.size},
    )
    _describe(run)
    say(f"run      {run.dir}" + (f", from step {run.step}" if run.step else ""))


def _describe(run: Run) -> None:
    parameters = sum(each.numel() for each in run.network.parameters())
    patients = f"{run.store.patients('train')} + {run.store.patients('val')} patients"
    say(f"data     {run.train.size} slices to train on, {run.val.size} held out ({patients})")
    say(f"network  {parameters / 1e6:.1f} M parameters on {run.device}, {run.recipe.training.precision}")


def _result(run: Run) -> dict[str, Any]:
    return {"step": run.step, "total_steps": run.total_steps, "training_seconds": round(run.seconds, 1)}


@contextmanager
def _signals(run: Run) -> Iterator[None]:
    """The first signal asks the run to stop between two steps; a second one ends the process at once."""

    def handle(number: int, _: FrameType | None) -> None:
        if run.stopping:
            os._exit(128 + number)
        run.stop(SIGNALS[signal.Signals(number)])

    before = {number: signal.signal(number, handle) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
