"""One process's work on a run: take the folder, restore, train, and say how it ended."""

from __future__ import annotations

import math
import os
import re
import shlex
import signal
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import torch

from medgen import changes, checkpoint, folder, trainer
from medgen.assemble import assemble
from medgen.console import say
from medgen.errors import CheckpointError, DataError, OutOfMemoryError, StoppedError, StorageError
from medgen.recipe import Recipe, TrainingSettings, from_toml, load
from medgen.run import Run
from medgen.signals import NAMES


def start(recipe: Recipe, until: int | None = None) -> Path:
    """Train a new run, or its first `until` steps. Returns its folder."""
    began = time.time()
    where = folder.create(recipe)
    with _at_work(where) as signals:
        folder.claim(where)
        folder.write_recipe(where, recipe)
        run = assemble(recipe, where)
        _use_weights(run)
        run.until = until
        return _train(run, began, signals)


def resume(where: Path, overrides: Sequence[str] = (), layers: Sequence[str] = ()) -> Path:
    """Continue the run in a folder with its own recipe. Returns its folder."""
    if not (where / "recipe.toml").exists():
        raise CheckpointError(f"{where}: no checkpoint to resume. Drop --resume, or use --resume auto.")
    return resume_with(load(where / "recipe.toml", overrides, layers), where)


def resume_with(recipe: Recipe, where: Path) -> Path:
    """Continue the run in a folder, from its newest checkpoint that is whole, as far as the recipe still fits."""
    began = time.time()
    with _at_work(where) as signals:
        state, source = folder.latest_state(where)
        changes.check(from_toml(state["recipe"], source=str(source)), recipe, where)
        run = assemble(recipe, where, journal=state["journal"])
        _check_data(run, state, source)
        run.load_state_dict(state, source)
        if run.complete and not run.epoch_due:
            say(f"already complete (step {run.step}/{run.total_steps})")
            return where
        folder.write_recipe(where, recipe)
        return _train(run, began, signals)


def dry_run(recipe: Recipe) -> None:
    """Do everything up to the first step in a temporary folder, and say what would be trained."""
    with tempfile.TemporaryDirectory() as where:
        run = assemble(recipe, Path(where))
        _use_weights(run)
        _describe(run)
        say(f"plan     {run.total_steps} steps of {recipe.training.batch_size}, {run.epoch_samples} samples an epoch")
        run.train.close()
        run.journal.close()


def continue_command(where: Path) -> str:
    """What to type to go on."""
    return f"medgen train --resume {shlex.quote(str(where))}"


def _train(run: Run, began: float, signals: Signals) -> Path:
    run.deadline = deadline(run.recipe.training, began)
    _introduce(run)
    signals.run = run
    with _memory(run):
        trainer.fit(run)
    finished = run.complete and not run.epoch_due
    folder.write_metadata(run.dir, "complete" if finished else "stopped", **_result(run))
    if not finished:
        raise StoppedError(
            f"{run.dir}: stopped by {run.stopping} at step {run.step}, saved. Continue: {continue_command(run.dir)}",
            130 if run.stopping == NAMES[signal.SIGINT] else 75,
        )
    return run.dir


def deadline(training: TrainingSettings, began: float) -> float:
    """The time by which a process that began then must have saved; SLURM tells its own limit in seconds since 1970."""
    own = began + 60 * training.time_limit if training.time_limit else math.inf
    slurm = os.environ.get("SLURM_JOB_END_TIME", "")
    return min(own, float(slurm) if slurm.isdigit() else math.inf)


def _use_weights(run: Run) -> None:
    source = run.recipe.training.init_from
    if source is not None:
        run.start_from(checkpoint.load_weights(source), source)


def _check_data(run: Run, state: dict[str, Any], source: Path) -> None:
    was, now = state["data"], run.store.fingerprint
    if was["fingerprint"] == now or run.recipe.data.accept_changes:
        return
    counts = [
        f"{was[name][split]} -> {count}"
        for name, split, count in (
            ("patients", "train", run.store.patients("train")),
            ("patients", "val", run.store.patients("val")),
            ("samples", "train", run.train.size),
            ("samples", "val", run.val.size),
        )
    ]
    raise DataError(
        f"data: the slices are not those of {source} (patients to train on {counts[0]}, held out {counts[1]}; slices "
        f"to train on {counts[2]}, held out {counts[3]}). Put the files back, or go on with data.accept_changes=true."
    )


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


class Signals:
    """Answers signals: before training by ending, during it by asking for a stop between two steps.

    A second one of the same kind ends the process at once. SLURM sends SIGUSR1 first and SIGTERM later, so a second
    one of another kind must not.
    """

    def __init__(self, where: Path):
        self.where = where
        self.run: Run | None = None
        self._seen: set[int] = set()

    def __call__(self, number: int, _: FrameType | None) -> None:
        if number in self._seen:
            os._exit(128 + number)
        self._seen.add(number)
        name = NAMES[signal.Signals(number)]
        if self.run is not None:
            self.run.stop(name)
            return
        raise StoppedError(
            f"{self.where}: stopped by {name} before it trained. Give the same command again.",
            130 if number == signal.SIGINT else 75,
        )


@contextmanager
def _at_work(where: Path) -> Iterator[Signals]:
    """Hold the folder, answer signals, and say in one line that a file could not be written."""
    signals = Signals(where)
    before = {number: signal.signal(number, signals) for number in NAMES}
    try:
        with folder.lock(where):
            yield signals
    except OSError as error:
        raise StorageError(
            f"{error.filename or where}: {error.strerror or error}. Make it writable, then go on."
        ) from error
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _memory(run: Run) -> Iterator[None]:
    """Out of memory is no bug: say what would fit, without changing the result."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise OutOfMemoryError(_too_large(run, str(error))) from error
    except RuntimeError as error:
        if "can't allocate memory" not in str(error):
            raise
        raise OutOfMemoryError(_too_large(run, str(error))) from error


def _too_large(run: Run, text: str) -> str:
    training = run.recipe.training
    size, parts = training.batch_size, training.accumulate
    more = next((n for n in range(parts + 1, size + 1) if size % n == 0), None)
    advice = f"Use training.accumulate={more} (same batch, less memory)" if more else "Use a smaller network or image"
    numbers = re.findall(r"[\d.]+ [KMG]iB|\d+ bytes", text)
    tried = f", tried {numbers[0]}" if numbers else ""
    free = re.search(r"([\d.]+ [KMG]iB) is free", text)
    return (
        f"{run.dir}: out of memory at step {run.step + 1}{tried}{f', {free[1]} free' if free else ''}. {advice}, "
        f"then continue: {continue_command(run.dir)}" + (f" training.accumulate={more}" if more else "")
    )
