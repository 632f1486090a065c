"""Trains a few steps at rising rates, scores each on one probe, and puts the run back."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Protocol, cast

import numpy as np
import torch

from medgen import Callback, Draws, Problem, StorageError, hookimpl, pictures, seeds
from medgen.api.messages import Plain
from medgen.api.settings import unstructure
from medgen.errors import reason
from medgen.ranks import collectives
from medgen.run.folder import identity
from medgen.run.run import TrainingRun
from medgen.system import files
from medgen.system.console import progress, say
from medgen.training.sampling import autocast, evaluation
from medgen.training.trainer import Trainer
from medgen.training.turn_values import cut
from medgen_builtins.callbacks._lr_finding import (
    DIVERGED,
    SMOOTHING,
    Finding,
    diverged,
    judge,
    number,
    override,
    smooth,
)
from medgen_builtins.callbacks._lr_plot import plot

PROBE_BATCHES, PROBE_SAMPLES = 4, 64
"""Number of batches of the probe, and its least number of samples."""


STRATA = 16
"""Number of pooled draws of the times, from which the probe takes evenly spaced quantiles."""


class Ramp(Protocol):
    """The rates of a sweep: from `min_lr` to `max_lr` in `steps`, evenly spaced in their logarithm."""

    @property
    def min_lr(self) -> float: ...
    @property
    def max_lr(self) -> float: ...
    @property
    def steps(self) -> int: ...


class Finder(Callback):
    """Trains a few steps at rising rates, then puts the run back."""

    def __init__(self, settings: Ramp):
        self.settings = settings

    @hookimpl(tryfirst=True)
    def medgen_fit(self, run: TrainingRun) -> None:
        """Sweep first, then leave the fit to its owner."""
        if run.step == 0:
            self.measure(run, run.dir)

    def measure(self, run: TrainingRun, folder: Path) -> None:
        """Sweep the rates, print the findings, and write picture and numbers into a folder."""
        finding = self.find(run)
        if run.is_rank_zero and not run.stopping:
            report(finding)
            write(finding, self.settings, run, folder)

    def find(self, run: TrainingRun) -> Finding:
        """Sweep the rates; weights, optimizers and position of the run are as before afterwards."""
        rates = ramp(self.settings)
        with unchanged(run), progress("learning rates", len(rates)) as bar:
            scores = []
            for score in sweep(run, rates):
                scores.append(score)
                bar.advance()
        return judge(rates, scores)


def ramp(settings: Ramp) -> list[float]:
    """Return the rates, evenly spaced in their logarithm."""
    ratio = settings.max_lr / settings.min_lr
    return [
        settings.min_lr * ratio ** (index / (settings.steps - 1)) for index in range(settings.steps)
    ]


def sweep(run: TrainingRun, rates: Sequence[float]) -> Iterator[float]:
    """Train a step at each rate; yield the probe's score until it is not finite or diverges."""
    first, scores = run.step, list[float]()
    trainer, probe = Trainer(run, rate=lambda step: rates[step - first]), Probe(run)
    for _ in rates:
        if run.stop_agreed():
            return
        measured = torch.stack(list(trainer.step().values()))
        trainer.readings.discard()  # these steps are no part of the run, so no line of its journal
        score = probe.score() if measured.isfinite().all() else math.nan
        scores.append(collectives.broadcast_object(score))
        yield scores[-1]
        if not math.isfinite(scores[-1]) or diverged(smooth(scores)):
            return


@contextmanager
def unchanged(run: TrainingRun) -> Iterator[None]:
    """Restore weights, optimizers and position on exit."""
    modules: list[Any] = [run.network, *run.turns.values()]
    live = list(
        {
            id(each): each
            for module in modules
            for each in (*module.parameters(), *module.buffers())
        }.values()
    )
    kept = [each.detach().clone() for each in live]
    optimizers = {name: copy.deepcopy(each.state_dict()) for name, each in run.optimizers.items()}
    position = run.progress.state_dict()
    try:
        with run.stops.without_target():  # that is a step of the run, not of this
            yield
    finally:
        with torch.no_grad():
            torch._foreach_copy_(live, kept)
        for name, state in optimizers.items():
            run.optimizers[name].load_state_dict(state)
        run.progress.load_state_dict(position)


