"""Speed, recall and false alarms of `medgen audit`: planted copies and slices of other persons.

`python tests/benchmarks/bench_audit.py TRAINING OTHERS [--pairs 15000] [--slices 2000] [--size 128] [--planted 2000]`

TRAINING, OTHERS: folders of different patients, such as two of `medgen data demo` with different seeds. The pairs that
are not planted are slices of the others, elastically deformed, so that there are as many as wanted.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

import attrs
import numpy as np
from rich.console import Console
from rich.table import Table
from scipy import ndimage

sys.path.insert(0, str(Path(__file__).parents[1]))

from planted import PLANTED

from medgen.data.store.nifti_writer import write_slice
from medgen.evaluation import sources
from medgen.evaluation.copies import Judge
from medgen.evaluation.samples import Samples, read_real

Pair = tuple[str, np.ndarray, np.ndarray]


def read(folder: Path, size: int, like: Samples | None = None) -> Samples:
    """All slices of a folder's patients at a size."""
    source = sources.real(str(folder), [f"data.image_size={size}", "data.layout=folders"])
    source = attrs.evolve(source, images=("bravo",))
    return read_real(source, "all", like, lesions_only=False)


def deformed(
    image: np.ndarray, mask: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """A person that is not there: a smooth deformation of some px."""
    field = [ndimage.gaussian_filter(rng.normal(size=image.shape), 12) for _ in range(2)]
    grid = np.mgrid[: image.shape[0], : image.shape[1]].astype(float)
    at = [axis + 3 * each / max(each.std(), 1e-9) for axis, each in zip(grid, field, strict=True)]
    moved = ndimage.map_coordinates(image, at, order=1, mode="nearest")
    return moved, ndimage.map_coordinates(mask.astype(float), at, order=1, mode="nearest") > 0.5


def planted(training: Samples, count: int, rng: np.random.Generator) -> list[Pair]:
    """Copies of training slices, as many of each kind, without lesions of their own."""
    kinds, nothing = list(PLANTED), np.zeros(training.masks.shape[1:], bool)
    made: list[Pair] = []
    for n, row in enumerate(rng.integers(len(training), size=count)):
        kind = kinds[n % len(kinds)]
        made.append((kind, PLANTED[kind](training.images[row, 0], rng), nothing))
    return made


def novel(others: Samples, count: int, rng: np.random.Generator) -> list[Pair]:
    """Slices of other persons as they are, then deformed."""
    made: list[Pair] = []
    for n in range(count):
        image, mask = others.images[n % len(others), 0], others.masks[n % len(others)]
        kind = "other persons" if n < len(others) else "other persons, deformed"
        made.append((kind, *((image, mask) if n < len(others) else deformed(image, mask, rng))))
    return made


def write(folder: Path, pairs: list[Pair], training: Samples) -> list[Path]:
    """As `medgen generate` writes them."""
    lines = ['{"seed": 0}\n']
    for number, (_, image, mask) in enumerate(pairs):
        there = folder / "train" / f"syn_{number:05d}"
        there.mkdir(parents=True)
        write_slice(there / "bravo.nii.gz", image, False, training.grid)
        write_slice(there / "seg.nii.gz", np.where(mask, 1.0, -1.0), True, training.grid)
        lines.append(
            json.dumps({"index": number, "id": there.name, "files": {"bravo": "", "seg": ""}})
            + "\n"
        )
    (folder / "manifest.jsonl").write_text("".join(lines))
    return [folder / "train" / f"syn_{number:05d}" for number in range(len(pairs))]


def main() -> None:
    """Print recall by kind, false alarms, and seconds by the clock and of the CPU."""
    parser = argparse.ArgumentParser()
    parser.add_argument("training", type=Path)
    parser.add_argument("others", type=Path)
    for name, value in (("pairs", 15_000), ("slices", 2_000), ("size", 128), ("planted", 2_000)):
        parser.add_argument(f"--{name}", type=int, default=value)
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    training = read(options.training, options.size)
    others = read(options.others, options.size, like=training)
    training = training.take(
        np.unique(np.linspace(0, len(training) - 1, options.slices).astype(int))
    )
    pairs = planted(training, options.planted, rng) + novel(
        others, options.pairs - options.planted, rng
    )
    with tempfile.TemporaryDirectory() as temporary:
        folders = write(Path(temporary), pairs, training)
        print(f"{len(pairs)} pairs are written", flush=True)
        clock, cpu = time.perf_counter(), time.process_time()
        judge = Judge(training)
        begun = time.perf_counter() - clock, time.process_time() - cpu
        verdicts = list(judge.judge_pairs(folders, ["bravo", "seg"]))
        spent = time.perf_counter() - clock, time.process_time() - cpu
    table = Table("kind", "pairs", "slices", "lesions")
    for kind in dict.fromkeys(kind for kind, _, _ in pairs):
        whys = [
            verdict.why for verdict, pair in zip(verdicts, pairs, strict=True) if pair[0] == kind
        ]
        table.add_row(
            kind,
            str(len(whys)),
            *(f"{100 * whys.count(why) / len(whys):.2f} %" for why in ("slice", "lesion")),
        )
    console = Console(width=120)
    console.print(table)
    sizes = f"{len(pairs)} pairs against {len(training)} slices of {options.size} px"
    console.print(f"{sizes}: {spent[0]:.1f} s, CPU {spent[1]:.1f} s")
    console.print(f"of which the calibration: {begun[0]:.1f} s, CPU {begun[1]:.1f} s")


if __name__ == "__main__":
    main()
