"""The fewest sampling steps whose pairs are no worse than those of more: measured once, and noted
in the manifest.

For each number of steps the first pairs are made, with the seeds that they have anyway, and
compared with real slices.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from medgen.api.interfaces import DiffusionStrategy
from medgen.api.measures import FeaturesSettings
from medgen.evaluation import evaluate, planes
from medgen.evaluation.bootstrap import interval
from medgen.evaluation.comparison import Comparison
from medgen.evaluation.distributions import Measured, Wasserstein
from medgen.evaluation.lesions import parts_of
from medgen.evaluation.samples import Samples
from medgen.evaluation.sources import Source
from medgen.evaluation.yardstick import Yardstick
from medgen.generation.generator import Generator, Pair
from medgen.generation.manifest import IN_USE, STEPS_AUTO, Manifest, begun
from medgen.generation.masks import DrawnMasks
from medgen.generation.pair_writer import stopped
from medgen.run.assemble import default_device
from medgen.system.locks import Locks
from medgen.system.signals import Stop

Make = Callable[[int | None], Generator]
"""Gives what makes pairs with a number of sampling steps; None: those of each model's recipe."""
CANDIDATES = (5, 10, 20, 40)
"""Steps that are tried, besides the recipe's own, beyond which nothing is."""
SAMPLE = 64
"""Pairs of each number of steps."""
FEATURES = "atlas"
"""Extractor by which a card judges heads."""
MEASURES = IN_USE + 1
"""The byte that is locked while one of several processes measures."""
TICK = 0.2
"""Seconds between looks whether another process has measured."""
Interval = tuple[float, float, float]


class Trial(NamedTuple):
    """What was measured of a number of steps. pairs: how many had a valid mask. seconds: per pair;
    NaN if not known.

    figures: value, low and high end of the 95 % interval, by name; all are better low. No figures:
    too few pairs.
    """

    steps: int
    pairs: int
    figures: dict[str, Interval]
    seconds: float = float("nan")


class Ruler:
    """Real slices, and how far generated ones are from them."""

    def __init__(
        self, source: Source, split: str, features: FeaturesSettings, like: Samples, seed: int
    ):
        asked = evaluate.Asked(features={FEATURES: features}, seed=seed, split=split)
        self._comparison: Comparison = evaluate.compare_samples(source, like, asked)
        self._stick = Yardstick.of(
            self._comparison,
            FEATURES,
            lambda: planes.extractor(features, like.axes, default_device()),
        )

    def figures(self, made: Samples, with_lesions: bool) -> dict[str, Interval]:
        """Measure samples. with_lesions: also the sizes of lesions, which are generated too."""
        draws, rng = self._comparison.draws, self._comparison.rng("steps")
        value, low, high = self._stick.interval(made, draws, rng).tolist()
        found = {f"KID on {FEATURES}": (value, low, high)}
        if with_lesions:
            found["lesion size, distance"] = _sizes_apart(made, self._comparison.real, draws, rng)
        return found


def candidates(make: Generator) -> list[int]:
    """Return the numbers of steps to try, ascending; the last is the largest of the recipes' own."""
    models = [make.image, make.masks.model if isinstance(make.masks, DrawnMasks) else None]
    strategies = [model.parts.strategy for model in models if model is not None]
    own = max(each.sampling_steps for each in strategies if isinstance(each, DiffusionStrategy))
    return [*(steps for steps in CANDIDATES if steps < own), own]


def try_steps(
    make: Make,
    ruler: Callable[[Samples], Ruler],
    out: Path,
    stop: Stop,
    advance: Callable[[], None],
) -> list[Trial]:
    """Measure every candidate, from the most steps on. ruler: gets pairs, for their grid."""
    trials, real = list[Trial](), None
    for steps in reversed(candidates(make(None))):
        generator = make(steps)
        began = time.perf_counter()
        pairs = _first(generator, out, stop)
        seconds = (time.perf_counter() - began) / len(pairs)
        made = samples_of([pair for pair in pairs if pair.channels], generator)
        figures: dict[str, Interval] = {}
        if made is not None and len(made) * 2 >= len(pairs):
            real = real or ruler(made)
            figures = real.figures(made, with_lesions=isinstance(generator.masks, DrawnMasks))
        trials.append(Trial(steps, 0 if made is None else len(made), figures, seconds))
        advance()
    return trials[::-1]


def fewest(trials: Sequence[Trial]) -> int:
    """Return the fewest steps with no figure above the best one's interval; else the most."""
    ends: dict[str, float] = {}
    for name in dict.fromkeys(name for trial in trials for name in trial.figures):
        known = [trial.figures[name] for trial in trials if name in trial.figures]
        value, _, high = min(known, key=lambda figure: np.nan_to_num(figure[0], nan=np.inf))
        ends[name] = value if np.isnan(high) else high
    good = [trial.steps for trial in trials if trial.figures and _within(trial.figures, ends)]
    return min(good) if good else max(trial.steps for trial in trials)


