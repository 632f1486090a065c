"""`medgen insert`: outputs that go on after a stop, each the same whatever else is made.

Covers: medgen.cli.generators, medgen.cli.insert, medgen.generation.insertion.insertions_picture,
medgen.generation.insertion.outputs, medgen.generation.insertion.setup.
"""

from __future__ import annotations

import json
import random
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import nibabel as nib
import numpy as np
import pytest
import torch
from faults.forkserver import HANG, Server
from insertion.made_up import AFFINE, write_heads

from medgen.data.grid import Grid
from medgen.evaluation.pair_samples import read_pairs
from medgen.generation.insertion import insertions_picture
from medgen.generation.insertion.inserter import Inserted
from medgen.generation.insertion.paste import Paste

Run = Callable[..., Any]


@pytest.fixture(scope="module")
def patients(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_heads(tmp_path_factory.mktemp("patients"), range(5))


def command(patients: Path, out: Path, *more: object, hosts: Path | None = None) -> list[str]:
    words = ["insert", "--hosts", hosts or patients, "--image-model", "paste", "--output-dir", out]
    return [str(each) for each in (*words, "data.workers=1", "data.val_fraction=0", *more)]


def files(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def lines(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "manifest.jsonl").read_text().splitlines()]


def test_an_output_is_the_same_whatever_else_is_made(
    medgen: Run, patients: Path, tmp_path: Path
) -> None:
    assert medgen(*command(patients, tmp_path / "all", "--num-images", 4)).code == 0
    assert medgen(*command(patients, tmp_path / "one", "--only", 3)).code == 0
    every = files(tmp_path / "all/train/syn_00003")
    assert files(tmp_path / "one/train/syn_00003") == every
    assert set(every) == {"flair.nii.gz", "seg.nii.gz", "seg_new.nii.gz"}
    assert medgen(*command(patients, tmp_path / "more", "--num-images", 6)).code == 0
    assert files(tmp_path / "more/train/syn_00003") == every
    assert medgen(*command(patients, tmp_path / "other", "--only", 3, "--seed", 1)).code == 0
    assert files(tmp_path / "other/train/syn_00003") != every


def test_the_manifest_names_host_and_donor_and_that_nothing_may_be_shared(
    medgen: Run, patients: Path, tmp_path: Path
) -> None:
    assert medgen(*command(patients, tmp_path / "out", "--num-images", 2)).code == 0
    first, *others = lines(tmp_path / "out")
    assert first["shareable"] is False
    assert first["image_model"] == "paste"
    for line in others:
        host = line["host"]["files"]["flair"]
        assert (patients / host["file"]).exists()
        assert len(host["sha256"]) == 64
        assert line["shareable"] is False
        assert line["inserted"][0]["donor"] != line["host"]["id"]
        assert line["lesions"]["count"] == 1 + line["lesions"]["new"]
    assert (tmp_path / "out/insertions.png").exists()


def test_outputs_are_a_dataset_to_train_on(medgen: Run, patients: Path, tmp_path: Path) -> None:
    assert medgen(*command(patients, tmp_path / "out", "--num-images", 3)).code == 0
    result = medgen("data", "check", tmp_path / "out")
    assert result.code == 0, result.err
    assert "seg_new" not in result.out + result.err


@pytest.mark.row("G1")
def test_a_rerun_makes_what_is_missing_or_damaged_and_nothing_else(
    medgen: Run, patients: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    assert medgen(*command(patients, out, "--num-images", 4)).code == 0
    whole = files(out)
    kept = (out / "train/syn_00000/flair.nii.gz").stat().st_mtime_ns
    shutil.rmtree(out / "train/syn_00001")
    (out / "train/syn_00002/seg.nii.gz").write_bytes(b"damaged")
    assert medgen(*command(patients, out, "--num-images", 4)).code == 0
    assert files(out) == whole
    assert (out / "train/syn_00000/flair.nii.gz").stat().st_mtime_ns == kept


@pytest.mark.row("G1")
def test_kills_and_resumes_end_with_the_files_of_an_undisturbed_run(
    patients: Path, tmp_path: Path
) -> None:
    server, chance, count = Server(tmp_path), random.Random(1), 12
    out = tmp_path / "out"
    for _ in range(4):
        child, there = server.start(*command(patients, out, "--num-images", count)), made(out)
        limit = time.monotonic() + HANG
        while made(out) < there + 2 and child.process.is_alive():
            assert time.monotonic() < limit
            time.sleep(0.005)
        time.sleep(chance.uniform(0, 0.3))
        child.process.kill()
        child.wait()
    assert 0 < made(out) <= count
    for folder in (out, tmp_path / "whole"):
        assert server.run(*command(patients, folder, "--num-images", count)).code == 0
    assert files(out) == files(tmp_path / "whole")
    assert made(out) == count


@pytest.mark.row("G1")
def test_a_picture_that_a_kill_left_half_written_is_swept(
    medgen: Run, patients: Path, tmp_path: Path
) -> None:
    pictures = tmp_path / "out/pictures"
    pictures.mkdir(parents=True)
    (pictures / ".tmp-99-00000000-syn_00000.png").write_bytes(b"")
    assert medgen(*command(patients, tmp_path / "out", "--num-images", 1)).code == 0
    assert [path.name for path in pictures.iterdir()] == ["syn_00000.png"]


def test_what_was_inserted_is_read_as_slices_that_show_a_new_lesion(
    medgen: Run, patients: Path, tmp_path: Path
) -> None:
    assert medgen(*command(patients, tmp_path / "out", "--num-images", 2)).code == 0
    pairs = read_pairs(tmp_path / "out")
    new = [
        np.asarray(nib.load(path).dataobj) > 0
        for path in sorted((tmp_path / "out").glob("train/*/seg_new.nii.gz"))
    ]
    shown = sum(int(each.any((0, 1)).sum()) for each in new)
    assert (
        shown - 4 <= len(pairs) <= shown
    )  # the tip of a lesion may be lost on the grid of the slices
    assert pairs.channels == ("flair",)
    assert pairs.masks.any((1, 2)).all()
    assert len(pairs.persons) == 2
    assert {name.partition(",")[0] for name in pairs.names} == {"syn_00000", "syn_00001"}
    assert len(read_pairs(tmp_path / "out", 3)) == 3


def test_slices_of_one_host_are_of_one_person(medgen: Run, patients: Path, tmp_path: Path) -> None:
    hosts = tmp_path / "hosts"
    for name in ("P000", "P001"):
        shutil.copytree(patients / name, hosts / name)
    arguments = command(
        patients, tmp_path / "out", "--num-images", 4, "--donors", patients, hosts=hosts
    )
    assert medgen(*arguments).code == 0
    pairs = read_pairs(tmp_path / "out")
    assert len({name.partition(",")[0] for name in pairs.names}) == 4
    assert len(pairs.persons) == 2


def test_a_device_without_memory_for_a_crop_is_told_what_to_do(
    medgen: Run, patients: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def exhausted(self: Paste, *given: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(Paste, "paint", exhausted)
    monkeypatch.setattr(Paste, "grid", Grid.of_slices(24, 3.0, "axial"))
    arguments = command(patients, tmp_path / "out", "--num-images", 1)
    refused(medgen, arguments, 7, "--image-model: painting a crop of 24 x 24 px takes more memory")


def made(out: Path) -> int:
    return len(list((out / "train").glob("syn_*")))


@pytest.mark.row("G4")
def test_shards_and_processes_make_the_same_outputs(
    medgen: Run, patients: Path, tmp_path: Path
) -> None:
    assert medgen(*command(patients, tmp_path / "whole", "--num-images", 5)).code == 0
    for part in (2, 1):
        assert (
            medgen(
                *command(patients, tmp_path / "parts", "--num-images", 5, "--shard", f"{part}/2")
            ).code
            == 0
        )
    assert files(tmp_path / "parts") == files(tmp_path / "whole")


@pytest.mark.row("G5")
def test_other_settings_in_the_same_folder_are_refused(
    medgen: Run, patients: Path, tmp_path: Path
) -> None:
    assert medgen(*command(patients, tmp_path / "out", "--num-images", 1)).code == 0
    result = medgen(*command(patients, tmp_path / "out", "--num-images", 1, "--seed", 2))
    assert result.code == 4
    assert "seed: 0 -> 2" in result.err


@pytest.mark.row("G8")
def test_a_scan_that_was_replaced_meanwhile_is_refused(medgen: Run, tmp_path: Path) -> None:
    patients = write_heads(tmp_path / "patients", range(2))
    assert medgen(*command(patients, tmp_path / "out", "--num-images", 1)).code == 0
    whole = files(tmp_path / "out")
    path = patients / "P001/flair.nii.gz"
    values = np.asarray(nib.load(path).dataobj)
    nib.save(nib.Nifti1Image(values[::-1], AFFINE), path)
    result = medgen(*command(patients, tmp_path / "out", "--num-images", 2))
    assert result.code == 4
    assert "hosts: " in result.err
    assert files(tmp_path / "out") == whole


def test_patients_for_validation_are_no_hosts_and_that_is_told(
    medgen: Run, patients: Path, tmp_path: Path
) -> None:
    result = medgen(
        *command(patients, tmp_path / "out", "--num-images", 5, "data.val_fraction=0.4")
    )
    assert result.code == 0
    assert "2 of 5 patients are for validation" in result.err
    assert len({line["host"]["id"] for line in lines(tmp_path / "out")[1:]}) == 3


# Refused, each in one line


def refused(medgen: Run, arguments: list[str], code: int, *words: str) -> None:
    result = medgen(*arguments)
    told = [line for line in result.err.splitlines() if line.startswith("medgen:")]
    assert result.code == code, result.err
    assert len(told) == 1, result.err
    assert all(word in told[0] for word in words), told[0]


def test_hosts_without_masks_need_donors(medgen: Run, tmp_path: Path) -> None:
    hosts = write_heads(tmp_path / "hosts", range(2), masked=False)
    refused(medgen, command(hosts, tmp_path / "out", "--num-images", 1), 3, "--donors")


def test_donors_without_lesions_are_refused(medgen: Run, tmp_path: Path) -> None:
    hosts = write_heads(tmp_path / "hosts", range(2))
    donors = write_heads(tmp_path / "donors", range(10, 12))
    for path in donors.glob("*/seg.nii.gz"):
        nib.save(nib.Nifti1Image(np.zeros((48, 56, 32), np.uint8), AFFINE), path)
    arguments = command(hosts, tmp_path / "out", "--num-images", 1, "--donors", donors)
    refused(medgen, arguments, 3, "none of its 2 patients has a lesion")


def test_a_single_patient_has_nobody_to_be_given_lesions_of(medgen: Run, tmp_path: Path) -> None:
    hosts = write_heads(tmp_path / "hosts", range(1))
    refused(
        medgen,
        command(hosts, tmp_path / "out", "--num-images", 1),
        3,
        "no lesions but those of P000",
    )


def test_donors_of_other_images_are_refused(medgen: Run, patients: Path, tmp_path: Path) -> None:
    donors = write_heads(tmp_path / "donors", range(10, 12))
    for path in donors.glob("*/flair.nii.gz"):
        path.rename(path.with_name("t2.nii.gz"))
    arguments = command(patients, tmp_path / "out", "--num-images", 1, "--donors", donors)
    refused(medgen, arguments, 3, "have flair, the donors t2")


def test_number_and_only_exclude_each_other(medgen: Run, patients: Path, tmp_path: Path) -> None:
    refused(medgen, command(patients, tmp_path / "out"), 2, "--num-images, --only")


def test_a_host_in_which_nothing_fits_is_left_out_and_told_of(
    medgen: Run, patients: Path, tmp_path: Path
) -> None:
    hosts = write_heads(tmp_path / "hosts", range(20, 21))
    values = np.asarray(nib.load(hosts / "P020/flair.nii.gz").dataobj)
    nib.save(nib.Nifti1Image((values > 0).astype(np.uint8), AFFINE), hosts / "P020/seg.nii.gz")
    arguments = command(
        patients, tmp_path / "out", "--num-images", 1, "--donors", patients, hosts=hosts
    )
    refused(medgen, arguments, 12, "1 of 1 outputs", "(indices 0): 1 found no place")
    assert not (tmp_path / "out/train/syn_00000").exists()


def test_a_picture_shows_the_head_and_no_more_and_its_brightest_as_white() -> None:
    head, new = np.zeros((2, 60, 60, 6), bool)
    head[5:25, 30:50] = new[10:14, 36:40, 3] = True
    before = np.where(head, 0.3, 0.0)[None]
    case = SimpleNamespace(images=before, head=head)
    made = SimpleNamespace(case=case, images=before + 0.2 * new, new=new)
    strip = insertions_picture._strip(cast("Inserted", made), 2)
    side = insertions_picture.SIDE
    assert strip.shape == (side, 3 * side, 3)
    after = strip[:, side : 2 * side, 0]
    assert after.max() >= 250
    assert (after > 0).mean() > 0.4
