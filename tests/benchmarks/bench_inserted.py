"""Lesions that `medgen insert` made, beside real ones: contrast, the seam, and KID of crops.

`python tests/benchmarks/bench_inserted.py OUT --hosts SCANS [--donors DATASET] [--image NAME] [KEY=VALUE...]`

OUT: what `medgen insert --hosts SCANS ...` wrote; KEY=VALUE as that command had. NAME: of the image that is compared,
by default the first that was painted. Real lesions are those of the hosts' own, which no host's outputs show as new
ones, and those of the donors. Ends with an error if contrast differs from the hosts' own lesions (KS, p at most 0.05),
if the gradient across the seam is more than 1.1 of that around real lesions, if KID of crops is beyond the interval of
real against real, or if a voxel farther than 4 mm from a new lesion differs from the host's.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import attrs
import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from scipy import ndimage, stats

from medgen import seeds
from medgen.api.tables import DataSettings, MaskSettings
from medgen.config.recipe import data_settings
from medgen.config.registry import Registry
from medgen.data.scans import layouts
from medgen.data.scans.manifest_lines import listed
from medgen.data.store.crop_targets import grown
from medgen.evaluation import bootstrap, sources
from medgen.evaluation.distances import Kernels
from medgen.evaluation.lesion_scores import components
from medgen.generation.insertion import cases
from medgen.generation.insertion.cases import Case, Files
from medgen.generation.insertion.lesions import LEAST

Array = np.ndarray[Any, np.dtype[Any]]

SIDE, PIXELS = 48.0, 96
"""mm and px of a crop."""
SLICES = 3
"""Crops of a lesion at most."""
RING, SEAM = 4.0, (2.5, 5.5)
"""mm from a lesion: its surroundings, and where what was painted ends."""
WIDEST = 1.1
DRAWS = 200


class Lesion(NamedTuple):
    """contrast: mean within less that around, in deviations of the head without lesions. border, seam: mean gradient
    in the slices, in deviations per mm. crops: `[n, px, px]` in [-1, 1]. person, scan: whose. mm3: volume.
    """

    person: str
    scan: str
    contrast: float
    border: float
    seam: float
    mm3: float
    crops: Array


def main() -> None:
    """Measure all lesions, print the table, and say what fails."""
    asked = _options()
    real = _real(asked)
    made, changed = _made(asked)
    rows = [*_shares(real, made), *_kid(asked, real, made)]
    table = Table("measure", "made", "hosts' own lesions", "donors' lesions", "p or interval")
    for row in rows:
        table.add_row(*row)
    Console(width=110).print(table)
    print(
        f"{len(made)} new lesions; real: {len(real['hosts'])} of hosts, {len(real['donors'])} of donors"
    )
    print(f"voxels changed beyond 4 mm: {changed}")
    if failed := [row[0] for row in rows if row[-1].startswith("FAILS")] + ["changed"] * bool(
        changed
    ):
        sys.exit(f"failed: {', '.join(failed)}")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path)
    parser.add_argument("--hosts", type=Path, required=True)
    parser.add_argument("--donors", type=Path)
    parser.add_argument("--image")
    parser.add_argument("--features", default="efficientnet")
    parser.add_argument(
        "--units", choices=("person", "lesion"), default="person", help="of the bootstrap"
    )
    parser.add_argument(
        "--widest", type=float, default=SIDE, help="mm of lesions of which crops are compared"
    )
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE")
    asked = parser.parse_intermixed_args()
    asked.image = asked.image or _painted(asked.out)
    return asked


def _painted(out: Path) -> str:
    """Return the name of the first image that lesions were painted into."""
    with (out / "manifest.jsonl").open() as lines:
        first: str = json.loads(next(lines))["images"][0]
    return first


def _real(asked: argparse.Namespace) -> dict[str, list[Lesion]]:
    """Real lesions of hosts, and of donors that are no hosts."""
    data = data_settings(asked.overrides)
    found = {}
    for name, root in (("hosts", asked.hosts), ("donors", asked.donors or asked.hosts)):
        settings = attrs.evolve(data, root=root)
        files = [each for each in cases.find(settings, [asked.image], masked=False) if each.masks]
        found[name] = [
            lesion
            for each in files
            for case in [cases.read(each, settings, tissue=True)]
            for lesion in _lesions(case, case.lesion, asked.widest)
        ]
    return found


def _made(asked: argparse.Namespace) -> tuple[list[Lesion], int]:
    """New lesions, and how many voxels beyond the margin are not the host's."""
    settings = DataSettings(
        root=asked.out,
        masks={"seg": MaskSettings(file="seg"), "new": MaskSettings(file=layouts.NEW_LESIONS)},
        val_fraction=0.0,
    )
    made, changed = list[Lesion](), 0
    hosts = {each.id: each for each in cases.find(_hosts(asked), [asked.image], masked=False)}
    for each in cases.find(settings, [asked.image], masked=True, masks=["seg", "new"]):
        new = cases.read(_only(each, layouts.NEW_LESIONS), settings).lesion
        case = cases.read(each, settings, tissue=True)
        made += _lesions(case, new, asked.widest)
        host = cases.read(_host_of(asked.out, each, hosts), _hosts(asked))
        far = ~grown(new, case.spacing, RING)
        changed += np.count_nonzero((case.raws[0].volume.data != host.raws[0].volume.data)[far])
    return made, changed


