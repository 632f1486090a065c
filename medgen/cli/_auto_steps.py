"""What `medgen generate --steps auto` does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from rich.table import Table

from medgen.cli import options
from medgen.cli._audit import at_hand
from medgen.errors import Problem, RecipeError
from medgen.evaluation import sources
from medgen.evaluation.card_tables import number, span
from medgen.evaluation.samples import Samples
from medgen.generation import auto_steps
from medgen.generation.auto_steps import Make, Ruler, Trial
from medgen.generation.pair_writer import blocks_too_large, with_advice
from medgen.system.console import out, progress, say
from medgen.system.signals import Stop

OTHERWISE = "Give --steps N"


def settle(
    make: Make, folder: Path, image_model: Path | None, against: str | None, seed: int, stop: Stop
) -> int | None:
    """Return the number of steps of the pairs in a folder, measured first if there is none. Raises
    RecipeError.
    """
    before = auto_steps.before(folder, make)
    ruler = _ruler(make, image_model, against, seed) if before is None else None
    if ruler is not None:
        with (
            with_advice(folder, blocks_too_large(make(None).batch_size)),
            auto_steps.alone(folder, stop),
        ):
            before = auto_steps.before(folder, make)  # another process may have been first
            if before is None:
                return _measure(make, ruler, folder, stop)
    say(f"steps: {before or 'those of the recipes'}, as in {folder / 'manifest.jsonl'}")
    return before or None


def _measure(make: Make, ruler: Callable[[Samples], Ruler], folder: Path, stop: Stop) -> int:
    with progress("steps", len(auto_steps.candidates(make(None))), unit="numbers tried") as bar:
        trials = auto_steps.try_steps(make, ruler, folder, stop, bar.advance)
    steps = auto_steps.fewest(trials)
    auto_steps.note(folder, make(steps), trials)
    _table(trials, steps)
    return steps


def show(folder: Path) -> None:
    """Print what processes that medgen started have measured."""
    steps, trials = auto_steps.noted(folder)
    if trials:
        _table(trials, steps)


def _ruler(
    make: Make, image_model: Path | None, against: str | None, seed: int
) -> Callable[[Samples], Ruler]:
    """Return what reads real scans once pairs say on which grid. Raises RecipeError if there is
    nothing to compare.
    """
    if make(None).image is None:
        raise RecipeError(
            Problem("--steps auto", "compares images, and no --image-model is given", OTHERWISE)
        )
    where, why = at_hand(image_model, against, asked=True)
    if not where:
        raise RecipeError(
            Problem(
                "--steps auto", f"needs real scans to compare with, but {why}", "Or give --steps N"
            )
        )
    source = sources.real(where, (), options.registry())
    features = sources.measure("features", auto_steps.FEATURES, (), options.registry())
    split = "train" if source.images else "all"

    def ruler(like: Samples) -> Ruler:
        return auto_steps.Ruler(source, split, features, like, seed)

    return ruler


def _table(trials: list[Trial], steps: int) -> None:
    names = list(dict.fromkeys(name for trial in trials for name in trial.figures))
    rows = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("steps", *(each for name in names for each in (name, "95 %")), "s per pair"):
        rows.add_column(title, no_wrap=True, justify="right")
    for trial in trials:
        found = [trial.figures.get(name, (float("nan"),) * 3) for name in names]
        cells = [text for value, low, high in found for text in (number(value), span(low, high))]
        rows.add_row(str(trial.steps), *cells, number(trial.seconds))
    out.print(rows, markup=True)
    say(f"steps: {steps}, the fewest that are no worse than the best within its interval")
