"""Outputs of `medgen insert` are of their hosts' persons, and no head and no lesion is on both sides of a split.

Covers: medgen.data.scans.layouts.insertions, medgen.data.scans.manifest_lines.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from medgen.api.tables import DataSettings
from medgen.data.scans import layouts
from medgen.errors import DataError

LINKS = [("P1", "P2"), ("P1", "P2"), ("P2", "P1"), ("P3", "P4"), ("P4", "P3"), ("P5",), ("P6",)]
"""Host and donors of outputs: two pairs of persons, and two persons alone, with masks of nobody."""


def write_outputs(root: Path, links: Sequence[Sequence[str]] = LINKS, split: str = "train") -> Path:
    """Write a manifest, and folders with files that are empty, as nothing here reads them."""
    rows: list[dict[str, object]] = [{"insert": True, "shareable": False}]
    for index, (host, *donors) in enumerate(links):
        id, names = f"syn_{index:05d}", ("flair", "seg", "seg_new")
        folder = root / split / id
        folder.mkdir(parents=True)
        for name in names:
            (folder / f"{name}.nii.gz").write_bytes(b"")
        inserted = [{"donor": f"{each}_2021", "person": each} for each in donors or [""]]
        whose = {"id": f"{host}_2020", "person": host}
        row = {"index": index, "id": id, "host": whose, "inserted": inserted}
        rows.append(row | {"files": dict.fromkeys(names, "0" * 64)})
    (root / "manifest.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return root


def surveyed(root: Path, **more: object) -> layouts.Survey:
    data = DataSettings(root=root, **more)  # type: ignore[arg-type]
    return layouts.survey(data, ["flair", "seg"])


@pytest.mark.parametrize("below", ["", "train"])
@pytest.mark.parametrize("person", ["", "P[0-9]+"])
def test_outputs_of_one_host_are_of_one_person(tmp_path: Path, below: str, person: str) -> None:
    found = surveyed(write_outputs(tmp_path) / below, person=person)
    assert [each.person for each in found.patients] == [host for host, *_ in LINKS]
    assert not any("finds nothing" in str(each) for each in found.left_out)


@pytest.mark.parametrize("fraction", [0.1, 0.2, 0.34, 0.5, 0.9])
def test_no_head_and_no_lesion_is_on_both_sides_of_a_split(tmp_path: Path, fraction: float) -> None:
    found = surveyed(write_outputs(tmp_path), val_fraction=fraction)
    sides = {
        split: {
            person
            for each, shown in zip(found.patients, LINKS, strict=True)
            if each.split == split
            for person in shown
        }
        for split in layouts.SPLITS
    }
    assert sides["train"]
    assert sides["val"]
    assert not sides["train"] & sides["val"]
    hosts = {each.person for each in found.patients if each.split == "val"}
    assert len(hosts) <= max(1, round(fraction * 6))


def test_where_lesions_connect_all_heads_nobody_is_for_validation_and_that_is_told(
    tmp_path: Path,
) -> None:
    found = surveyed(write_outputs(tmp_path, [("P1", "P2"), ("P2", "P3"), ("P3", "P1")]))
    assert {each.split for each in found.patients} == {"train"}
    assert "so all 3 scans of 3 heads are to train on" in str(found.left_out[-1])


def test_a_lesion_in_train_of_a_person_in_val_is_a_fault(tmp_path: Path) -> None:
    root = write_outputs(tmp_path, [("P1", "P2"), ("P3", "P4")])
    (root / "val").mkdir()
    (root / "train/syn_00001").rename(root / "val/syn_00001")
    assert surveyed(root).faults == []
    manifest = root / "manifest.jsonl"
    manifest.write_text(manifest.read_text().replace('"person": "P4"', '"person": "P1"'))
    (fault,) = surveyed(root).faults
    assert "P1 is in train (syn_00000) and val (syn_00001)" in str(fault)


def test_the_mask_of_new_lesions_is_known_in_outputs_and_odd_elsewhere(tmp_path: Path) -> None:
    root = write_outputs(tmp_path)
    assert surveyed(root).unread == []
    (root / "manifest.jsonl").unlink()
    assert {each.where.name for each in surveyed(root).unread} == {"seg_new.nii.gz"}  # type: ignore[attr-defined]


def test_who_is_shown_is_host_and_donors(tmp_path: Path) -> None:
    assert layouts.shown_persons(write_outputs(tmp_path)) == {f"P{n}" for n in range(1, 7)}


@pytest.mark.parametrize("first", ['{"seed": 0}', "no json", "", "[1]", '{"insert": false}'])
def test_a_manifest_of_others_changes_nothing(tmp_path: Path, first: str) -> None:
    root = write_outputs(tmp_path)
    (root / "manifest.jsonl").write_text(first + "\n" + "x\n")
    assert [each.person for each in surveyed(root).patients] == [
        f"syn_{n:05d}" for n in range(len(LINKS))
    ]
    assert layouts.shown_persons(root) == set()


def test_a_damaged_manifest_is_refused(tmp_path: Path) -> None:
    root = write_outputs(tmp_path)
    with open(root / "manifest.jsonl", "a") as file:
        file.write("x\n")
    with pytest.raises(DataError, match=r"manifest.jsonl:9: is no line that medgen wrote"):
        surveyed(root)
