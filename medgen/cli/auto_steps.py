"""`medgen generate --steps auto`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from medgen.cli import options
from medgen.errors import Problem, RecipeError

if TYPE_CHECKING:
    from medgen.evaluation.samples import Samples
    from medgen.generation.auto_steps import Make, Ruler, Trial
    from medgen.system.signals import Stop

OTHERWISE = "Give --steps N"


def settle(make: Make, out: Path, image_model: Path | None, against: str | None, seed: int, stop: Stop) -> int | None:
    """Return the number of steps of the pairs in a folder, measured first if there is none. Raises RecipeError."""
    from medgen.generation import auto_steps
    from medgen.generation.pairs import with_advice
    from medgen.system.console import say

    before = auto_steps.before(out, make)
    ruler = _ruler(make, image_model, against, seed) if before is None else None
    if ruler is not None:
        with with_advice(out, make(None).batch_size), auto_steps.alone(out, stop):
            before = auto_steps.before(out, make)  # another process may have been first
            if before is None:
                return _measure(make, ruler, out, stop)
    say(f"steps: {before or 'those of the recipes'}, as in {out / 'manifest.jsonl'}")
    return before or None


def _measure(make: Make, ruler: Callable[[Samples], Ruler], out: Path, stop: Stop) -> int:
    from medgen.generation import auto_steps
    from medgen.system.console import progress

    with progress("steps", len(auto_steps.candidates(make(None))), unit="numbers tried") as bar:
        trials = auto_steps.try_steps(make, ruler, out, stop, bar.advance)
    steps = auto_steps.fewest(trials)
    auto_steps.note(out, make(steps), trials)
    _table(trials, steps)
    return steps


def show(out: Path) -> None:
    """Print what processes that medgen started have measured."""
    from medgen.generation import auto_steps

    steps, trials = auto_steps.noted(out)
    if trials:
        _table(trials, steps)


def _ruler(make: Make, image_model: Path | None, against: str | None, seed: int) -> Callable[[Samples], Ruler]:
    """Return what reads real scans once pairs say on which grid. Raises RecipeError if there is nothing to compare."""
    from medgen.cli._audit import at_hand
    from medgen.evaluation import sources
    from medgen.generation import auto_steps

    if make(None).image is None:
        raise RecipeError(Problem("--steps auto", "compares images, and no --image-model is given", OTHERWISE))
    where, why = at_hand(image_model, against, asked=True)
    if not where:
        raise RecipeError(Problem("--steps auto", f"needs real scans to compare with, but {why}", "Or give --steps N"))
    source = sources.real(where, (), options.registry())
    features = sources.measure("features", auto_steps.FEATURES, (), options.registry())
    split = "train" if source.images else "all"

    def ruler(like: Samples) -> Ruler:
        return auto_steps.Ruler(source, split, features, like, seed)

    return ruler


def _table(trials: list[Trial], steps: int) -> None:
    from rich.table import Table

    from medgen.evaluation.tables import number, span
    from medgen.system.console import out, say

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
