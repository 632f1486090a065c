"""One process's work on a run: take the folder, restore, train, and say how it ended."""

from __future__ import annotations

import math
import os
import re
import signal
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from types import FrameType
from typing import Any

import torch

from medgen.api.recipe import Recipe
from medgen.api.tables import TrainingSettings
from medgen.config import compatibility
from medgen.config.recipe import load
from medgen.data.store import cache_folder
from medgen.data.store.file_memo import cache_root
from medgen.errors import (
    CheckpointError,
    MedgenError,
    OutOfMemoryError,
    Problem,
    RankError,
    RecipeError,
    StoppedError,
    StorageError,
    continue_command,
    exit_code_of,
    is_out_of_memory,
    of_system,
)
from medgen.ranks import collectives, process_group
from medgen.run import choices, folder
from medgen.run.assemble import default_device
from medgen.run.open import begin, restore
from medgen.run.run import TrainingRun
from medgen.run.stopping import REQUEST, TIME_LIMIT
from medgen.system import files, streams
from medgen.system.console import say
from medgen.system.signals import NAMES, RepeatFilter, answered, exit_code_for
from medgen.training import compiling, trainer
from medgen.training.dry_run import lines as cost_lines
from medgen.training.phases import PhasedRun, owner, recipes, stopped


def start(recipe: Recipe, until: int | None = None) -> Path:
    """Train a new run, or its first `until` steps. Returns its folder."""
    began, device, asked = time.time(), default_device(), recipe.training.precision
    where = Path(collectives.on_rank_zero(lambda: str(folder.create(recipe))))
    recipe = choices.settle(recipe, device)
    with _at_work(where) as signals:
        if collectives.is_rank_zero():
            folder.claim(where)
            folder.write_recipe(where, recipe)
        choices.tell(recipe, device, asked)
        with _recorded(where):
            if owner(recipe):
                return _train_children(recipe, where, began, signals, until)
            run = begin(recipe, where)
            return _train(run, began, signals, until)


def resume(where: Path, overrides: Sequence[str] = (), layers: Sequence[str] = ()) -> Path:
    """Continue the run in a folder with its own recipe. Returns its folder."""
    return resume_with(own_recipe(where, overrides, layers), where)


def own_recipe(where: Path, overrides: Sequence[str] = (), layers: Sequence[str] = ()) -> Recipe:
    """The recipe with which the run in a folder is continued."""
    if not where.is_dir():
        raise CheckpointError(Problem(where, "no such folder", "Check the path, or use --resume auto"))
    path = files.current(where / "recipe.toml")
    if not files.exists(path):
        raise CheckpointError(Problem(where, "no checkpoint to resume", "Drop --resume, or use --resume auto"))
    return load(path, overrides, layers)


def resume_with(recipe: Recipe, where: Path) -> Path:
    """Continue the run in a folder, from its newest checkpoint that is whole, as far as the recipe still fits."""
    began = time.time()
    with _at_work(where) as signals, _recorded(where):
        if owner(recipe):
            old = own_recipe(where)
            recipe = choices.fill(recipe, choices.of(old))
            compatibility.check(old, recipe, where)
            choices.tell(recipe, default_device(), choices.KEPT)
            return _train_children(recipe, where, began, signals)
        run = restore(recipe, where)
        if run.complete and not run.epoch_due:
            say(f"already complete (step {run.step}/{run.total_steps})")
            return where
        choices.tell(run.recipe, run.device, choices.KEPT)
        if run.is_rank_zero:
            folder.write_recipe(where, run.recipe)
        return _train(run, began, signals)


def dry_run(recipe: Recipe) -> None:
    """Train a step or two in a temporary folder, and print what would be trained and what it costs.

    The slice store is filled and kept, as training reads the same.
    """
    began, device, asked = time.time(), default_device(), recipe.training.precision
    recipe = choices.settle(recipe, device)
    choices.tell(recipe, device, asked)
    for each in recipes(recipe):
        process_group.check(each, each.training.devices)
        with rehearsal(each) as run:
            _describe(run)
            samples = run.progress.epoch_samples
            say(f"plan     {run.total_steps} steps of {each.training.batch_size}, {samples} samples an epoch")
            for line in cost_lines(run):
                say(line)
    if cache_folder.has_built(began):
        say(f"kept     the slice store, which training reads, in {cache_root()}")


