"""False alarms of `medgen audit`: each person's slices against those of all others, of whom none is a copy.

`python tests/benchmarks/bench_false_alarms.py DATA IMAGE [--size 128] [KEY=VALUE ...]`

DATA, IMAGE: a folder of patients and the image of theirs to compare, such as
`scans bravo 'data.files={bravo="T1c_*", seg="OTMultiClass*"}'`. Ends with an error if more than 1 % of the slices, or
of those with a lesion for the lesion, are called copies.
"""

from __future__ import annotations

import argparse
import sys

import attrs
import numpy as np

from medgen.evaluation import sources
from medgen.evaluation.bootstrap import interval
from medgen.evaluation.copies import Judge
from medgen.evaluation.samples import Samples, read_real

MOST = 0.01


def alarms(samples: Samples, person: int) -> list[str]:
    """Why each slice of a person is called a copy of the others'; nothing where it is not."""
    mine = samples.people == person
    judge = Judge(samples.take(~mine))
    held = samples.take(mine)
    return [each.why for each in judge.judge(held.images, held.masks)]


def main() -> None:
    """Print the share of false alarms of each person and of all, with its interval over persons."""
    parser = argparse.ArgumentParser()
    parser.add_argument("data")
    parser.add_argument("image")
    parser.add_argument("overrides", nargs="*")
    parser.add_argument("--size", type=int, default=128)
    given = parser.parse_intermixed_args()
    source = sources.real(given.data, [f"data.image_size={given.size}", *given.overrides])
    source = attrs.evolve(source, images=(given.image,))
    samples = read_real(source, "all", lesions_only=False)
    print(f"{len(samples)} slices of {len(samples.persons)} persons, {samples.grid}")
    found = {int(each): alarms(samples, each) for each in samples.persons}
    for person, whys in found.items():
        counts = ", ".join(f"{whys.count(why)} by {why}" for why in ("slice", "lesion"))
        print(f"person {person}: {len(whys)} slices, {counts}")
    whys = np.array([why for each in found.values() for why in each])
    people = np.repeat(list(found), [len(each) for each in found.values()])
    failed = []
    for why in ("slice", "lesion"):
        values = whys == why
        rng = np.random.default_rng(0)
        low, high = interval(
            lambda rows, values=values: float(values[rows].mean()), people, 500, rng
        )
        print(f"{why}: {100 * values.mean():.2f} % ({100 * low:.2f} to {100 * high:.2f})")
        if values.mean() > MOST:
            failed.append(why)
    if failed:
        sys.exit(f"failed: more than {100 * MOST:g} % by {', '.join(failed)}")


if __name__ == "__main__":
    main()
