"""Plant pairs whose worth is known and see what `medgen prove` says of them.

    medgen data demo REAL --patients 30
    medgen data demo NEW --patients 40 --seed 1
    python tests/benchmarks/prove_truths.py REAL NEW OUT [--repeats 10] [--steps 500]

Pairs are slices of NEW persons, from the maker that made REAL: they are worth as many persons as
they come from. To them are compared the same pairs with masks of other pairs, and copies of the
training set. Goes on where it was stopped. A comparison is 27 segmenters; 500 steps of one take
about 25 s on a quiet core.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import attrs
import numpy as np

from medgen.config.registry import Registry
from medgen.evaluation import prove, sources
from medgen.evaluation.arms import Arm, Comparison, training_set
from medgen.evaluation.samples import Samples, read_real

BASE, NEW, TESTED = 4, 16, 10
"""Real persons that pairs are added to, persons that pairs come from, persons to test on."""


def read(folder: Path, registry: Registry) -> Samples:
    """All slices with a lesion of a made-up cohort, at the demo's size."""
    given = [f"data.root={folder}", "data.min_foreground=0.05", "data.spacing=3.46"]
    return read_real(sources.real("demo_bravo", given, registry), "all")


def persons(samples: Samples, chosen: np.ndarray) -> Samples:
    return samples.take(np.isin(samples.people, chosen))


def shuffled(pairs: Samples, rng: np.random.Generator) -> Samples:
    """The same images with the masks of others."""
    return attrs.evolve(pairs, masks=pairs.masks[np.roll(rng.permutation(len(pairs)), 1)])


def compare(real: Samples, new: Samples, repeat: int, steps: int, registry: Registry) -> Comparison:
    """A comparison of its own for each repeat: other persons to train and to test on, other pairs."""
    rng = np.random.default_rng(repeat)
    order, others = rng.permutation(real.persons), rng.permutation(new.persons)[:NEW]
    settings = sources.measure("segmenters", "small_unet", [], registry)
    pool, test = persons(real, order[TESTED:]), persons(real, order[:TESTED])
    return Comparison(settings, pool, test, persons(new, others), BASE, 1000.0, steps, repeat)


def truths(first: Comparison) -> dict[str, Comparison]:
    """The comparisons with a known answer."""
    rng = np.random.default_rng(0)
    own = training_set(first, Arm("own", BASE), 0).samples
    copies = own.take(np.arange(len(first.pairs)) % len(own))
    return {
        "new persons": first,
        "shuffled masks": first._replace(pairs=shuffled(first.pairs, rng)),
        "copies of the training set": first._replace(pairs=copies),
    }


def said(given: Comparison, out: Path) -> dict[str, object]:
    proof = prove.prove(given, out, segmenter="small_unet", repeats=3, workers=0)
    low, high = proof.worth.persons.low, proof.worth.persons.high
    return {
        "verdict": proof.verdict.word,
        "against": proof.verdict.against,
        "gain": str(proof.verdict.gain),
        "worth": [round(each, 1) for each in proof.worth.persons],
        "covers": bool(low <= NEW <= high),
        "means": {arm: str(scores["lesion Dice"]) for arm, scores in proof.means.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("real", "new", "out"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--steps", type=int, default=500)
    given = parser.parse_args()
    registry = Registry.load()
    real, new = read(given.real, registry), read(given.new, registry)
    answers = {}
    for name, comparison in truths(compare(real, new, 0, given.steps, registry)).items():
        answers[name] = said(comparison, given.out / name.replace(" ", "_"))
        print(name, json.dumps(answers[name]), flush=True)
    for repeat in range(1, given.repeats):
        answers[f"repeat {repeat}"] = said(
            compare(real, new, repeat, given.steps, registry), given.out / str(repeat)
        )
    (given.out / "truths.json").write_text(json.dumps(answers, indent=1) + "\n")


if __name__ == "__main__":
    main()
