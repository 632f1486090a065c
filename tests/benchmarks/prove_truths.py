"""Plant pairs whose worth is known and see what `medgen prove` says of them.

    medgen data demo REAL --patients 30
    medgen data demo NEW --patients 40 --seed 1
    python tests/benchmarks/prove_truths.py REAL NEW OUT [--repeats 10] [--steps 500] [--repeat-steps 200]

Pairs are slices of NEW persons, from the maker that made REAL: they are worth as many persons as
they come from. To them are compared the same pairs with masks of other pairs, copies of the
training set, and pairs of a generator trained for 20 steps. Goes on where it was stopped. A
comparison is 24 segmenters; 500 steps of one take about 25 s on a quiet core. Ends with an error
unless new persons help, the others do not, no barely trained generator beats copy-paste, and at
most one repeat in ten misses the true worth.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import attrs
import numpy as np

from medgen.config.registry import Registry
from medgen.evaluation import arm_results, prove, sources
from medgen.evaluation.arm_results import Results
from medgen.evaluation.arms import (
    MIXED,
    PASTED,
    PRIMARY,
    Arm,
    Comparison,
    arms_of,
    numbers_of,
    real_arm,
    training_set,
)
from medgen.evaluation.pair_samples import read_pairs
from medgen.evaluation.samples import Samples, read_real
from medgen.evaluation.worth import Interval, Worth, difference, worth
from medgen.system.signals import Stop

RECIPE = str(Path(__file__).with_name("small_bravo.toml"))
BASE, NEW, TESTED = 4, 16, 14
"""Real persons that pairs are added to, persons that pairs come from, persons to test on."""
SEEDS, FEW_STEPS, SEGMENTER = 3, 20, "small_unet"
"""Repeats of each arm; steps of the generator that has hardly been trained; plugin."""
EXPECTED = {
    "new persons": {"helps"},
    "shuffled masks": {"hurts", "no evidence"},
    "copies of the training set": {"no evidence"},
}
"""What may be said of pairs whose worth is known."""


def scans(folder: Path) -> list[str]:
    """The overrides of the recipe that read a made-up cohort."""
    return [f"data.root={folder}", "data.min_foreground=0.05", "data.spacing=3.46"]


def read(folder: Path, registry: Registry) -> Samples:
    """All slices with a lesion of a made-up cohort, at the demo's size."""
    return read_real(sources.real(RECIPE, scans(folder), registry), "all")


def barely_trained(given: argparse.Namespace) -> Samples:
    """Pairs of a generator that was trained on REAL for a few steps, with the masks of NEW persons."""
    run, pairs = given.out / "barely_trained", given.out / "barely_trained_pairs"
    steps = [f"training.steps={FEW_STEPS}", "callbacks.previews=false", f"run.dir={run}"]
    if not (run / "latest.pt").exists():
        medgen("train", RECIPE, *scans(given.real), *steps)
    models = ("--seg-model", given.new, "--image-model", run, "--output-dir", pairs)
    medgen("generate", *models, "--num-images", 400, "--steps", 10, "--inside", "off", "--no-audit")
    return read_pairs(pairs)


def medgen(*words: object) -> None:
    subprocess.run(["medgen", *map(str, words)], check=True)


def persons(samples: Samples, chosen: np.ndarray) -> Samples:
    return samples.take(np.isin(samples.people, chosen))


def shuffled(pairs: Samples, rng: np.random.Generator) -> Samples:
    """The same images with the masks of others."""
    return attrs.evolve(pairs, masks=pairs.masks[np.roll(rng.permutation(len(pairs)), 1)])


def compare(real: Samples, new: Samples, repeat: int, steps: int, registry: Registry) -> Comparison:
    """A comparison of its own for each repeat: other persons to train and to test on, other pairs."""
    rng = np.random.default_rng(repeat)
    order, others = rng.permutation(real.persons), rng.permutation(new.persons)[:NEW]
    settings = sources.measure("segmenters", SEGMENTER, [], registry)
    pool, test = persons(real, order[TESTED:]), persons(real, order[:TESTED])
    return Comparison(settings, pool, test, persons(new, others), BASE, 1000.0, steps, repeat)


