"""A model that has remembered its patients, and one that has not, told apart by `medgen audit`.

    medgen data demo REAL --patients 30
    medgen data demo OTHER --patients 40 --seed 1
    python tests/benchmarks/bench_remembered.py REAL OTHER OUT [--steps 4000] [--pairs 200] [KEY=VALUE ...]

The same recipe, small_bravo at 32 px, and as many steps: on 4 patients of REAL, and on all. Both paint the masks of
OTHER. Ends with an error unless the intervals of the median distance to the nearest training slice are disjoint, and
the audit says of the first that it remembers. Trains what OUT lacks.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

RECIPE = str(Path(__file__).with_name("small_bravo.toml"))
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


def main() -> None:
    """Train, generate and audit both, and print shares and distances."""
    options = _options()
    few = options.out / "patients"
    for each in sorted(options.real.iterdir())[:FEW]:
        shutil.copytree(each, few / each.name, dirs_exist_ok=True)
    found = {}
    for name, data in (("few", few), ("many", options.real)):
        found[name] = _made(options, data, options.out / name)
        print(name, json.dumps(found[name]), flush=True)
    few_apart, many_apart = (found[name]["nearest"] for name in ("few", "many"))
    if few_apart["high"] >= many_apart["low"]:
        sys.exit("failed: the distances are not told apart")
    if few_apart["high"] >= found["few"]["between_persons"]["low"]:
        sys.exit("failed: it is not said that the model remembers")


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


def _made(options: argparse.Namespace, data: Path, out: Path) -> dict[str, Any]:
    """What an audit says of pairs, against what their model was trained on."""
    run, pairs = out / "run", out / "pairs"
    if not (run / "latest.pt").exists():
        given = (f"data.root={data}", *SMALL, f"training.steps={options.steps}", f"run.dir={run}")
        _medgen("train", RECIPE, *given, *options.overrides)
    models = ("--seg-model", options.other, "--image-model", run, "--output-dir", pairs)
    _medgen("generate", *models, "--num-images", options.pairs, "--steps", 20)
    report = json.loads((pairs / "audit.json").read_text())
    report.pop("worst_first")
    return report


def _medgen(*words: object) -> None:
    if (code := subprocess.run(["medgen", *map(str, words)]).returncode) not in FINE:
        sys.exit(code)


if __name__ == "__main__":
    main()
