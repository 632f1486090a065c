"""Do pairs help? The same small segmenter, trained on real slices with and without them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from medgen import seeds
from medgen.data.scans import layouts
from medgen.data.store import processes
from medgen.errors import DataError, Problem, RecipeError, StoppedError
from medgen.evaluation import arm_results, arms
from medgen.evaluation.arm_results import Results
from medgen.evaluation.arms import FEWER, FEWEST, MIXED, PASTED, PRIMARY, Arm, Comparison, real_arm
from medgen.evaluation.pair_samples import read_pairs
from medgen.evaluation.samples import EVERY, Samples, read_real
from medgen.evaluation.sources import Source
from medgen.evaluation.unseen import require_unseen
from medgen.evaluation.worth import Interval, Verdict, Worth, mean, verdict, worth
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


def read(
    source: Source, folder: Path, test_share: float, seed: int
) -> tuple[Samples, Samples, Samples]:
    """Read pool, test and pairs, all on the pairs' grid.

    Tested on the persons for validation, whom no generator trained on; with test_share above 0 on
    that share of all persons, which only pairs allow whose generator saw none of them. Raises
    DataError if scans with new lesions show a person to test on.
    """
    require_unseen(source, folder, layouts.SPLITS if test_share else ("val",))
    pairs = read_pairs(folder)
    if not test_share:
        pool, test = (read_real(source, split, like=pairs) for split in ("train", "val"))
        return pool, test, pairs
    everyone = read_real(source, EVERY, like=pairs)
    order = torch.randperm(
        len(everyone.persons), generator=seeds.stream(seed, "prove test persons")
    ).numpy()
    chosen = everyone.persons[order[: max(1, round(test_share * len(order)))]]
    tested = np.isin(everyone.people, chosen)
    return everyone.take(~tested), everyone.take(tested), pairs


def require_usable(given: Comparison) -> None:
    """Raise DataError or RecipeError for too few persons; warn where little can be told."""
    pool, test = len(given.pool.persons), len(given.test.persons)
    if set(given.pool.persons.tolist()) & set(given.test.persons.tolist()):
        raise DataError(
            Problem(
                "prove", "a person is for training and for testing", "Keep a person in one split"
            )
        )
    if pool < FEWEST + 1 or test < 2:
        what = f"{pool} persons with lesions to train on and {test} to test on, at least {FEWEST + 1} and 2 are needed"
        raise DataError(Problem("prove", what, "Raise data.val_fraction, or add patients"))
    if not FEWEST <= given.base <= pool:
        raise RecipeError(
            Problem(
                "--persons",
                f"is {given.base}, expected {FEWEST} to {pool}",
                f"Leave it out for {pool}",
            )
        )
    if test < FEW_TEST:
        warn(
            f"prove: {test} persons to test on make wide intervals. Set data.val_fraction=0.3 when you train and here."
        )


def prove(
    given: Comparison,
    out: Path,
    *,
    segmenter: str,
    repeats: int,
    workers: int,
    stop: Stop | None = None,
) -> Proof:
    """Train what OUT/results lacks and judge all. Raises StoppedError once `stop` has a reason."""
    require_usable(given)
    planned = arms.arms_of(len(given.pool.persons), given.base)
    made_with = arm_results.identity(given, segmenter)
    results = Results(out, made_with)
    train_missing(given, results, planned, repeats, workers, stop or Stop())
    return judged(given, results, planned, repeats, made_with)


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
    given: Comparison,
    results: Results,
    planned: Sequence[Arm],
    repeats: int,
    workers: int,
    stop: Stop,
) -> None:
    """Train and keep the results that are not there yet. Raises StoppedError once `stop` has a reason."""
    missing = results.missing(planned, repeats)
    jobs = [_Job(given, arm, repeat, results.path(arm, repeat)) for arm, repeat in missing]
    workers = max(1, min(workers or processes.count_cores(), len(jobs)))
    total = repeats * len(planned)
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
                    Problem(results.folder, what, "Continue", command=stop.command),
                    exit_code=stop.exit_code,
                )


def judged(
    given: Comparison,
    results: Results,
    planned: Sequence[Arm],
    repeats: int,
    made_with: Mapping[str, Any],
) -> Proof:
    """Verdict, worth and means from results that are all there."""
    names = [arm.name for arm in planned]
    curve = {arm.persons: arm.name for arm in planned if arm.name == real_arm(arm.persons)}
    primary = results.scores(planned, repeats, PRIMARY)
    means: dict[str, dict[str, Interval]] = {name: {} for name in names}
    for score in arms.names_of_scores(given.test.noun):
        table = results.scores(planned, repeats, score)
        for name in names:
            known = not np.isnan(table.by_arm[name]).all()
            means[name][score] = mean(table, name, given.seed) if known else UNKNOWN
    first = results.read(planned[0], 0) or {}
    persons = len(given.pool.persons), len(given.test.persons)
    about = dict(zip(("pool_persons", "test_persons"), persons, strict=True)) | {"repeats": repeats}
    about |= {"pairs": len(given.pairs), "real": first["real"], "added": first["added"]}
    sets = {"pool": given.pool, "test": given.test, "pairs": given.pairs}
    places = {f"{name}_where": each.where for name, each in sets.items()}
    return Proof(
        verdict(primary, MIXED, [real_arm(given.base), FEWER], PASTED, given.seed),
        worth(primary, curve, MIXED, given.base, given.seed),
        means,
        curve,
        {**about, **made_with, **places},
    )
