"""Lesions outside of the head among generated pairs, with and without `--inside head`.

`python tests/benchmarks/bench_inside.py SEG BRAVO [--pairs 2000] [--steps 4] [--batch-size 40] [--keep FOLDER]`

SEG, BRAVO: runs or checkpoints, such as those of `make demo`. Ends with an error if a lesion lies outside by more than
2 % of its area after the filter, if more than 5 % of the pairs are given up, or if a pair that was fine without the
filter has other bytes with it.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from medgen.evaluation.lesion_outside_head import OUTSIDE, outside
from medgen.evaluation.pair_samples import read_pairs

MOST = 0.05
"""Share of pairs that may be given up."""
GIVEN_UP = 12
"""Exit code of a command that could not make all pairs."""
Lines = dict[int, dict[str, Any]]


def main() -> None:
    """Generate twice, and print what lies outside, what was given up, and whether the others kept their bytes."""
    options = _options()
    with tempfile.TemporaryDirectory() as temporary:
        where = options.keep or Path(temporary)
        spent = {each: _generate(options, where / each, each) for each in ("off", "head")}
        off, head = (_lines(where / each) for each in spent)
        away = {each: _outside(where / each) for each in spent}
    table = Table("--inside", "pairs", "lesion outside", "given up", "seconds")
    for name, lines in (("off", off), ("head", head)):
        failed = sum(bool(row.get("failed")) for row in lines.values())
        table.add_row(
            name, str(len(lines)), str(len(away[name])), str(failed), f"{spent[name]:.0f}"
        )
    fine = [
        index
        for index, row in off.items()
        if not row.get("failed") and row["id"] not in away["off"]
    ]
    changed = [index for index in fine if head[index].get("files") != off[index]["files"]]
    given_up = sum(bool(row.get("failed")) for row in head.values()) / len(head)
    Console(width=100).print(table)
    print(
        f"{len(fine)} pairs are fine without the filter, of which {len(changed)} have other bytes with it"
    )
    print(f"given up: {100 * given_up:.2f} %")
    if away["head"] or changed or given_up > MOST:
        sys.exit(
            f"failed: {len(away['head'])} outside, {len(changed)} changed, {100 * given_up:.2f} % given up"
        )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("seg", type=Path)
    parser.add_argument("bravo", type=Path)
    parser.add_argument("--keep", type=Path)
    for name, value in (("pairs", 2000), ("steps", 4), ("batch-size", 40)):
        parser.add_argument(f"--{name}", type=int, default=value)
    return parser.parse_args()


def _generate(options: argparse.Namespace, out: Path, inside: str) -> float:
    """Make the pairs; returns seconds."""
    models = (
        "--seg-model",
        options.seg,
        "--image-model",
        options.bravo,
        "--output-dir",
        out,
        "--no-audit",
    )
    numbers = (
        "--num-images",
        options.pairs,
        "--steps",
        options.steps,
        "--batch-size",
        options.batch_size,
    )
    command = [sys.executable, "-m", "medgen", "generate", *models, *numbers, "--inside", inside]
    begun = time.perf_counter()
    code = subprocess.run(list(map(str, command))).returncode
    if code not in (0, GIVEN_UP):
        sys.exit(code)
    return time.perf_counter() - begun


def _lines(out: Path) -> Lines:
    lines = [json.loads(line) for line in (out / "manifest.jsonl").read_text().splitlines()[1:]]
    return {line["index"]: line for line in lines}


def _outside(out: Path) -> set[str]:
    """The pairs whose lesion lies outside, of the files as they were written."""
    made = read_pairs(out)
    shares = (outside(image, mask) for image, mask in zip(made.images, made.masks, strict=True))
    return {name for name, share in zip(made.names, shares, strict=True) if share > OUTSIDE}


if __name__ == "__main__":
    main()