def _hosts(asked: argparse.Namespace) -> DataSettings:
    return attrs.evolve(data_settings(asked.overrides), root=asked.hosts)


def _only(files: Files, mask: str) -> Files:
    return files._replace(
        masks={name: m for name, m in files.masks.items() if m.path.name == f"{mask}.nii.gz"}
    )


def _host_of(out: Path, output: Files, hosts: dict[str, Files]) -> Files:
    with listed(out) as lines:
        row = next(lines[index] for index in lines.made() if lines[index]["id"] == output.id)
    return hosts[row["host"]["id"]]


def _lesions(case: Case, mask: Array, widest: float) -> Iterator[Lesion]:
    """Measure each connected part of a mask in a scan whose lesions are all in `case.lesion`."""
    image = case.images[0]
    deviation = float(image[case.head & ~case.lesion].std())
    slope = (
        np.sqrt(sum(np.gradient(image, case.spacing[axis], axis=axis) ** 2 for axis in (0, 1)))
        / deviation
    )
    parts, _ = components(mask)
    for number, box in enumerate(ndimage.find_objects(parts), 1):
        wide = tuple(
            slice(max(0, part.start - int(8 / mm) - 1), part.stop + int(8 / mm) + 1)
            for part, mm in zip(box, case.spacing, strict=True)
        )
        own = parts[wide] == number
        far = ndimage.distance_transform_edt(~own, case.spacing)
        clear = case.head[wide] & (own | ~case.lesion[wide])
        ring = clear & (far > 0) & (far <= RING)
        seam = clear & (far > SEAM[0]) & (far <= SEAM[1])
        border = clear & (far <= 1.5 * min(case.spacing)) & ~ndimage.binary_erosion(own)
        if own.sum() < LEAST or ring.sum() < LEAST or seam.sum() < LEAST:
            continue
        level = image[wide][ring].mean()
        yield Lesion(
            case.files.person,
            case.files.id,
            (float(image[wide][own].mean()) - level) / deviation,
            float(slope[wide][border].mean()),
            float(slope[wide][seam].mean()),
            float(own.sum() * np.prod(case.spacing)),
            np.stack(_crops(case, parts == number, box))
            if _extent(box, case) <= widest
            else np.zeros((0, PIXELS, PIXELS)),
        )


def _extent(box: tuple[slice, ...], case: Case) -> float:
    return float(
        max(
            (part.stop - part.start) * mm
            for part, mm in zip(box[:2], case.spacing[:2], strict=True)
        )
    )


def _crops(case: Case, own: Array, box: tuple[slice, ...]) -> list[Array]:
    """Cut slices around a lesion, those that show most of it, by the window of the scan."""
    area = own[:, :, box[2]].sum((0, 1))
    shown = np.argsort(-area, kind="stable")[:SLICES] + box[2].start
    steps = (np.arange(PIXELS) - (PIXELS - 1) / 2) * (SIDE / PIXELS)
    crops = []
    for number in shown.tolist():
        middle = np.argwhere(own[:, :, number]).mean(0)
        at = np.meshgrid(
            *(middle[axis] + steps / case.spacing[axis] for axis in (0, 1)), indexing="ij"
        )
        plane = np.clip(case.images[0][:, :, number] * 0.7, 0, 1) * 2 - 1  # room for enhancing ones
        crops.append(ndimage.map_coordinates(plane, at, order=1, cval=-1.0))
    return crops