def truths(first: Comparison) -> dict[str, Comparison]:
    """The comparisons with a known answer."""
    rng = np.random.default_rng(0)
    own = training_set(first, Arm("own", BASE), 0).samples  # the whole pool, so at every repeat
    copies = own.take(np.arange(len(first.pairs)) % len(own))
    return {
        "new persons": first,
        "shuffled masks": first._replace(pairs=shuffled(first.pairs, rng)),
        "copies of the training set": first._replace(pool=own, pairs=copies),
    }


def said(given: Comparison, out: Path, workers: int) -> dict[str, Any]:
    """What the command says of pairs."""
    proof = prove.prove(given, out, segmenter=SEGMENTER, repeats=SEEDS, workers=workers)
    return {
        "verdict": proof.verdict.word,
        "against": proof.verdict.against,
        "gain": str(proof.verdict.gain),
        "over copy-paste": [round(each, 3) for each in over_copy_paste(given, out)],
        "means": {arm: str(scores[PRIMARY]) for arm, scores in proof.means.items()},
        **worth_of(proof.worth),
    }


def worth_of(found: Worth) -> dict[str, Any]:
    covers = bool(found.persons.low <= NEW <= found.persons.high)
    return {
        "worth": [round(each, 1) for each in found.persons],
        "rises": found.rises,
        "covers": covers,
    }


def repeated(given: Comparison, out: Path, workers: int) -> dict[str, Any]:
    """What pairs are worth by the arms that tell it, as the others take a third of the time."""
    results = results_of(given, out)
    curve = {each: real_arm(each) for each in numbers_of(len(given.pool.persons), given.base)}
    arms = [Arm(MIXED, given.base, "pairs"), *(Arm(name, each) for each, name in curve.items())]
    prove.train_missing(given, results, arms, SEEDS, workers, Stop())
    table = results.scores(arms, SEEDS, PRIMARY)
    return worth_of(worth(table, curve, MIXED, given.base, given.seed))


def results_of(given: Comparison, out: Path) -> Results:
    return Results(out, arm_results.identity(given, SEGMENTER))


def borrow(source: Path, given: Comparison, out: Path) -> None:
    """Take over the arms without pairs, which are the same whatever the pairs are."""
    folder = results_of(given, out).folder
    for path in (source / "results").glob("real_*_patients-*.json"):
        shutil.copy(path, folder / path.name)


def over_copy_paste(given: Comparison, out: Path) -> Interval:
    """The gain of the arm with pairs over the one with copy-pasted lesions."""
    scores = results_of(given, out).scores(
        arms_of(len(given.pool.persons), given.base), SEEDS, PRIMARY
    )
    return difference(scores, MIXED, PASTED, given.seed)


def wrong(answers: dict[str, dict[str, Any]]) -> list[str]:
    """What is not as it is known to be."""
    found = [
        f"{name}: {answers[name]['verdict']}"
        for name, words in EXPECTED.items()
        if answers[name]["verdict"] not in words
    ]
    if answers["barely trained"]["over copy-paste"][1] > 0:
        found.append("a generator that was barely trained beats copy-paste")
    repeats = [each for name, each in answers.items() if name.split()[0] in ("new", "repeat")]
    missed = sum(not each["covers"] for each in repeats)
    if missed > len(repeats) / 10:
        found.append(f"the interval misses the true worth in {missed} of {len(repeats)} repeats")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("real", "new", "out"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--repeat-steps", type=int, help="of the further repeats; default: --steps")
    parser.add_argument("--processes", type=int, default=0)
    given = parser.parse_args()
    registry = Registry.load()
    real, new = read(given.real, registry), read(given.new, registry)
    first = compare(real, new, 0, given.steps, registry)
    planted = truths(first) | {"barely trained": first._replace(pairs=barely_trained(given))}
    steps = given.repeat_steps or given.steps
    for repeat in range(1, given.repeats):
        planted[f"repeat {repeat}"] = compare(real, new, repeat, steps, registry)
    answers = {}
    for name, comparison in planted.items():
        out = given.out / name.replace(" ", "_")
        if comparison.pool is first.pool and comparison is not first:
            borrow(given.out / "new_persons", comparison, out)
        work = repeated if name.startswith("repeat") else said
        answers[name] = work(comparison, out, given.processes)
        print(name, json.dumps(answers[name]), flush=True)
        (given.out / "truths.json").write_text(json.dumps(answers, indent=1) + "\n")
    if found := wrong(answers):
        sys.exit(f"failed: {'; '.join(found)}")


if __name__ == "__main__":
    main()
