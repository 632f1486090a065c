"""The learning-rate range test (Smith 2017), scored so that the curve is about the rate and not about the batch."""

from __future__ import annotations

import copy
import itertools
import json
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from medgen import Draws, field, ge, gt, hookimpl, settings
from medgen.api.settings import unstructure

if TYPE_CHECKING:
    import torch

    from medgen.api.recipe import Recipe
    from medgen.run.run import TrainingRun

medgen_api = 1

SMOOTHING = 0.6
"""Share of the past in the smoothed score; the probe is fixed, so that little is left to smooth."""
DIVERGED = 3.0
"""The sweep ends where the smoothed score is so many times the best."""
FEWEST = 10
"""Points below which a curve says nothing."""
RISE = 0.1
"""Share of the whole fall by which the smoothed score must rise to count as having turned."""
LEVEL = 0.02
"""A share of the score, or of its fall, so small that it is none."""
MARGIN = 0.5
"""Of the highest rate at which the score still falls."""
EDGE = 4
"""A fall that is steepest among so many first points began before them; smoothing moves it by one or two."""
PROBE_BATCHES, PROBE_SAMPLES = 4, 64
"""The probe has so many batches, and at least so many samples."""
STRATA = 16
"""So many draws of the times are pooled, of which the probe takes evenly spaced quantiles."""


class Finding(NamedTuple):
    """What a sweep found. rates, scores, smoothed: one per rate measured; without a suggestion, `verdict` says why.

    steepest: where the score falls fastest. bound: up to where it falls. suggestion: half of it, or `steepest`.
    """

    rates: list[float]
    scores: list[float]
    smoothed: list[float]
    verdict: str = ""
    steepest: float | None = None
    bound: float | None = None
    suggestion: float | None = None


@settings
class LrFind:
    """Before the first step, measures which learning rates train, into lr_finder.png and lr_finder.json.

    Everything is put back afterwards: the run goes on as it would have without.
    """

    min_lr: float = field(1e-6, help="the first rate of the ramp", check=gt(0))
    max_lr: float = field(1.0, help="the last", check=gt(0))
    steps: int = field(100, help="rates of the ramp, each trained on one batch", check=ge(FEWEST))
    may_change = ("min_lr", "max_lr", "steps")

    def check(self, recipe: Recipe) -> Iterator[str]:
        if self.max_lr <= self.min_lr:
            yield (
                f"callbacks.lr_find.max_lr: got {self.max_lr:g}, expected more than callbacks.lr_find.min_lr = "
                f"{self.min_lr:g}. Raise it."
            )

    def build(self, run: TrainingRun) -> Finder:
        return Finder(self)


class Finder:
    """Trains a few steps at rising rates, then puts the run back."""

    def __init__(self, settings: LrFind):
        self.settings = settings

    @hookimpl(tryfirst=True)
    def medgen_fit(self, run: TrainingRun) -> None:
        """Has the fit until the sweep is over, and then leaves it to whoever would have had it."""
        if run.step == 0:
            self.measure(run, run.dir)

    def measure(self, run: TrainingRun, folder: Path) -> None:
        """Sweep the rates, say what was found, and leave the picture and the numbers in a folder."""
        finding = self.find(run)
        if run.is_rank_zero and not run.stopping:
            report(finding)
            write(finding, self.settings, run, folder)

    def find(self, run: TrainingRun) -> Finding:
        """Sweep the rates; weights, optimizers and position of the run are as before afterwards."""
        from medgen.system.console import progress

        rates = ramp(self.settings)
        with unchanged(run), progress("learning rates", len(rates)) as bar:
            scores = []
            for score in sweep(run, rates):
                scores.append(score)
                bar.advance()
        return judge(rates, scores)


def ramp(settings: LrFind) -> list[float]:
    """The rates, evenly spaced in their logarithm."""
    ratio = settings.max_lr / settings.min_lr
    return [settings.min_lr * ratio ** (index / (settings.steps - 1)) for index in range(settings.steps)]


def sweep(run: TrainingRun, rates: Sequence[float]) -> Iterator[float]:
    """Train a step at each rate and give the probe's score after it, until it is not finite or has diverged."""
    import torch

    from medgen.ranks import collectives
    from medgen.training.trainer import Trainer

    trainer, probe, first, scores = Trainer(run), Probe(run), run.step, list[float]()
    run.learning_rate = lambda step: rates[step - first]  # type: ignore[method-assign]  # given back by `unchanged`
    for _ in rates:
        if run.stop_agreed():
            return
        measured = torch.stack(list(trainer.step().values()))
        trainer.pending.clear()  # these steps are no part of the run, so no line of its journal
        score = probe.score() if measured.isfinite().all() else math.nan
        scores.append(collectives.broadcast_object(score))
        yield scores[-1]
        if not math.isfinite(scores[-1]) or diverged(smooth(scores)):
            return