@contextmanager
def rehearsal(recipe: Recipe) -> Iterator[TrainingRun]:
    """A run in a temporary folder, of which nothing stays."""
    with tempfile.TemporaryDirectory() as where:
        run = begin(recipe, Path(where))
        try:
            with _memory(run, kept=False):
                yield run
        finally:
            run.train.close()
            run.metrics_file.close()


def _train(run: TrainingRun, began: float, signals: Signals, until: int | None = None) -> Path:
    run.limit(deadline(run.recipe.training, began), until)
    signals.attach(run)
    process_group.start_heartbeat(run.dir, run.recipe.distributed.timeout, run.step)
    if run.is_rank_zero:
        _introduce(run)
    with _memory(run):
        trainer.fit(run)
    finished = run.complete and not run.epoch_due
    if not run.is_rank_zero:
        return run.dir
    folder.write_recipe(run.dir, run.recipe)  # with what was chosen when it was first compiled
    folder.write_metadata(run.dir, "complete" if finished else "stopped", **_result(run))
    return run.dir if finished else _unfinished(run, began, f"at step {run.step}")


def _train_children(recipe: Recipe, where: Path, began: float, signals: Signals, until: int | None = None) -> Path:
    """Let the callback that owns the fit train its child runs, all of this folder."""
    work = PhasedRun(recipe, where)
    work.limit(deadline(recipe.training, began), until)
    for each in recipes(recipe):
        process_group.check(each, collectives.size())
    process_group.start_heartbeat(where, recipe.distributed.timeout, 0)
    if collectives.is_rank_zero():
        folder.write_recipe(where, recipe)
        identity, training = folder.identity(recipe), recipe.training
        folder.write_metadata(where, "running", recipe=identity, seed=recipe.run.seed, precision=training.precision)
    say(f"run      {where}")
    signals.attach(work)
    with _memory(work):
        work.hooks.medgen_fit(run=work)
    if not collectives.is_rank_zero():
        return where
    folder.write_metadata(where, "complete" if work.complete else "stopped")
    return where if work.complete else _unfinished(work, began, "between two steps")


def _unfinished(work: TrainingRun | PhasedRun, began: float, at: str) -> Path:
    """The folder, where the caller asked for no more; else raises what makes a scheduler continue, or not try again."""
    reason = work.stopping or ""
    if reason.startswith(REQUEST):
        return work.dir
    if reason == TIME_LIMIT and not work.has_advanced and not cache_folder.has_built(began):
        raise RecipeError(_too_short(work, began))
    raise stopped(work.dir, work.stopping, at)


def _too_short(work: TrainingRun | PhasedRun, began: float) -> Problem:
    """A run that would stop at the same step whenever it is continued."""
    own, took = work.recipe.training.time_limit, f"starting took {time.time() - began:.0f} s"
    if own and began + 60 * own == work.deadline:
        where, said, fix = "training.time_limit", f"got {own:g} minutes, {took}", "Raise it"
    else:
        where, said, fix = "SLURM_JOB_END_TIME", took, "Ask for more time, as slurm.hours"
    what = f"{said}, and no step fits into what is left"
    return Problem(where, what, f"{fix}, then continue", command=continue_command(work.dir))


def deadline(training: TrainingSettings, began: float) -> float:
    """The time by which a process that began then must have saved; SLURM tells its own limit in seconds since 1970."""
    own = began + 60 * training.time_limit if training.time_limit else math.inf
    slurm = os.environ.get("SLURM_JOB_END_TIME", "")
    return min(own, float(slurm) if slurm.isascii() and slurm.isdigit() else math.inf)


def _introduce(run: TrainingRun) -> None:
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
    _describe(run)
    say(f"run      {run.dir}" + (f", from step {run.step}" if run.step else ""))


def _describe(run: TrainingRun) -> None:
    parameters = sum(each.numel() for each in run.network.parameters())
    patients = f"{run.store.patients('train')} + {run.store.patients('val')} patients"
    what = (
        "slices"
        if run.recipe.data.crop == "none"
        else f"crops around lesions, {run.store.grid.spacing[0]:g} mm a pixel,"
    )
    say(f"data     {run.train.size} {what} to train on, {run.val.size} held out ({patients})")
    say(f"network  {parameters / 1e6:.1f} M parameters on {run.device}, {run.recipe.training.precision}")


def _result(run: TrainingRun) -> dict[str, Any]:
    return {"step": run.step, "total_steps": run.total_steps, "training_seconds": round(run.seconds, 1)}


