"""Files of pairs: several masks as one label map, and volumes with the voxels of a scan.

Covers: medgen.generation.label_map.
"""

from __future__ import annotations

import json
from pathlib import Path

import attrs
import nibabel as nib
import numpy as np
import pytest
from conftest import TINY
from data.cohort import write_cohort, write_volume
from faults.variants import SMALL

from medgen.api.tables import DataSettings, MaskSettings
from medgen.cli import generators
from medgen.data.store.mask_slices import open_masks
from medgen.data.store.store import open_store
from medgen.evaluation.pair_samples import read_pairs
from medgen.generation.auto_steps import Trial, note
from medgen.generation.label_map import LabelMap
from medgen.generation.pair_writer import load_model

LABELS = {"whole": [2, 1, 4], "core": [1, 4], "rim": [4]}
MASKS = {name: MaskSettings(labels=labels) for name, labels in LABELS.items()}
NAMES = tuple(MASKS)
LIMITS = ("--max-area", 1, "--steps", 1, "--batch-size", 2, "--inside", "off")


def merged(settings, *masks):
    """The labels of a row of voxels, for what each mask is there, 0 or 1."""
    data = DataSettings(dimensions=3, masks=settings)
    made = LabelMap.of(data, tuple(settings))
    assert made is not None
    assert made.name == "seg"
    given = {
        name: np.array(each, float)[:, None, None] * 2 - 1
        for name, each in zip(settings, masks, strict=True)
    }
    labels = made.merged(given)
    assert labels.dtype == np.uint8
    return labels.ravel().tolist()


def test_a_voxel_has_the_label_that_lies_in_just_its_masks():
    assert merged(MASKS, [0, 1, 1, 1], [0, 0, 1, 1], [0, 0, 0, 1]) == [0, 2, 1, 4]
    apart = {"one": MaskSettings(labels=[7]), "two": MaskSettings(labels=[3, 5])}
    assert merged(apart, [0, 1, 0], [0, 0, 1]) == [0, 7, 3]
    every = {"all": MaskSettings(), "one": MaskSettings(labels=[9])}
    assert merged(every, [0, 1, 1], [0, 1, 1]) == [0, 9, 9]


def test_masks_that_no_label_has_together_become_the_one_that_most_have():
    """As a model may set a part without the whole, or two parts at once."""
    assert merged(MASKS, [0, 0], [1, 0], [1, 1]) == [4, 4]
    apart = {"one": MaskSettings(labels=[7]), "two": MaskSettings(labels=[3])}
    assert merged(apart, [1], [1]) == [7]


@pytest.mark.parametrize(
    ("changes", "masks"),
    [
        ({"dimensions": 2}, MASKS),  # slices keep a file for each mask
        ({}, {"whole": MASKS["whole"]}),
        ({}, {**MASKS, "other": MaskSettings(file="edema")}),
        ({}, {**MASKS, "large": MaskSettings(labels=[256])}),
    ],
)
def test_other_masks_keep_a_file_each(changes, masks):
    data = DataSettings(**{"dimensions": 3, **changes}, masks=masks)
    assert LabelMap.of(data, tuple(masks)) is None


@pytest.fixture(scope="module")
def labelled(tmp_path_factory) -> Path:
    """Patients whose lesions have a rim and a core in one file."""
    root = write_cohort(tmp_path_factory.mktemp("labelled"), channels=("bravo", "seg"))
    for path in root.glob("*/seg.nii.gz"):
        mask = np.asarray(nib.load(path).dataobj)
        low = np.argwhere(mask).min(0)
        mask[: low[0] + 2] *= 2
        mask[:, : low[1] + 2] *= 4 // mask[:, : low[1] + 2].clip(1)
        write_volume(path, mask, (1.0, 1.0, 2.0))
    return root