@contextmanager
def unchanged(run: TrainingRun) -> Iterator[None]:
    """Put back weights, optimizers and position at the end, whatever happened in between."""
    import torch

    from medgen.run.run import PROGRESS_FIELDS

    modules: list[Any] = [run.network, *run.turns.values()]
    live = list({id(each): each for module in modules for each in (*module.parameters(), *module.buffers())}.values())
    kept = [each.detach().clone() for each in live]
    optimizers = {name: copy.deepcopy(each.state_dict()) for name, each in run.optimizers.items()}
    position = {name: getattr(run, name) for name in (*PROGRESS_FIELDS, "until")}
    run.until = None  # a step of the run, not of this
    try:
        yield
    finally:
        vars(run).pop("learning_rate", None)
        with torch.no_grad():
            torch._foreach_copy_(live, kept)
        for name, state in optimizers.items():
            run.optimizers[name].load_state_dict(state)
        for name, value in position.items():
            setattr(run, name, value)


class Probe:
    """Training samples and draws that are the same at every rate: the score is the first turn's weighted loss."""

    def __init__(self, run: TrainingRun):
        import numpy as np
        import torch

        self.run, (self.name, self.turn) = run, next(iter(run.turns.items()))
        size = run.recipe.training.batch_size
        self.count = max(PROBE_BATCHES * size, PROBE_SAMPLES)
        chosen = torch.randperm(run.train.size, generator=self._stream("samples", "cpu")).numpy()
        self.batch = run.to_device(run.train.stored(np.resize(chosen, self.count)))
        self.draws = self._draws()

    def score(self) -> float:
        """The mean over the probe."""
        import torch

        from medgen.training.sampling import autocast, evaluation
        from medgen.training.trainer import cut

        training, weights = self.run.recipe.training, self.run.recipe.loss_weights
        size, total = training.batch_size // training.accumulate, torch.zeros((), device=self.run.device)
        turn = cast("torch.nn.Module", self.turn)
        with evaluation(turn), torch.no_grad(), autocast(self.run.device, training.precision):
            for start in range(0, self.count, size):
                rows = slice(start, min(start + size, self.count))
                losses = self.turn(cut(self.batch, rows), cut(self.draws, rows), None).losses
                total += torch.stack([weights[name] * each.sum() for name, each in losses.items()]).sum()
        return float(total) / self.count

    def _draws(self) -> Any:
        """Draws of the turn; times, where it has any, are quantiles of many, since the loss depends on them most."""
        import torch

        generator = self._stream("draws", self.run.device)
        draws = self.turn.draw(generator, self.batch)
        if not isinstance(draws, Draws):
            return draws
        pooled = torch.cat([self.turn.draw(generator, self.batch).t for _ in range(STRATA)])
        return draws._replace(t=pooled.sort().values[STRATA // 2 :: STRATA])

    def _stream(self, purpose: str, device: torch.device | str) -> torch.Generator:
        from medgen import seeds

        return seeds.stream(self.run.recipe.run.seed, f"lr_find/{self.name}/{purpose}", device=device)


def smooth(scores: Sequence[float]) -> list[float]:
    """Exponential averages, corrected for their start as in Kingma and Ba 2015, section 3."""
    average, smoothed = 0.0, list[float]()
    for count, score in enumerate(scores, 1):
        average = SMOOTHING * average + (1 - SMOOTHING) * score
        smoothed.append(average / (1 - SMOOTHING**count))
    return smoothed


def diverged(smoothed: Sequence[float]) -> bool:
    """Whether the last is several times the best."""
    return smoothed[-1] > DIVERGED * min(smoothed)


def judge(rates: Sequence[float], scores: Sequence[float]) -> Finding:
    """Where the smoothed score falls fastest per decade, and the rate at which it first falls no more after that.

    The suggestion is half of the latter, or the former if that is more. It alone would not do: an autoencoder's fastest
    fall is that of its brightness, at a tenth of the rates that train the rest.
    """
    finite = list(itertools.takewhile(math.isfinite, scores))
    smoothed = smooth(finite)
    found = Finding(list(rates[: len(scores)]), list(scores), smoothed)
    if len(finite) < FEWEST:
        few = f"rates before the loss was lost: {len(finite)}, expected {FEWEST} or more"
        return found._replace(verdict=f"{few}. Lower min_lr, or give more steps.")
    best = lowest(smoothed)
    steepest = max(range(1, best + 1), key=lambda index: fall(smoothed, index), default=0)
    verdict = _doubt(rates, smoothed, best, steepest)
    if verdict:
        return found._replace(verdict=verdict)
    bound = next(
        index for index in range(steepest, best + 1) if index == best or smoothed[index + 1] >= smoothed[index]
    )
    suggestion = max(rates[steepest], MARGIN * rates[bound])
    return found._replace(steepest=rates[steepest], bound=rates[bound], suggestion=suggestion, verdict="conclusive")


def lowest(smoothed: Sequence[float]) -> int:
    """Where the score is level with its lowest before the first rise: what comes after a rise is luck."""
    start = smoothed[0]
    rise, least = RISE * (start - min(smoothed)), start
    for score in smoothed:
        if score > least + rise:
            break
        least = min(least, score)
    return next(index for index, score in enumerate(smoothed) if score <= least + LEVEL * (start - least))


def fall(smoothed: Sequence[float], index: int) -> float:
    """How much the score falls from the rate before to the rate after; rates are evenly spaced in their logarithm."""
    return smoothed[index - 1] - smoothed[min(index + 1, len(smoothed) - 1)]


def _doubt(rates: Sequence[float], smoothed: Sequence[float], best: int, steepest: int) -> str:
    """Why there is no suggestion; empty if there is one."""
    if smoothed[0] - smoothed[best] < LEVEL * abs(smoothed[0]):
        return f"the loss stayed at {smoothed[0]:.3g}. Widen min_lr to max_lr, or give more steps."
    if best == len(rates) - 1:
        return f"the loss was still falling at {rates[-1]:.2g}. Raise max_lr."
    if steepest < EDGE:
        return f"the loss fell fastest at {rates[0]:.2g}, the first. Lower min_lr."
    return ""


def override(finding: Finding) -> str:
    """What to paste after the recipe, such as `training.learning_rate=1.2e-3`; empty without a suggestion."""
    return f"training.learning_rate={number(finding.suggestion)}" if finding.suggestion else ""


def number(rate: float) -> str:
    """`1.2e-3`"""
    mantissa, exponent = f"{rate:.1e}".split("e")
    return f"{mantissa}e{int(exponent)}"


def report(finding: Finding) -> None:
    """Say what was found, last the override to paste."""
    from medgen.system.console import say

    if finding.steepest is None or finding.bound is None:
        return say(f"learning rate: inconclusive, {finding.verdict}")
    say(f"learning rate: the loss falls fastest at {number(finding.steepest)}, safe up to {number(finding.bound)}")
    return say(override(finding))


def write(finding: Finding, settings: LrFind, run: TrainingRun, folder: Path) -> None:
    """`lr_finder.png` and `lr_finder.json`. Raises StorageError."""
    from medgen import pictures
    from medgen.errors import StorageError
    from medgen.run.folder import identity
    from medgen.system import files
    from medgen_builtins.callbacks._lr_plot import plot

    pictures.save(plot(finding), folder / "lr_finder.png")
    path = folder / "lr_finder.json"
    table = {"recipe": identity(run.recipe), "seed": run.recipe.run.seed, **as_table(finding, settings)}
    try:
        files.write(path, json.dumps(table, indent=1) + "\n")
    except OSError as error:
        raise StorageError(f"{path}: {error.strerror}. Free space or choose another folder.") from error


def as_table(finding: Finding, settings: LrFind) -> dict[str, Any]:
    """Plain values; what is not finite, which JSON lacks, becomes null."""
    curve = {"learning_rate": finding.rates, "loss": finding.scores, "smoothed": finding.smoothed}
    return {
        "suggestion": finding.suggestion,
        "steepest": finding.steepest,
        "bound": finding.bound,
        "verdict": finding.verdict,
        "override": override(finding),
        "settings": {**unstructure(settings), "smoothing": SMOOTHING, "diverged": DIVERGED},
        "curve": {name: [each if math.isfinite(each) else None for each in row] for name, row in curve.items()},
    }


@hookimpl
def medgen_callbacks() -> dict[str, type]:
    return {"lr_find": LrFind}