def _within(figures: Mapping[str, Interval], ends: Mapping[str, float]) -> bool:
    return all(figures[name][0] <= end for name, end in ends.items())


def samples_of(pairs: Sequence[Pair], make: Generator) -> Samples | None:
    """Take pairs as samples of a person each; None without any."""
    if not pairs:
        return None
    names = [name for name in pairs[0].channels if name not in pairs[0].masks]
    masks = [name for name in pairs[0].channels if name in pairs[0].masks]
    images = np.stack([np.stack([pair.channels[name] for name in names]) for pair in pairs]).astype(
        np.float32
    )
    none = [np.zeros(images.shape[2:], bool)]
    return Samples(
        images=images,
        masks=np.stack(
            [np.any([pair.channels[name] > 0 for name in masks] or none, axis=0) for pair in pairs]
        ),
        people=np.arange(len(pairs)),
        position=np.full(len(pairs), np.nan, np.float32),
        names=tuple(f"pair {pair.number}" for pair in pairs),
        channels=tuple(names),
        grid=make.grid,
        where="generated",
    )


def _first(make: Generator, out: Path, stop: Stop) -> list[Pair]:
    pairs: list[Pair] = []
    for number in range(-(-SAMPLE // make.batch_size)):
        if stop.reason:
            raise stopped(out, stop)
        pairs += make.block(number)
    return pairs


def _sizes_apart(made: Samples, real: Samples, draws: int, rng: np.random.Generator) -> Interval:
    """Return the 1-Wasserstein distance of lesion sizes from real ones, in deviations."""
    one, two = _sizes(made), _sizes(real)
    distance = Wasserstein(one.values, two.values)
    value = distance.mean(np.arange(len(one.values)), np.arange(len(two.values)))
    return (value, *interval(distance.mean, [one.people, two.people], draws, rng))


def _sizes(samples: Samples) -> Measured:
    """mm2 of every lesion."""
    rows = [
        (len(part) * samples.grid.cell, samples.people[number])
        for number, mask in enumerate(samples.masks)
        for part in parts_of(mask)
    ]
    size, people = np.array(rows, np.float64).reshape(-1, 2).T
    return Measured(size[:, None], people.astype(np.int64))


# What is kept of it


@contextmanager
def alone(out: Path, stop: Stop) -> Iterator[None]:
    """Measure while no other process does: of several that begin together, one measures and the
    others find that.
    """
    out.mkdir(parents=True, exist_ok=True)
    with closing(Locks(out / ".lock")) as locks:
        while not locks.take(MEASURES):
            if stop.reason:
                raise stopped(out, stop)
            time.sleep(TICK)
        yield


def before(out: Path, make: Make) -> int | None:
    """Return the steps of pairs that were begun in a folder, if they go on; 0: no number was given.
    None: none were.
    """
    found = begun(out)
    steps = found.header.get("steps") if found else None
    if found is None or not (steps is None or (type(steps) is int and steps > 0)):
        return None
    same = all(found.header.get(key) == value for key, value in make(steps).identity().items())
    return (steps or 0) if found.has_pairs or same else None


def note(out: Path, make: Generator, trials: Sequence[Trial]) -> None:
    """Begin the manifest, with what was measured but for seconds, which differ each time."""
    table = [{"steps": each.steps, "pairs": each.pairs, **_listed(each.figures)} for each in trials]
    notes = {STEPS_AUTO: {"features": FEATURES, "sample": SAMPLE, "tried": table}}
    with Manifest.open(out, make.identity(), make.made_with(), notes):
        pass


def _listed(figures: Mapping[str, Interval]) -> dict[str, Any]:
    """Figures as JSON has them, rounded to what they tell."""
    return {
        name: [None if np.isnan(each) else float(f"{each:.6g}") for each in figure]
        for name, figure in figures.items()
    }


def noted(out: Path) -> tuple[int, list[Trial]]:
    """Return what `note` has written: the steps of the pairs, and the trials; no trials where the
    number was given.
    """
    found = begun(out)
    header = found.header if found else {}
    rows = header.get(STEPS_AUTO, {}).get("tried", [])
    return header.get("steps") or 0, [_trial(dict(row)) for row in rows]


def _trial(row: dict[str, Any]) -> Trial:
    steps, pairs = row.pop("steps"), row.pop("pairs")
    known = {
        name: tuple(float("nan") if each is None else each for each in figure)
        for name, figure in row.items()
    }
    return Trial(steps, pairs, known)  # type: ignore[arg-type]  # of three
