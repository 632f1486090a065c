"""nnU-Net takes the exported dataset, and no pair is trained on where its source is validated."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import attrs
import nibabel as nib
import numpy as np
import pytest
from evaluation.made_up import heads, volumes

from medgen.errors import RecipeError
from medgen.evaluation.nnunet import Case, Dataset, export, folds_of

PAIRS = [Case(f"syn_{number:05d}", -1, False) for number in range(6)]


def _real(seen: int, unseen: int) -> list[Case]:
    persons = [
        *((number, True) for number in range(seen)),
        *((100 + number, False) for number in range(unseen)),
    ]
    return [
        Case(f"patient_{person}_slice_{part}", person, saw)
        for person, saw in persons
        for part in range(3)
    ]


def _dataset(**changes: object) -> Dataset:
    train = attrs.evolve(
        heads(6, slices=2), names=tuple(f"patient {n // 2}, slice {40 + n}" for n in range(12))
    )
    val = heads(3, slices=2, seed=1, first=50)
    val = attrs.evolve(val, names=tuple(f"patient {50 + n // 2}, slice {n}" for n in range(6)))
    pairs = attrs.evolve(heads(5, slices=2, seed=2), names=tuple(f"syn_{n:05d}" for n in range(10)))
    return Dataset(501, "Demo", pairs, train, val, "train")._replace(**changes)


@pytest.mark.parametrize("counts", [(24, 3), (24, 12), (0, 9), (9, 0), (3, 1), (1, 1)])
def test_a_pair_and_a_person_its_generator_saw_never_meet_in_a_fold(counts):
    real = _real(*counts)
    folds = folds_of(real, PAIRS, seed=0)
    owner, seen = (
        {case.name: case.person for case in real},
        {case.name for case in real if case.seen},
    )
    synthetic = {case.name for case in PAIRS}
    for fold in folds:
        assert fold.train
        assert fold.val
        assert not synthetic & set(fold.val)
        assert not {owner[name] for name in fold.val} & {
            owner[name] for name in fold.train if name in owner
        }
        assert not (seen & set(fold.val) and synthetic & set(fold.train))
        assert fold.pairs == bool(synthetic & set(fold.train)) == (not seen & set(fold.val))
    validated = [name for fold in folds for name in fold.val]
    assert sorted(validated) == sorted(owner)
    assert len(folds) == min(5, sum(counts))
    assert any(fold.pairs for fold in folds) == (counts[1] > 0)


def test_files_names_spacing_and_labels_are_as_nnunet_wants_them(tmp_path):
    dataset = _dataset()
    export(dataset, tmp_path, seed=0)
    folder = tmp_path / "Dataset501_Demo"
    about = json.loads((folder / "dataset.json").read_text())
    labels = sorted(path.name.removesuffix(".nii.gz") for path in (folder / "labelsTr").iterdir())
    images = sorted(
        path.name.removesuffix("_0000.nii.gz") for path in (folder / "imagesTr").iterdir()
    )

    assert labels == images
    assert about["numTraining"] == len(labels) == 28
    assert about["channel_names"] == {"0": "bravo"}
    assert about["labels"] == {"background": 0, "lesion": 1}
    assert "patient_001_slice_043" in labels
    for place, case in ((3, "patient_001_slice_043"), (0, "patient_000_slice_040")):
        image = nib.load(folder / "imagesTr" / f"{case}_0000.nii.gz")
        label = nib.load(folder / "labelsTr" / f"{case}.nii.gz")
        assert image.shape == label.shape == (48, 48, 1)
        assert image.header.get_zooms() == label.header.get_zooms() == (3, 3, 3)
        np.testing.assert_array_equal(
            np.asarray(label.dataobj)[..., 0] > 0, dataset.train.masks[place]
        )
        shown = np.asarray(image.dataobj)[..., 0] / 500 - 1
        np.testing.assert_allclose(shown, dataset.train.images[place, 0], atol=1.001e-3)
    splits = json.loads((folder / "splits_final.json").read_text())
    assert {name for split in splits for name in split["train"] + split["val"]} <= set(labels)


def _volumes() -> Dataset:
    train, val, pairs = volumes(6), volumes(3, seed=1, first=50), volumes(5, seed=2)
    pairs = attrs.evolve(pairs, names=tuple(f"syn_{n:05d}" for n in range(5)))
    return Dataset(502, "Heads", pairs, train, val, "train")


def test_volumes_are_exported_as_they_are(tmp_path):
    dataset = _volumes()
    folds = export(dataset, tmp_path, seed=0)
    folder = tmp_path / "Dataset502_Heads"
    about = json.loads((folder / "dataset.json").read_text())
    assert about["numTraining"] == 14
    assert about["description"] == "synthetic pairs and real volumes, written by medgen"
    for samples, case, place in (
        (dataset.pairs, "syn_00003", 3),
        (dataset.val, "patient_051", 1),
    ):
        image = nib.load(folder / "imagesTr" / f"{case}_0000.nii.gz")
        label = nib.load(folder / "labelsTr" / f"{case}.nii.gz")
        assert image.shape == label.shape == (16, 16, 16)
        assert image.header.get_zooms() == (4, 4, 4)
        np.testing.assert_allclose(image.affine, samples.grid.affine)
        np.testing.assert_allclose(label.affine, samples.grid.affine)
        assert np.array_equal(np.asarray(label.dataobj) > 0, samples.masks[place])
        shown = np.asarray(image.dataobj) / 500 - 1
        np.testing.assert_allclose(shown, samples.images[place, 0], atol=1.001e-3)
    assert len(folds) == 5
    assert sorted(name for fold in folds for name in fold.val) == sorted(
        f"patient_{person:03d}" for person in (*range(6), 50, 51, 52)
    )


def test_without_real_slices_there_are_no_folds(tmp_path):
    assert export(_dataset(train=None, val=None), tmp_path, seed=0) == []
    assert not (tmp_path / "Dataset501_Demo" / "splits_final.json").exists()


def test_a_dataset_that_is_there_is_not_touched_and_other_channels_are_refused(tmp_path):
    other = _dataset()
    other = other._replace(train=attrs.evolve(other.train, channels=("flair",)))
    with pytest.raises(RecipeError, match=r"--real: real slices are flair, pairs bravo"):
        export(other, tmp_path, seed=0)
    (tmp_path / "Dataset501_Demo").mkdir()
    with pytest.raises(
        RecipeError, match=r"Dataset501_Demo: is there already. Remove it, or choose another --id"
    ):
        export(_dataset(), tmp_path, seed=0)
    with pytest.raises(RecipeError, match=r"--name: is 'a_b', expected letters and digits"):
        export(_dataset(name="a_b"), tmp_path, seed=0)
    assert not list((tmp_path / "Dataset501_Demo").iterdir())


PLAN = """
from nnunetv2.experiment_planning.plan_and_preprocess_entrypoints import plan_and_preprocess_entry
plan_and_preprocess_entry()
"""

DRIVER = """
import json, sys
from pathlib import Path