class Signals:
    """Answers signals: before training by ending, during it by asking for a stop between two steps."""

    def __init__(self, where: Path):
        self.where = where
        self.run: TrainingRun | PhasedRun | None = None
        self._ear = RepeatFilter()
        self._asked: str | None = None

    def attach(self, run: TrainingRun | PhasedRun) -> None:
        """From now on it is the run that stops; at once, if some library has swallowed what was raised before."""
        self.run = run
        if self._asked:
            run.stop(self._asked)

    def __call__(self, number: int, _: FrameType | None) -> None:
        if not self._ear.first(number):
            return
        name = NAMES[signal.Signals(number)]
        if self.run is not None:
            self.run.stop(name)
            if not compiling.is_underway():
                return
        self._asked = name
        raise StoppedError(
            Problem(self.where, f"stopped by {name} before it trained", "Give the same command again"),
            exit_code=exit_code_for(name),
        )


@contextmanager
def _at_work(where: Path) -> Iterator[Signals]:
    """Hold the folder, answer signals, and say in one line that a file could not be written."""
    signals = Signals(where)
    try:
        with answered(signals), folder.lock(where) if collectives.is_rank_zero() else nullcontext():
            streams.only_log()
            yield signals
    except OSError as error:
        if (told := _refused(error, where)) is None:
            raise
        raise told from error


def _refused(error: OSError, where: Path) -> MedgenError | None:
    """The line about what the system refused, or about what others did to the run's folder; None for a mistake."""
    if told := of_system(error, where, "go on"):
        return told
    path = error.filename if isinstance(error.filename, str) else ""
    if not where.is_dir() or (path and Path(path).absolute().is_relative_to(where.absolute())):
        what = f"{path or where}: {error.strerror or error}"
        return StorageError(
            Problem("", what, "See that nobody deletes, moves or changes the files of a run, then go on")
        )
    return None


@contextmanager
def _recorded(where: Path) -> Iterator[None]:
    """Write into `metadata.json` how a process ended that failed or was stopped."""
    try:
        yield
    except BaseException as error:
        told = _refused(error, where) if isinstance(error, OSError) else None
        code = RankError.exit_code if process_group.is_lost_peer_error(error) else exit_code_of(told or error)
        if collectives.is_rank_zero():
            with suppress(OSError, StorageError):  # a full or lost disk is told of by the error itself
                folder.write_end(where, error, code)
        raise


@contextmanager
def _memory(run: TrainingRun | PhasedRun, kept: bool = True) -> Iterator[None]:
    """Out of memory is no bug: say what would fit, without changing the result."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise OutOfMemoryError(_too_large(run, str(error), kept)) from error
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        raise OutOfMemoryError(_too_large(run, str(error), kept)) from error


def _too_large(work: TrainingRun | PhasedRun, text: str, kept: bool) -> Problem:
    run = work.current
    if run is None:  # it was no step that took too much
        return Problem(work.dir, f"out of memory ({text.splitlines()[0]})", "Use a smaller network or image")
    change, advice = _smaller(run)
    where = f"the pre-flight check of {run.trial.what}" if run.trial else f"step {run.step + 1}"
    numbers = re.findall(r"[\d.]+ [KMG]iB|\d+ bytes", text)
    tried = f", tried {numbers[0]}" if numbers else ""
    free = re.search(r"([\d.]+ [KMG]iB) is free", text)
    said = f"out of memory at {where}{tried}{f', {free[1]} free' if free else ''}"
    if not kept:
        return Problem("training.batch_size", said, advice)
    if run.trial and not change:
        return Problem(run.dir, said, advice)
    again = continue_command(work.dir) + (f" {change}" if change else "")
    return Problem(run.dir, said, f"{advice}, then continue", command=again)


def _smaller(run: TrainingRun) -> tuple[str, str]:
    """A change that needs less memory and changes no result, if there is one, and the advice."""
    if run.trial and run.trial.what != "training":
        change = run.trial.smaller
        return change, f"Use {change}" if change else "Use a smaller training.batch_size, network or image in a new run"
    size, parts = run.recipe.training.batch_size, run.recipe.training.accumulate
    more = next((n for n in range(parts + 1, size + 1) if size % n == 0), None)
    ways = [(f"training.accumulate={more}", "same batch, less memory")] if more else []
    if not run.recipe.network.checkpointing:  # the network has this setting, and it is off
        ways.append((f"network.{run.recipe.names['network']}.checkpointing=true", "same result, slower"))
    if not ways:
        return "", "Use a smaller network or image"
    return ways[0][0], "Use " + " or ".join(f"{change} ({what})" for change, what in ways)
