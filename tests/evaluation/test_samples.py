"""Real slices and pairs lie on one grid, people are told apart, and what is no pair is refused.

Covers: medgen.evaluation.pair_files, medgen.evaluation.pair_samples, medgen.evaluation.slice_file,
medgen.evaluation.sources.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from data.cohort import write_cohort

from medgen.data.grid import Grid
from medgen.data.store.nifti_writer import write_slice
from medgen.errors import DataError, RecipeError
from medgen.evaluation import sources
from medgen.evaluation.pair_samples import read_pairs
from medgen.evaluation.samples import by_person, read_real

SIZE, SPACING = 16, 1.9
ELSEWHERE = '{}\n{"index": 1, "id": "../../scans", "files": {"bravo": ""}}\n'


def write_pairs(
    folder: Path, count: int = 3, size: int = SIZE, spacing: float = SPACING, axis: str = "axial"
) -> Path:
    """Pairs as `medgen generate` writes them: a head, flat but at its rim, and a lesion of 2 x 3 px."""
    lines, grid = [{"seed": 0}], Grid.of_slices(size, spacing, axis)
    for index in range(count):
        image, mask = np.full((size, size), -1.0), np.full((size, size), -1.0)
        image[3:-3, 3:-3], mask[5:7, 5:8] = 0.2, 1
        image[3 + index % 5, 3:-3] = -0.1 * (index % 7)
        there = folder / "train" / f"syn_{index:05d}"
        there.mkdir(parents=True)
        write_slice(there / "bravo.nii.gz", image, False, grid)
        write_slice(there / "seg.nii.gz", mask, True, grid)
        lines.append({"index": index, "id": there.name, "files": {"bravo": "", "seg": ""}})
    (folder / "manifest.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


@pytest.fixture
def pairs(tmp_path):
    return write_pairs(tmp_path / "pairs")


def test_real_slices_are_read_on_the_grid_of_the_pairs(cohort, pairs):
    made = read_pairs(pairs)
    real = read_real(sources.real(str(cohort), ["data.workers=1"]), "all", like=made)
    assert real.images.shape[1:] == made.images.shape[1:] == (1, SIZE, SIZE)
    assert real.grid.matches(made.grid, 1e-6)
    assert made.grid.spacing == pytest.approx((SPACING, SPACING))
    assert real.channels == made.channels == ("bravo",)


def test_pairs_come_as_they_were_written(pairs):
    made = read_pairs(pairs)
    assert made.images.dtype == np.float32
    assert made.images[0, 0, 8, 8] == pytest.approx(0.2, abs=1e-3)
    assert made.images[0, 0, 0, 0] == -1
    assert made.masks.sum(axis=(1, 2)).tolist() == [6, 6, 6]
    assert made.people.tolist() == [0, 1, 2]
    assert made.names[2] == "syn_00002"
    assert len(read_pairs(pairs, limit=2)) == 2


def test_all_real_slices_show_a_lesion_unless_others_are_asked_for(cohort, pairs):
    source, like = sources.real(str(cohort), ["data.workers=1"]), read_pairs(pairs)
    with_lesion, every = (
        read_real(source, "all", like),
        read_real(source, "all", like, lesions_only=False),
    )
    assert with_lesion.masks.any(axis=(1, 2)).all()
    assert len(every) > len(with_lesion)
    assert not every.masks.any(axis=(1, 2)).all()


def test_the_place_in_the_head_is_that_of_the_whole_head_not_of_the_slices_with_a_lesion(
    cohort, pairs
):
    given = ["data.workers=1", "data.min_foreground=0"]
    source, like = sources.real(str(cohort), given), read_pairs(pairs)
    every = read_real(source, "all", like, lesions_only=False)
    for person in every.persons:
        place = every.take(every.people == person).position
        assert (place.min(), place.max()) == (0, 1)
        assert (np.diff(place) > 0).all()
    some = read_real(source, "all", like)
    assert some.position.min() > 0


def test_two_visits_of_a_person_are_one_person(tmp_path, pairs):
    root = write_cohort(tmp_path / "data", patients=3)
    (root / "Mets_000").rename(root / "Mets_007_visit1")
    (root / "Mets_001").rename(root / "Mets_007_visit2")
    real = read_real(sources.real(str(root), ["data.workers=1"]), "all", read_pairs(pairs))
    assert len(real.persons) == 2


def test_halves_by_person_share_no_person_and_lose_no_slice(cohort, pairs):
    real = read_real(sources.real(str(cohort), ["data.workers=1"]), "all", read_pairs(pairs))
    one, two = by_person(real, np.random.default_rng(3), 0.5)
    assert not set(one.people) & set(two.people)
    assert len(one) + len(two) == len(real)
    assert {*one.names, *two.names} == set(real.names)


def test_a_recipe_a_run_and_a_folder_name_the_same_scans(cohort, trained, tiny, pairs):
    given = [each for each in tiny if each.startswith("data.")]
    by_recipe = sources.real("bravo_rflow", given)
    by_run = sources.real(str(trained / "bravo"))
    by_checkpoint = sources.real(str(trained / "bravo" / "latest.pt"), given)
    assert by_recipe == by_run == by_checkpoint
    assert (by_run.images, by_run.masks) == (("bravo",), ("seg",))
    assert sources.real(str(cohort), given[1:]).data == by_run.data


def test_a_checkpoint_without_a_folder_for_its_data_is_refused(trained):
    with pytest.raises(
        RecipeError, match=r"latest\.pt: data\.root: a checkpoint names no folder\. Add data\.root="
    ):
        sources.real(str(trained / "bravo" / "latest.pt"))


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda pairs: (pairs / "manifest.jsonl").unlink(), r"holds no manifest\.jsonl"),
        (lambda pairs: (pairs / "manifest.jsonl").write_text("{}\n"), r"lists no pair"),
        (
            lambda pairs: (pairs / "manifest.jsonl").write_text('{}\n{"index": 1}\n'),
            r"jsonl:2: is no line that medgen",
        ),
        (
            lambda pairs: (pairs / "manifest.jsonl").write_text(ELSEWHERE),
            r"jsonl:2: is no line that medgen",
        ),
        (
            lambda pairs: (pairs / "train/syn_00001/seg.nii.gz").unlink(),
            r"seg\.nii\.gz: is not there",
        ),
        (
            lambda pairs: (pairs / "train/syn_00001/seg.nii.gz").write_bytes(b"torn"),
            r"seg\.nii\.gz: cannot be read",
        ),
        (
            lambda pairs: write_slice(
                pairs / "train/syn_00001/bravo.nii.gz",
                np.zeros((SIZE, SIZE)),
                False,
                Grid.of_slices(SIZE, 2.5, "axial"),
            ),
            r"syn_00001/bravo is 16 px of 2\.5 mm, axial, the first pair 16 px of 1\.9 mm",
        ),
    ],
    ids=["no manifest", "empty", "no line", "elsewhere", "missing", "torn", "another spacing"],
)
def test_what_is_no_whole_pair_is_refused_in_one_line(pairs, harm, message):
    harm(pairs)
    with pytest.raises(DataError, match=message) as raised:
        read_pairs(pairs)
    assert len(raised.value.lines) == 1


def test_pairs_that_failed_or_were_torn_by_a_kill_are_left_out(pairs):
    with open(pairs / "manifest.jsonl", "a") as file:
        file.write('{"index": 3, "failed": true}\n{"index": 4, "id": "syn_000')
    assert len(read_pairs(pairs)) == 3


def test_pairs_that_were_set_aside_are_left_out(pairs):
    path = pairs / "manifest.jsonl"
    path.write_text(
        path.read_text().replace(
            '"id": "syn_00001"', '"id": "syn_00001", "set_aside": "copy of a slice"'
        )
    )
    assert read_pairs(pairs).names == ("syn_00000", "syn_00002")
