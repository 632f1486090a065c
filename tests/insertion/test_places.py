"""New lesions lie where lesions lie: in the head, beside what they lie beside, apart from each other.

Covers: medgen.generation.insertion.cases, medgen.generation.insertion.frame, medgen.generation.insertion.inserter,
medgen.generation.insertion.lesions, medgen.generation.insertion.shapes.
"""

from __future__ import annotations

from pathlib import Path

import attrs
import numpy as np
import pytest
from insertion.made_up import BESIDE, head, millimetres, ventricles, write_heads
from scipy import ndimage

from medgen.api.tables import DataSettings
from medgen.data.grid import Grid
from medgen.data.scans.nifti import gate
from medgen.data.store.crop_targets import grown
from medgen.errors import DataError
from medgen.generation.insertion import cases, lesions, shapes
from medgen.generation.insertion.frame import Frame
from medgen.generation.insertion.inserter import (
    COMPARED,
    NO_PLACE,
    SCALES,
    Chosen,
    Inserted,
    Inserter,
    Wanted,
)
from medgen.generation.insertion.lesions import crosses
from medgen.generation.insertion.paste import MARGIN, Paste
from medgen.generation.insertion.places import DEEPER, SPREAD, Found, Ground


@pytest.fixture(scope="module")
def donors(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_heads(tmp_path_factory.mktemp("donors"), range(6))


def inserter(donors: Path, hosts: Path, seed: int = 0) -> Inserter:
    data = DataSettings(root=donors, workers=1, val_fraction=0.0)
    library = lesions.collect(cases.find(data, ["flair"], masked=True), data, lambda _: None)
    mine = attrs.evolve(data, root=hosts)
    return Inserter(
        cases.find(mine, ["flair"], masked=False), library, Paste(("flair",)), mine, seed, {}
    )


def host_of(root: Path, where: list[tuple[float, float, float]]) -> Path:
    """A host with lesions of its own at these places."""
    from insertion.made_up import AFFINE, nib

    values, mask = head(20, where)
    folder = root / "H020"
    folder.mkdir(parents=True)
    nib.save(nib.Nifti1Image(values.astype(np.int16), AFFINE), folder / "flair.nii.gz")
    nib.save(nib.Nifti1Image(mask.astype(np.uint8), AFFINE), folder / "seg.nii.gz")
    return root


def made(donors: Path, hosts: Path, count: int) -> list[Inserted]:
    make = inserter(donors, hosts)
    return [each for each in map(make.make, range(count)) if each.lesions]


def test_lesions_of_ventricles_go_beside_ventricles_on_either_side(
    donors: Path, tmp_path: Path
) -> None:
    all_made = made(donors, write_heads(tmp_path, range(10, 14), masked=False), 12)
    far = ndimage.distance_transform_edt(~ventricles(), (3, 3, 4))
    sides = []
    for each in all_made:
        assert not (each.new & ventricles()).sum() > 0.1 * each.new.sum()
        assert far[each.new].min() <= 6  # donors touch; within two voxels
        sides.append(np.sign(millimetres()[0][each.new].mean()))
        assert abs(abs(millimetres()[0][each.new].mean()) - BESIDE) < 8
    assert len(all_made) == 12
    assert set(sides) == {-1, 1}


def test_no_lesion_lies_over_another_nor_changes_it(donors: Path, tmp_path: Path) -> None:
    own = [(BESIDE, y, z) for y in (-16, 0, 16) for z in (-8, 8)] + [(-BESIDE, -10, 0)]
    hosts = host_of(tmp_path, own)
    for each in made(donors, hosts, 8):
        assert each.case.lesion.any()
        near = ndimage.distance_transform_edt(~each.case.lesion, each.case.spacing)[each.new].min()
        assert near > MARGIN
        np.testing.assert_array_equal(
            each.images[0][each.case.lesion], each.case.images[0][each.case.lesion]
        )


def test_a_host_full_of_lesions_is_left_out_not_painted_over(donors: Path, tmp_path: Path) -> None:
    everywhere = [
        (x, y, z)
        for x in range(-50, 51, 12)
        for y in range(-60, 61, 12)
        for z in range(-40, 41, 12)
    ]
    make = inserter(donors, host_of(tmp_path, everywhere))
    assert make.make(0).lesions == ()
    assert make.make(0).missed == {NO_PLACE: 1}


def test_no_lesion_lies_across_the_midline_if_its_donors_did_not(
    donors: Path, tmp_path: Path
) -> None:
    for each in made(donors, write_heads(tmp_path, range(10, 14), masked=False), 8):
        side = Frame.of(each.case.head, each.case.spacing).side(np.argwhere(each.new))
        assert not crosses(side)


def test_a_lesion_across_the_midline_may_stay_there(tmp_path: Path) -> None:
    for root in ("donors", "hosts"):
        host_of(tmp_path / root, [(0, 0, 26)] if root == "donors" else [])
    (tmp_path / "donors/H020").rename(tmp_path / "donors/D001")
    (one,) = made(tmp_path / "donors", tmp_path / "hosts", 1)
    assert crosses(Frame.of(one.case.head, one.case.spacing).side(np.argwhere(one.new)))


def test_number_and_sizes_are_those_of_one_donor(tmp_path: Path) -> None:
    where = [(-BESIDE, 0, 0), (BESIDE, 10, 0), (BESIDE, -14, 0), (0, 0, 30)]
    host_of(tmp_path / "donors", where)
    (tmp_path / "donors/H020").rename(tmp_path / "donors/D001")
    (one,) = made(
        tmp_path / "donors", write_heads(tmp_path / "hosts", range(10, 11), masked=False), 1
    )
    assert len(one.lesions) + one.missed.total() == 4
    assert lesions.count(one.new) == len(one.lesions) >= 3


def test_a_host_is_never_given_its_own_lesions(donors: Path) -> None:
    make = inserter(donors, donors)
    for index in range(6):
        assert all(each["donor"] != make.host(index).id for each in make.make(index).lesions)


@pytest.mark.parametrize("spacing", [(3.0, 3.0, 4.0), (2.0, 2.0, 2.0), (1.5, 3.0, 5.0)])
def test_a_moved_lesion_keeps_its_volume_and_is_of_one_piece(
    donors: Path, spacing: tuple[float, ...]
) -> None:
    make = inserter(donors, donors)
    for number, lesion in enumerate(make.library.lesions):
        patch = shapes.moved(
            lesion, spacing, np.random.default_rng(number), mirrored=bool(number % 2)
        ).patch()
        volume = patch.mask.sum() * np.prod(spacing)
        assert volume == pytest.approx(lesion.size, abs=0.5 * np.prod(spacing) + 0.02 * lesion.size)
        assert ndimage.label(patch.mask, np.ones((3, 3, 3)))[1] == 1
        inside = patch.images[0][ndimage.binary_erosion(patch.mask)]
        assert inside.mean() > patch.images[0][patch.clear & ~patch.mask].mean()


def test_the_midplane_is_found_in_a_tilted_head() -> None:
    from insertion.made_up import SHAPE, SPACING, ellipsoid

    straight = Frame.of(ellipsoid((0, 0, 0), (62, 74, 56)), SPACING)
    assert abs(straight.side(np.array([[(SHAPE[0] - 1) / 2, 20, 10]]))[0]) < 1.5
    x, y, z = millimetres()
    tilted = ((x - 0.15 * z + 4) / 60) ** 2 + (y / 74) ** 2 + (z / 52) ** 2 < 1
    frame = Frame.of(tilted, SPACING)
    for k in (8, 16, 24):
        at = (SHAPE[0] - 1) / 2 + (0.15 * (k - 15.5) * 4 - 4) / 3
        assert abs(frame.side(np.array([[at, 28, k]]))[0]) < 2


def test_a_place_in_the_head_and_back() -> None:
    values, _ = head(0)
    frame = Frame.of(values > 0, (3, 3, 4))
    voxels = np.random.default_rng(0).integers(5, 30, (50, 3))
    np.testing.assert_array_equal(frame.voxels(frame.place(voxels)), voxels)


def test_files_that_are_not_of_one_grid_are_refused(tmp_path: Path) -> None:
    write_heads(tmp_path, range(1))
    from insertion.made_up import AFFINE, nib

    nib.save(
        nib.Nifti1Image(np.zeros((48, 56, 30), np.uint8), AFFINE), tmp_path / "P000/seg.nii.gz"
    )
    data = DataSettings(root=tmp_path)
    (found,) = cases.find(data, ["flair"], masked=True)
    with pytest.raises(DataError, match="has 48 x 56 x 30 voxels"):
        cases.read(found, data)
    assert gate.read(found.images["flair"]).data.shape == (48, 56, 32)


def test_a_host_is_given_no_lesion_twice_while_there_are_others(tmp_path: Path) -> None:
    where = [(-BESIDE, 0, 0), (BESIDE, 12, 0), (BESIDE, -16, 0)]
    host_of(tmp_path / "donors", where)
    (tmp_path / "donors/H020").rename(tmp_path / "donors/D001")
    hosts = write_heads(tmp_path / "hosts", range(10, 13), masked=False)
    for each in made(tmp_path / "donors", hosts, 3):
        used = [lesion["lesion"] for lesion in each.lesions]
        assert len(used) == len(set(used)) >= 2


def test_a_wanted_size_is_kept_or_the_next_there_is(donors: Path) -> None:
    library = inserter(donors, donors).library
    for size in (library.lesions[0].size, library.lesions[-1].size):
        assert all(
            max(each.size / size, size / each.size) <= lesions.ALIKE for each in library.near(size)
        )
    assert library.near(1e7) == [library.lesions[-1]]
    assert library.near(1e7, [library.lesions[-1]]) == [library.lesions[-2]]


def test_the_scale_of_tissue_does_not_depend_on_how_much_of_a_head_is_lesion(
    tmp_path: Path,
) -> None:
    host_of(
        tmp_path / "many",
        [(x, y, 0) for x in (-BESIDE, BESIDE, 40, -40) for y in (-30, -12, 12, 30)],
    )
    host_of(tmp_path / "none", [])
    tops = []
    for name in ("many", "none"):
        data = DataSettings(root=tmp_path / name)
        (files,) = cases.find(data, ["flair"], masked=False)
        tops.append([cases.read(files, data, tissue).windows[0][1] for tissue in (True, False)])
    assert tops[0][0] == pytest.approx(tops[1][0], rel=0.02)
    assert tops[0][1] > 1.2 * tops[1][1]


# Where nothing of a wanted size fits


def library_of(donors: Path, *sizes: float) -> lesions.Library:
    """One lesion for each size, as if of one donor, with the values of a real one."""
    data = DataSettings(root=donors, workers=1, val_fraction=0.0)
    one = lesions.collect(cases.find(data, ["flair"], masked=True), data, lambda _: None)
    made = tuple(attrs.evolve(one.lesions[0], size=size, number=n) for n, size in enumerate(sizes))
    return attrs.evolve(one, lesions=made, sizes=(("D", sizes),))


def test_lesions_of_a_wanted_size_and_the_next_smaller_ones_are_known(donors: Path) -> None:
    library = library_of(donors, *map(float, range(100, 2100, 100)))
    assert [each.size for each in library.near(1010)] == [*map(float, range(700, 1600, 100))]
    assert [each.size for each in library.below(1010)] == [*map(float, range(100, 700, 100))]
    taken = library.below(1010)[-2:]
    assert [each.size for each in library.below(1010, taken)] == [100, 200, 300, 400]
    assert len(library.below(1e9)) == lesions.SMALLER


@pytest.mark.parametrize("scale", [1.0, 0.8, 0.5])
def test_a_lesion_is_scaled_in_its_diameter_and_keeps_its_contrast(
    donors: Path, scale: float
) -> None:
    data = DataSettings(root=donors, workers=1, val_fraction=0.0)
    library = lesions.collect(cases.find(data, ["flair"], masked=True), data, lambda _: None)
    lesion = library.lesions[-1]
    moved = shapes.moved(lesion, (2.0, 2.0, 2.0), np.random.default_rng(0), False, scale)
    assert moved.mask.sum() * 8 == pytest.approx(lesion.size * scale**3, rel=0.1)
    patch = moved.patch()
    assert patch.images is not None
    assert patch.clear is not None
    around = patch.clear & grown(patch.mask, (2, 2, 2), lesions.RING) & ~patch.mask
    now = lesions.contrast(patch.images, patch.mask, around)
    assert now[0] == pytest.approx(lesion.contrast[0], rel=0.1)


def test_a_lesion_too_large_for_a_host_is_made_smaller_and_the_manifest_says_so(
    donors: Path, tmp_path: Path
) -> None:
    make = inserter(donors, write_heads(tmp_path, range(10, 11), masked=False))
    whole = make.make(0).lesions
    assert [each["scale"] for each in whole] == [1.0]
    large = make.library.lesions[0].size

    class Small(Paste):
        """Takes crops in which no lesion fits as it is."""

        grid = Grid.of_slices(5, 3.0, "axial")
        margin = 0.5

    make.painter = Small(("flair",))
    (one,) = make.make(0).lesions
    assert one["scale"] < 1
    assert one["mm3"] < large <= one["wanted"]


def test_where_no_copy_fits_a_smaller_lesion_takes_the_place() -> None:
    wanted = Wanted(["large"], ["small"], 100.0)  # type: ignore[list-item]
    assert list(wanted.trials()) == [*((["large"], scale) for scale in SCALES), (["small"], 1.0)]
    assert [scale for _, scale in Wanted(["mask"]).trials()] == [*SCALES]  # type: ignore[list-item]


def test_the_lesion_is_taken_whose_place_is_better_than_its_others(
    donors: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bright lesion's surroundings are bright, so that no place is much like its own."""
    make = inserter(donors, write_heads(tmp_path, range(10, 11), masked=False))
    bright, faint = make.library.lesions[:2]

    def best(ground: Ground, centres: np.ndarray, patch: shapes.Patch) -> Found:
        drawn = len(tried)
        tried.append(patch)
        unlike, usual = [(0.3, 0.4), (0.5, 1.0), (0.31, 0.4), (0.39, 0.4)][drawn]
        return Found(centres[0], unlike, usual)

    tried: list[shapes.Patch] = []
    monkeypatch.setattr(Ground, "best", best)
    case = cases.read(make.hosts[0], make.data)
    ground = Ground(case, make.library.unlikely, 2.0)
    found = make._fitting([bright, faint], 1.0, ground, np.random.default_rng(0))

    assert len(tried) == COMPARED
    assert isinstance(found, Chosen)
    assert (found.unlike, found.usual) == (0.5, 1.0)
    assert found.placed.patch is tried[1]


@pytest.mark.parametrize("depth", [2.0, 9.0, 20.0])
def test_a_lesion_lies_as_deep_as_its_own_if_it_can(
    donors: Path, tmp_path: Path, depth: float
) -> None:
    """Of the places around its own more are deeper than shallower; all are taken where none is as deep."""
    make = inserter(donors, write_heads(tmp_path, range(10, 11), masked=False))
    ground = Ground(cases.read(make.hosts[0], make.data), make.library.unlikely, 2.0)
    mask = np.zeros((7, 7, 7), bool)
    mask[2:5, 2:5, 2:5] = True
    middle = np.array(ground.depth.shape) // 2
    centre = middle.copy()
    row = ground.depth[: centre[0], centre[1], centre[2]]
    centre[0] = np.abs(row - depth).argmin() + 1
    own = ground.frame.place(centre[None])[0]
    lesion = attrs.evolve(make.library.lesions[0], where=own, depth=depth, crosses=True)

    def depths(lesion: lesions.Lesion) -> np.ndarray:
        found = ground.free(lesion, mask, False, np.random.default_rng(0), SPREAD)
        return ground._depth(found, np.argwhere(mask) - 3)

    assert len(found := depths(lesion)) > 10
    assert found.min() >= 0.8 * depth
    assert found.max() <= max(depth / 0.8, depth + DEEPER)
    elsewhere = depths(
        attrs.evolve(lesion, where=ground.frame.place(middle[None])[0])
    )  # all deeper than its own
    assert len(elsewhere) > 10
    assert elsewhere.min() > depth + DEEPER


def test_a_lesion_is_warped_by_the_cubic_spline_of_its_control_points():
    control = np.random.default_rng(0).standard_normal((3, 5, 6, 7))
    lines = [np.linspace(-2, 2, 9), np.linspace(-3, 3, 11), np.linspace(-4, 4, 8)]

    warp = shapes._Map(np.zeros(3), np.eye(3), control, step=2.0)._warp(lines)

    at = np.stack(np.meshgrid(*(line / 2.0 for line in lines), indexing="ij"))
    at += ((np.array(control.shape[1:]) - 1) / 2).reshape(3, 1, 1, 1)
    expected = [ndimage.map_coordinates(each, at, order=3, prefilter=False) for each in control]
    np.testing.assert_allclose(warp, expected, atol=1e-12)


def test_a_long_lesion_keeps_its_ends_however_it_is_turned():
    mask = np.zeros((9, 41, 9), bool)
    mask[4, 2:39, 4] = mask[3, 2:39, 4] = mask[4, 2:39, 5] = True
    size = float(np.count_nonzero(mask))
    lesion = lesions.Lesion(
        donor="D",
        person="D",
        number=1,
        images=None,
        mask=mask,
        parts=mask[None],
        clear=None,
        spacing=(1.0, 1.0, 1.0),
        size=size,
        where=np.zeros(3),
        crosses=False,
        depth=1.0,
        contrast=(0.3,),
    )

    for seed in range(8):
        found = shapes.moved(
            lesion, (1.0, 1.0, 1.0), np.random.default_rng(seed), seed % 2 == 1
        ).mask

        ends = np.argwhere(found)
        assert np.count_nonzero(found) == size
        assert np.linalg.norm(np.ptp(ends, axis=0)) > 32
        assert ends.min() > 0
        assert (ends < np.array(found.shape) - 1).all()