class Probe:
    """Training samples and draws equal at every rate; the score is the first turn's weighted loss."""

    def __init__(self, run: TrainingRun):
        self.run, (self.name, self.turn) = run, next(iter(run.turns.items()))
        size = run.recipe.training.batch_size
        self.count = max(PROBE_BATCHES * size, PROBE_SAMPLES)
        chosen = torch.randperm(run.train.size, generator=self._stream("samples", "cpu")).numpy()
        self.batch = run.to_device(run.train.stored(np.resize(chosen, self.count)))
        self.draws = self._draws()

    def score(self) -> float:
        """Return the mean loss over the probe."""
        training, weights = self.run.recipe.training, self.run.recipe.loss_weights
        size, total = (
            training.batch_size // training.accumulate,
            torch.zeros((), device=self.run.device),
        )
        turn = cast("torch.nn.Module", self.turn)
        with evaluation(turn), torch.no_grad(), autocast(self.run.device, training.precision):
            for start in range(0, self.count, size):
                rows = slice(start, min(start + size, self.count))
                losses = self.turn(cut(self.batch, rows), cut(self.draws, rows), None).losses
                total += torch.stack(
                    [weights[name] * each.sum() for name, each in losses.items()]
                ).sum()
        return float(total) / self.count

    def _draws(self) -> NamedTuple:
        """Return draws with times at quantiles of many, as the loss depends on times most."""
        generator = self._stream("draws", self.run.device)
        draws = self.turn.draw(generator, self.batch)
        if not isinstance(draws, Draws):
            return draws
        more = [cast("Draws", self.turn.draw(generator, self.batch)).t for _ in range(STRATA)]
        pooled = torch.cat(more)
        return draws._replace(t=pooled.sort().values[STRATA // 2 :: STRATA])

    def _stream(self, purpose: str, device: torch.device | str) -> torch.Generator:
        return seeds.stream(
            self.run.recipe.run.seed, f"lr_find/{self.name}/{purpose}", device=device
        )


def report(finding: Finding) -> None:
    """Print the findings, last the override to paste."""
    if finding.steepest is None or finding.bound is None:
        return say(f"learning rate: inconclusive, {finding.verdict}")
    say(
        f"learning rate: the loss falls fastest at {number(finding.steepest)}, safe up to {number(finding.bound)}"
    )
    return say(override(finding))


def write(finding: Finding, settings: Ramp, run: TrainingRun, folder: Path) -> None:
    """Write `lr_finder.png` and `lr_finder.json`. Raises StorageError."""
    pictures.save(plot(finding), folder / "lr_finder.png")
    path = folder / "lr_finder.json"
    table = {
        "recipe": identity(run.recipe),
        "seed": run.recipe.run.seed,
        **as_table(finding, settings),
    }
    try:
        files.write(path, json.dumps(table, indent=1) + "\n")
    except OSError as error:
        raise StorageError(
            Problem(path, reason(error), "Free space or choose another folder")
        ) from error


def as_table(finding: Finding, settings: Ramp) -> dict[str, object]:
    """Convert to plain values; non-finite numbers, which JSON lacks, become null."""
    curve = {"learning_rate": finding.rates, "loss": finding.scores, "smoothed": finding.smoothed}
    return {
        "suggestion": finding.suggestion,
        "steepest": finding.steepest,
        "bound": finding.bound,
        "verdict": finding.verdict,
        "override": override(finding),
        "settings": {
            **cast("dict[str, Plain]", unstructure(settings)),
            "smoothing": SMOOTHING,
            "diverged": DIVERGED,
        },
        "curve": {
            name: [each if math.isfinite(each) else None for each in row]
            for name, row in curve.items()
        },
    }
