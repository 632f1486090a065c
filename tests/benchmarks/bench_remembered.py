"""A model that has remembered its patients, and one that has not, told apart by `medgen audit`.

    medgen data demo REAL --patients 30
    medgen data demo OTHER --patients 40 --seed 1
    python tests/benchmarks/bench_remembered.py REAL OTHER OUT [--steps 4000] [--pairs 200] [KEY=VALUE ...]

The same recipe, demo_bravo at 32 px, and as many steps: on 4 patients of REAL, and on all. Both paint the masks of
OTHER. Ends with an error unless the intervals of the share of copies are disjoint, and those of the median distance to
the nearest training slice. Trains what OUT lacks.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy.stats import binomtest

FEW = 4
"""Patients that are remembered."""
FINE = (0, 11)
"""Exit codes of a generation; 11: there are copies, and they are set aside."""
SMALL = (
    "data.image_size=32",
    "data.spacing=6.92",
    "data.val_fraction=0",
    "callbacks.previews=false",
)


class Found(NamedTuple):
    """Share of copies and median distance to the nearest training slice, each with its 95 % interval."""

    copies: tuple[float, float, float]
    distance: tuple[float, float, float]


def main() -> None:
    """Train, generate and audit both, and print shares and distances."""
    options = _options()
    few = options.out / "patients"
    for each in sorted(options.real.iterdir())[:FEW]:
        shutil.copytree(each, few / each.name, dirs_exist_ok=True)
    found = {}
    for name, data in (("few", few), ("many", options.real)):
        lines = _made(options, data, options.out / name)
        found[name] = _judged(lines)
        print(f"{name}: {len(lines)} pairs", json.dumps(found[name]._asdict()), flush=True)
    few_copies, many_copies = found["few"].copies, found["many"].copies
    if few_copies[1] <= many_copies[2]:
        sys.exit("failed: the shares of copies are not told apart")
    if found["few"].distance[2] >= found["many"].distance[1]:
        sys.exit("failed: the distances are not told apart")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name in ("real", "other", "out"):
        parser.add_argument(name, type=Path)
    for name, value in (("steps", 4000), ("pairs", 200)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("overrides", nargs="*")
    return parser.parse_intermixed_args()


def _made(options: argparse.Namespace, data: Path, out: Path) -> list[dict[str, Any]]:
    """Lines of the manifest of pairs that were audited against what their model was trained on."""
    run, pairs = out / "run", out / "pairs"
    if not (run / "latest.pt").exists():
        given = (f"data.root={data}", *SMALL, f"training.steps={options.steps}", f"run.dir={run}")
        _medgen("train", "demo_bravo", *given, *options.overrides)
    models = ("--seg-model", options.other, "--image-model", run, "--output-dir", pairs)
    _medgen("generate", *models, "--num-images", options.pairs, "--steps", 20)
    lines = (pairs / "manifest.jsonl").read_text().splitlines()[1:]
    return [row for row in map(json.loads, lines) if "nearest" in row]


def _medgen(*words: object) -> None:
    if (code := subprocess.run(["medgen", *map(str, words)]).returncode) not in FINE:
        sys.exit(code)


def _judged(lines: list[dict[str, Any]]) -> Found:
    copies = sum(str(row.get("set_aside", "")).startswith("copy of a") for row in lines)
    share = binomtest(copies, len(lines)).proportion_ci(method="wilson")
    distances = np.array([row["nearest"]["distance"] for row in lines])
    rng = np.random.default_rng(0)
    drawn = np.median(distances[rng.integers(len(distances), size=(2000, len(distances)))], 1)
    low, high = np.quantile(drawn, [0.025, 0.975])
    return Found(
        (copies / len(lines), float(share.low), float(share.high)),
        (float(np.median(distances)), float(low), float(high)),
    )


if __name__ == "__main__":
    main()