@pytest.fixture(scope="module")
def run(labelled, tmp_path_factory) -> Path:
    """A model of volumes given three masks of one file, after a step."""
    from medgen.cli.main import main

    folder = tmp_path_factory.mktemp("run")
    masks = [f"data.masks.{name}.labels={list(each.labels)}" for name, each in MASKS.items()]
    mode = ("mode=images", 'mode.images.images=["bravo"]', f"mode.images.condition={[*NAMES]}")
    given = (f"data.root={labelled}", *TINY, *SMALL, *masks, *mode, "data.val_fraction=0.25")
    words = ["train", "bravo_rflow_3d", *given, "training.steps=1", f"run.dir={folder / 'run'}"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MEDGEN_CACHE", str(folder / "cache"))
        with pytest.raises(SystemExit) as ended:
            main(words)
    assert not ended.value.code
    return folder / "run"


def test_masks_of_one_file_are_written_as_one_and_read_again_as_they_were(
    run, labelled, medgen, tmp_path
):
    given = ("--image-model", run, "--seg-model", labelled, "--no-audit", *LIMITS)
    result = medgen("generate", *given, "--num-images", 4, "--output-dir", tmp_path / "out")
    assert result.code == 0, result.err
    header, first, *_ = (tmp_path / "out/manifest.jsonl").read_text().splitlines()
    assert json.loads(header)["label_map"] == "seg"
    assert list(json.loads(first)["files"]) == ["bravo", "seg"]
    grid = load_model(run / "latest.pt").grid
    data = DataSettings(
        root=labelled, dimensions=3, image_size=16, spacing=grid.spacing[0], masks=MASKS,
        workers=1, val_fraction=0.0, min_foreground=0.0,
    )  # fmt: skip
    given = open_masks(data, NAMES, grid).read(np.arange(4)) > 0
    data = attrs.evolve(data, root=tmp_path / "out")
    store = open_store(data, NAMES, frozenset(NAMES), None, tmp_path / "cache")
    made = store.read(np.arange(4), NAMES) > 0
    assert given.any((0, 2, 3, 4)).all()
    for one in given:
        assert any(np.array_equal(one, other) for other in made)
    assert (tmp_path / "out/pairs.png").is_file()


def test_pairs_like_a_scan_have_its_voxels_and_are_judged_as_those_of_the_model(
    run, labelled, medgen, tmp_path
):
    scan = labelled / "Mets_001/bravo.nii.gz"
    given = ("--image-model", run, "--seg-model", labelled, *LIMITS, "--num-images", 2)
    for name, more in (("own", ()), ("like", ("--like", scan))):
        result = medgen("generate", *given, "--output-dir", tmp_path / name, *more)
        assert result.code == 0, result.err
        assert "audit: 0 of 2 pairs are copies of training data" in result.out
    for path in (tmp_path / "like/train").glob("*/*.nii.gz"):
        image = nib.load(path)
        assert image.shape == (20, 24, 10)
        assert np.allclose(image.affine, nib.load(scan).affine)
    like, own = (read_pairs(tmp_path / name) for name in ("like", "own"))
    assert like.grid.matches(own.grid, 1e-5)
    assert like.images.shape == own.images.shape
    volumes = [each.masks.sum((1, 2, 3)) for each in (like, own)]
    assert np.abs(volumes[0] - volumes[1]).max() <= 2
    refused = medgen("generate", *given, "--output-dir", tmp_path / "like")
    assert refused.code == 4
    assert "its pairs were made differently (like: " in refused.err


def test_what_was_measured_of_steps_goes_on_with_the_form_of_the_files(
    run, labelled, medgen, tmp_path
):
    scan, out = labelled / "Mets_001/bravo.nii.gz", tmp_path / "out"
    make = generators.maker(run, labelled, 0, 2, 1.0, 10, 0)
    note(out, generators.formed(make, scan)(1), [Trial(1, 2, {})])
    given = (
        "--image-model",
        run,
        "--seg-model",
        labelled,
        *LIMITS,
        "--steps",
        "auto",
        "--no-audit",
    )
    result = medgen("generate", *given, "--num-images", 1, "--output-dir", out, "--like", scan)
    assert result.code == 0, result.err
    header = json.loads((out / "manifest.jsonl").read_text().splitlines()[0])
    assert {"like", "label_map", "steps_auto"} <= set(header)


def test_slices_are_never_written_like_a_scan(trained, labelled, medgen, tmp_path):
    scan = labelled / "Mets_001/bravo.nii.gz"
    given = ("--seg-model", trained / "seg", "--num-images", 1, "--output-dir", tmp_path / "out")
    result = medgen("generate", *given, "--like", scan)
    assert result.code == 2
    assert "--like: is given, but the models make slices. Leave it out, or" in result.err
    assert not (tmp_path / "out").exists()