def main(folder):
    import torch
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    torch.set_num_threads(1)
    plans, about = (json.loads((folder / name).read_text()) for name in ("nnUNetPlans.json", "dataset.json"))
    which = sys.argv[2]
    plans["configurations"][which].update(batch_size=2)
    plans["continue_training"] = False  # from version 2.8 on
    trainer = nnUNetTrainer(plans=plans, configuration=which, fold=0, dataset_json=about, device=torch.device("cpu"))
    trainer.num_epochs, trainer.num_iterations_per_epoch, trainer.num_val_iterations_per_epoch = 2, 2, 1
    trainer.run_training()
    assert trainer.current_epoch == 2, trainer.current_epoch

if __name__ == "__main__":  # nnU-Net starts processes to validate
    main(Path(sys.argv[1]))
"""


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec("nnunetv2") is None, reason="nnunetv2 is not installed"
)
@pytest.mark.parametrize(
    ("made", "configuration"), [(_dataset, "2d"), (_volumes, "3d_fullres")], ids=["2d", "3d"]
)
def test_nnunet_accepts_the_dataset_and_trains_two_epochs_on_it(made, configuration, tmp_path):
    dataset = made()
    number, name = str(dataset.number), dataset.folder
    raw, ready, ended = (tmp_path / name for name in ("raw", "preprocessed", "results"))
    export(dataset, raw, seed=0)
    (tmp_path / "driver.py").write_text(DRIVER)
    folders = {
        "nnUNet_raw": str(raw),
        "nnUNet_preprocessed": str(ready),
        "nnUNet_results": str(ended),
    }
    environment = {**os.environ, **folders, "nnUNet_n_proc_DA": "1", "nnUNet_compile": "f"}
    asked = ["-d", number, "--verify_dataset_integrity", "-c", configuration]
    asked += ["-np", "1", "-npfp", "1"]
    subprocess.run([sys.executable, "-c", PLAN, *asked], env=environment, check=True)
    folder = ready / name
    (folder / "splits_final.json").write_bytes((raw / name / "splits_final.json").read_bytes())
    driver = [sys.executable, str(tmp_path / "driver.py"), str(folder), configuration]
    environment["nnUNet_n_proc_DA"] = "0"  # in this process; planning takes no 0
    subprocess.run(driver, env=environment, check=True)
    assert len(list(Path(ended).rglob("checkpoint_final.pth"))) == 1
