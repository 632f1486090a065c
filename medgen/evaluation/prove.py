"""Do pairs help? The same small segmenter, trained on real slices with and without them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from medgen.data.store import processes
from medgen.errors import DataError, Problem, RecipeError, StoppedError
from medgen.evaluation import arm_results, arms
from medgen.evaluation.arm_results import Result, Results
from medgen.evaluation.arms import FEWER, FEWEST, MIXED, PASTED, PRIMARY, Arm, Comparison, real_arm
from medgen.evaluation.folds import FEWEST_TESTED
from medgen.evaluation.worth import (
    Interval,
    Scores,
    Verdict,
    Worth,
    joined,
    mean,
    verdict,
    worth,
)
from medgen.system.console import progress, warn
from medgen.system.signals import Stop

UNKNOWN = Interval(float("nan"), float("nan"), float("nan"))
FEW_TEST = 6
"""Test persons below which intervals are so wide that little can be told."""


class Proof(NamedTuple):
    """What a comparison says. means: by arm and score. curve: arm by number of real persons."""

    verdict: Verdict
    worth: Worth
    means: Mapping[str, Mapping[str, Interval]]
    curve: Mapping[int, str]
    about: Mapping[str, Any]


def require_usable(folds: Mapping[str, Comparison]) -> None:
    """Raise DataError or RecipeError for too few persons; warn where little can be told."""
    for given in folds.values():
        if set(given.pool.persons.tolist()) & set(given.test.persons.tolist()):
            what = "a person is for training and for testing"
            raise DataError(Problem("prove", what, "Keep a person in one split"))
    pool, test = _persons_of(folds.values())
    if pool < FEWEST + 1 or test < FEWEST_TESTED:
        what = (
            f"{pool} persons with lesions to train on and {test} to test on, "
            f"at least {FEWEST + 1} and {FEWEST_TESTED} are needed"
        )
        raise DataError(Problem("prove", what, _more_persons(folds, short=test < FEWEST_TESTED)))
    base = next(iter(folds.values())).base
    if not FEWEST <= base <= pool:
        what = f"is {base}, expected {FEWEST} to {pool}"
        raise RecipeError(Problem("--persons", what, f"Leave it out for {pool}"))
    if test < FEW_TEST:
        warn(f"prove: {test} persons to test on make wide intervals. {_more_persons(folds, True)}.")


def _more_persons(folds: Mapping[str, Comparison], short: bool) -> str:
    """Advise how to get more persons. short: of those to test on."""
    if len(folds) > 1:
        return "Add patients"
    if short:
        return "Set data.val_fraction=0.3 when you train and here, or leave each out in turn (--leave-one-out)"
    return "Add patients, or leave each out in turn (--leave-one-out)"


def _persons_of(folds: Collection[Comparison]) -> tuple[int, int]:
    """Return how many persons each fold can train on, and how many all of them test on."""
    pool = min(len(given.pool.persons) for given in folds)
    return pool, sum(len(given.test.persons) for given in folds)


def prove(
    folds: Mapping[str, Comparison],
    out: Path,
    *,
    segmenter: str,
    repeats: int,
    workers: int,
    stop: Stop | None = None,
) -> Proof:
    """Train what OUT/FOLD/results lacks and judge all. Raises StoppedError once `stop` has a reason.

    folds: comparisons by their names, which differ in their persons and pairs alone; a single one
    is named "". The scores of their test persons are taken together.
    """
    require_usable(folds)
    one = next(iter(folds.values()))
    planned = arms.arms_of(_persons_of(folds.values())[0], one.base)
    kept = [
        (given, Results(out / name, arm_results.identity(given, segmenter)))
        for name, given in folds.items()
    ]
    train_missing(kept, planned, repeats, workers, stop or Stop(), out)
    return judged(kept, planned, repeats)


Kept = tuple[Comparison, Results]
"""A fold, and what there is of its results."""


class _Job(NamedTuple):
    given: Comparison
    arm: Arm
    repeat: int
    path: Path


def _work(job: _Job) -> str:
    """Train arms in a worker, keeping each result at once, so that a kill loses only those in hand."""
    arm_results.write(job.path, arms.run(job.given, job.arm, job.repeat))
    return job.arm.name


def train_missing(
    kept: Sequence[Kept],
    planned: Sequence[Arm],
    repeats: int,
    workers: int,
    stop: Stop,
    out: Path,
) -> None:
    """Train and keep the results that are not there yet. Raises StoppedError once `stop` has a reason."""
    jobs = [
        _Job(given, arm, repeat, results.path(arm, repeat))
        for given, results in kept
        for arm, repeat in results.missing(planned, repeats)
    ]
    workers = max(1, min(workers or processes.count_cores(), len(jobs)))
    total = repeats * len(planned) * len(kept)
    with (
        progress("segmenters", total, unit="trained") as bar,
        processes.results(_work, jobs, workers) as done,
    ):
        bar.update(total - len(jobs), total)
        for _ in done:
            bar.advance()
            if stop.reason:
                what = f"stopped by {stop.reason}, every result there is whole"
                raise StoppedError(
                    Problem(out, what, "Continue", command=stop.command),
                    exit_code=stop.exit_code,
                )


def judged(kept: Sequence[Kept], planned: Sequence[Arm], repeats: int) -> Proof:
    """Verdict, worth and means from results that are all there."""
    one, first = kept[0]
    names = [arm.name for arm in planned]
    curve = {arm.persons: arm.name for arm in planned if arm.name == real_arm(arm.persons)}

    def scores(name: str) -> Scores:
        return joined([results.scores(planned, repeats, name) for _, results in kept])

    means: dict[str, dict[str, Interval]] = {name: {} for name in names}
    for score in arms.names_of_scores(one.test.noun):
        table = scores(score)
        for name in names:
            known = not np.isnan(table.by_arm[name]).all()
            means[name][score] = mean(table, name, one.seed) if known else UNKNOWN
    primary = scores(PRIMARY)
    return Proof(
        verdict(primary, MIXED, [real_arm(one.base), FEWER], PASTED, one.seed),
        worth(primary, curve, MIXED, one.base, one.seed),
        means,
        curve,
        _about(kept, repeats) | _sizes(first.read(planned[0], 0) or {}),
    )


def _sizes(result: Result) -> dict[str, Any]:
    return {"real": result["real"], "added": result["added"]}


def _about(kept: Sequence[Kept], repeats: int) -> dict[str, Any]:
    """Return what was compared: the numbers of persons and pairs of all folds, and more of the first."""
    one, first = kept[0]
    pool, test = _persons_of([given for given, _ in kept])
    about = {"pool_persons": pool, "test_persons": test, "repeats": repeats, "folds": len(kept)}
    sets = {"pool": one.pool, "test": one.test, "pairs": one.pairs}
    places = {f"{name}_where": each.where for name, each in sets.items()}
    pairs = sum(len(given.pairs) for given, _ in kept)
    return {**first.made_with, **about, "pairs": pairs, **places}
