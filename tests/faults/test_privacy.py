"""What medgen writes tells nothing of who was scanned: all bytes of all files are searched."""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from data.cohort import write_cohort
from faults.scanning import find

PEOPLE = (
    "Kowalczyk",
    "MRN00471199",
    "1957-03-14",
    "Dr-Ferreira",
    "Ward7B",
    "Uppsalaclinic",
    "Halvorsen",
    "PID882201",
)
PLACE = "studyroot-Lindqvist"
Run = Callable[..., Any]


def plant(path: Path) -> None:
    """Canaries in every part of a header that takes text, and in an extension."""
    image = nib.load(path)
    header = image.header
    header["descrip"], header["aux_file"], header["intent_name"] = PEOPLE[0], PEOPLE[1], PEOPLE[2]
    header["db_name"] = PEOPLE[3]
    header.extensions.append(nib.nifti1.Nifti1Extension("comment", PEOPLE[4].encode()))
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj), image.affine, header), path)
    path.with_name(f"{PEOPLE[6]}.json").write_text(json.dumps({"PatientName": PEOPLE[5]}))


@pytest.fixture(scope="module")
def cohort_of_people(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Scans with canaries in their headers, file names, folders, side-cars, and in the path above them all."""
    root = tmp_path_factory.mktemp("data") / PLACE
    write_cohort(root)
    for number, folder in enumerate(sorted(root.iterdir())):
        for path in sorted(folder.glob("*.nii.gz")):
            plant(path)
            path.rename(path.with_name(f"{PEOPLE[6]}_{path.name}"))
        folder.rename(root / f"{PEOPLE[7]}-{number}")
    return root


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory, cohort_of_people: Path) -> Path:
    """Everything that training and generating from such scans leaves, what they print, and the cache."""
    import contextlib
    import io

    from conftest import TINY

    from medgen.cli.main import main

    root = tmp_path_factory.mktemp("written")
    files = [f"data.files.{name}=*_{name}.nii.gz" for name in ("bravo", "seg")]
    options = (
        f"data.root={cohort_of_people}",
        *files,
        *TINY,
        "training.steps=4",
        "training.epoch_steps=2",
    )
    models = (
        "--seg-model",
        f"{root}/seg/best.pt",
        "--image-model",
        f"{root}/bravo/latest.pt",
        "--max-area",
        "1",
    )
    more = ("callbacks.progress.every_steps=1", "callbacks.checkpoints.every_epochs=1")
    commands = [
        *(["train", f"{mode}_rflow", *options, *more, f"run.dir={root}/{mode}"] for mode in ("seg", "bravo")),
        ["train", "bravo_rflow", *options, "--dry-run"],
        ["generate", *models, "--num-images", "2", "--steps", "2", "--inside", "off",
         "--output-dir", f"{root}/from_model"],
        ["generate", *models[2:], "--seg-model", str(cohort_of_people), "--num-images", "2", "--steps", "2",
         "--inside", "off", "--output-dir", f"{root}/from_folder"],
    ]  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MEDGEN_CACHE", str(root / "cache"))
        patch.setattr("medgen.training.dry_run.MEASURED", 0.0)
        for number, words in enumerate(commands):
            printed = io.StringIO()
            hearing = (contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed))
            with hearing[0], hearing[1], pytest.raises(SystemExit) as ended:
                main(words)
            assert not ended.value.code, printed.getvalue()
            (root / f"printed_{number}.txt").write_text(printed.getvalue())
    return root


@pytest.mark.row("V1")
def test_the_canaries_are_where_they_were_planted(cohort_of_people: Path) -> None:
    found = "\n".join(find(cohort_of_people.parent, [word.encode() for word in (*PEOPLE, PLACE)]))
    assert all(word in found for word in (*PEOPLE, PLACE))


@pytest.mark.row("V1")
def test_no_file_tells_who_was_scanned(written: Path) -> None:
    kinds = {
        path.name if path.suffix in (".pt", ".json", ".toml", ".jsonl") else path.suffix
        for path in written.rglob("*")
    }
    assert {
        "latest.pt",
        "best.pt",
        "metadata.json",
        "metrics.jsonl",
        "manifest.jsonl",
        ".gz",
        ".png",
    } <= kinds
    assert any("tfevents" in path.name for path in written.rglob("*"))
    assert find(written, [word.encode() for word in PEOPLE]) == []


@pytest.mark.row("V1")
def test_no_file_but_the_recipe_in_the_runs_folder_tells_where_the_data_is(written: Path) -> None:
    told = find(written, [PLACE.encode()])
    assert {Path(each.split(": ")[0]).name for each in told} == {"recipe.toml"}


@pytest.mark.row("V1")
def test_generated_headers_are_fresh(written: Path) -> None:
    for path in written.glob("from_*/train/*/*.nii.gz"):
        data = gzip.decompress(path.read_bytes())
        header = nib.Nifti1Header(data[:348])
        texts = {
            name: header[name].item().decode()
            for name in ("descrip", "aux_file", "intent_name", "db_name")
        }
        assert texts == {"descrip": "synthetic", "aux_file": "", "intent_name": "", "db_name": ""}
        assert data[348:352] == bytes(4)  # no extensions
        assert path.read_bytes()[4:8] == bytes(4)  # no time


@pytest.mark.row("V1")
def test_what_is_searched_is_also_found_inside_of_other_files(tmp_path: Path) -> None:
    import torch

    word = PEOPLE[0].encode()
    torch.save({"a": torch.frombuffer(bytearray(word), dtype=torch.uint8)}, tmp_path / "a.pt")
    (tmp_path / "b.gz").write_bytes(gzip.compress(gzip.compress(word)))
    (tmp_path / "c.txt").write_text(word.hex())
    (tmp_path / "d.txt").write_bytes(base64.b64encode(b"x" + word + b"yz"))
    (tmp_path / f"e-{PEOPLE[0]}").touch()
    (tmp_path / "f.txt").touch()
    assert [Path(each.split(": ")[0]).name[0] for each in find(tmp_path, [word])] == list("abcde")


WORD = PEOPLE[0].encode()


@pytest.mark.parametrize(
    "data",
    [gzip.compress(WORD), gzip.compress(WORD * 500_000), gzip.compress(b"x") + gzip.compress(WORD),
     gzip.compress(WORD) + b"trailing", gzip.compress(WORD)[:-8], gzip.compress(gzip.compress(WORD)[:-8])],
    ids=["whole", "large", "second member", "more behind", "cut", "cut and packed"],
)  # fmt: skip
@pytest.mark.row("V1")
def test_a_word_in_a_gzip_file_is_found_also_in_a_part_of_one(data: bytes, tmp_path: Path) -> None:
    assert WORD not in data
    (tmp_path / "a").write_bytes(data)
    assert len(find(tmp_path, [WORD])) == 1


@pytest.mark.parametrize(
    "begins", [b"\x1f\x8b", b"\x1f\x8b\x08", b"\x1f\x8b\x08\0", b"PK", b"PK\x03\x04", b"\x89PNG"]
)
@pytest.mark.row("V1")
def test_numbers_that_begin_as_another_file_would_are_searched_as_they_are(
    begins: bytes, tmp_path: Path
) -> None:
    """Issue 10, point 0: one of 65,536 weights does, also as the first of a record in a checkpoint."""
    import torch

    chance = np.random.default_rng(0)
    for number in range(200):
        data = begins + chance.bytes(2000)
        (tmp_path / f"{number}.raw").write_bytes(data)
        (tmp_path / f"{number}.gz").write_bytes(gzip.compress(data + WORD))
    torch.save(
        {"a": torch.frombuffer(bytearray(begins + bytes(99)), dtype=torch.uint8)}, tmp_path / "a.pt"
    )
    assert len(find(tmp_path, [WORD])) == 200
    assert find(tmp_path, [PEOPLE[1].encode()]) == []