def _shares(real: dict[str, list[Lesion]], made: Sequence[Lesion]) -> Iterator[list[str]]:
    """Rows of contrast and gradients: means, and whether they are those of real lesions."""
    for name in ("contrast", "border", "seam"):
        values = [
            np.array([getattr(each, name) for each in group])
            for group in (made, real["hosts"], real["donors"])
        ]
        p = [stats.ks_2samp(values[0], other).pvalue for other in values[1:]]
        told = f"KS p {p[0]:.3f}, donors {p[1]:.3f}"
        if name == "contrast":
            told = f"{'' if p[0] > 0.05 else 'FAILS '}{told}"
        if name == "seam":
            ratio = values[0].mean() / values[1].mean()
            told = f"{'' if ratio <= WIDEST else 'FAILS '}{ratio:.2f} of real; {told}"
        yield [name, *(f"{each.mean():.3f} (SD {each.std():.3f})" for each in values), told]


def _kid(
    asked: argparse.Namespace, real: dict[str, list[Lesion]], made: Sequence[Lesion]
) -> Iterator[list[str]]:
    """The row of KID: made against hosts' own lesions, beside donors' against the same. Where donors
    are hosts, a lesion cannot be compared with itself: beside halves of the hosts against each other.
    """
    groups = (made, real["hosts"], real["donors"])
    if not all(any(len(each.crops) for each in group) for group in groups):
        yield ["KID of crops, against hosts'", "", "", "", f"no lesion up to {asked.widest:g} mm"]
        return
    features = sources.measure("features", asked.features, [], Registry.load())
    extractor = features.build(torch.device("cpu"))
    sets = [_features(extractor, group) for group in groups]
    people = [_people(asked.units, group) for group in groups]
    shared = {each.person for each in real["hosts"]} & {each.person for each in real["donors"]}
    found = [_between_halves(sets[1], people[1])] if shared else []
    for number in (0,) if shared else (2, 0):
        kernels = Kernels.of(sets[1], sets[number], people[1], people[number])

        def kid(one: Array, two: Array, kernels: Kernels = kernels) -> float:
            return kernels.kid(
                np.bincount(one, minlength=len(kernels.xx)),
                np.bincount(two, minlength=len(kernels.yy)),
            )

        rng = np.random.default_rng(seeds.derive(0, "bench_inserted", number))
        value = kernels.kid()
        found.append((value, *bootstrap.interval(kid, [people[1], people[number]], DRAWS, rng)))
    (other, least, most), (value, low, high) = (np.array(each) for each in found)
    told = f"made {low:.1f} to {high:.1f}, real {least:.1f} to {most:.1f}"
    beyond = "FAILS " if value > most else ""
    yield ["KID of crops, against hosts'", f"{value:.1f}", "", f"{other:.1f}", beyond + told]


def _between_halves(features: Array, people: Array) -> tuple[float, float, float]:
    """Return the mean of KID between random halves of the people, and where 95 % of it lies."""
    rng = np.random.default_rng(seeds.derive(0, "bench_inserted halves"))
    found = []
    for _ in range(DRAWS):
        first = np.isin(people, rng.permutation(np.unique(people))[::2])
        found.append(
            Kernels.of(features[first], features[~first], people[first], people[~first]).kid()
        )
    return float(np.mean(found)), *map(float, np.quantile(found, (0.025, 0.975)))


def _features(extractor: Any, group: Sequence[Lesion]) -> Array:
    crops = np.concatenate([each.crops for each in group])[:, None].astype(np.float32)
    return np.asarray(extractor(crops))


def _people(units: str, group: Sequence[Lesion]) -> Array:
    names = [
        (each.person, "" if units == "person" else f"{each.scan} {number}")
        for number, each in enumerate(group)
        for _ in each.crops
    ]
    known = {name: number for number, name in enumerate(dict.fromkeys(names))}
    return np.array([known[name] for name in names], np.int64)


if __name__ == "__main__":
    main()
