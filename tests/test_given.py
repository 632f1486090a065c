"""Pairs of models that are given images besides masks, which a folder of patients brings.

Covers: medgen.generation.anatomy, medgen.generation.given.
"""

from __future__ import annotations

import json
from pathlib import Path

import models
import numpy as np
import pytest
import torch
from conftest import TINY
from data.cohort import write_cohort
from faults.variants import SMALL
from test_control import NoMasks

from medgen.errors import DataError, RecipeError
from medgen.evaluation.lesion_outside_head import worst_outside
from medgen.evaluation.pair_samples import read_pairs
from medgen.generation import control, generator, pair_writer
from medgen.generation.anatomy import Anatomy
from medgen.generation.masks import Masks
from medgen.generation.model import load_model

GIVEN = {
    "seg": ['mode.seg.numbers=["position"]'],
    "bravo": ['mode.bravo.condition=["t1_pre","seg"]', 'mode.bravo.numbers=["position"]'],
}


@pytest.fixture(scope="module")
def people(tmp_path_factory) -> Path:
    return write_cohort(
        tmp_path_factory.mktemp("people"), patients=5, channels=("bravo", "t1_pre", "seg")
    )


@pytest.fixture(scope="module")
def runs(tmp_path_factory, people) -> Path:
    """A folder with `seg`, and `bravo` given t1_pre and seg, after a few steps."""
    from medgen.cli.main import main

    folder = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MEDGEN_CACHE", str(folder / "cache"))
        for mode, given in GIVEN.items():
            length = ("training.steps=3", f"run.dir={folder / mode}")
            with pytest.raises(SystemExit) as ended:
                main(
                    [
                        "train",
                        f"{mode}_rflow",
                        f"data.root={people}",
                        *TINY,
                        *SMALL,
                        *given,
                        *length,
                    ]
                )
            assert not ended.value.code
    return folder


@pytest.fixture(scope="module")
def model(runs):
    return load_model(runs / "bravo/latest.pt")


def generate(medgen, runs, out, *more, anatomy=None, count=6):
    models = ("--seg-model", runs / "seg", "--image-model", runs / "bravo")
    limits = ("--max-area", 1, "--steps", 2, "--batch-size", 2, "--inside", "off", "--no-audit")
    number = () if "--only" in more else ("--num-images", count)
    where = () if anatomy is None else ("--anatomy", anatomy)
    return medgen("generate", *models, *number, *where, "--output-dir", out, *limits, *more)


def files(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted((folder / "train").rglob("*.nii.gz"))
    }


def entries(out):
    return [json.loads(line) for line in (out / "manifest.jsonl").read_text().splitlines()]


def test_pairs_name_their_anatomy_and_are_the_same_again(medgen, runs, people, tmp_path):
    assert not generate(medgen, runs, tmp_path / "a", anatomy=people).code
    header, *lines = entries(tmp_path / "a")
    assert len(header["anatomy"]) >= 16
    assert {line["anatomy"]["patient"] for line in lines} <= {
        each.name for each in people.iterdir()
    }
    assert len({json.dumps(line["anatomy"]) for line in lines}) > 1
    assert all(set(line["anatomy"]) == {"patient", "slice"} for line in lines)
    # nothing of it is written as an image of the pair
    assert {Path(name).name for name in files(tmp_path / "a")} == {"bravo.nii.gz", "seg.nii.gz"}
    assert not generate(medgen, runs, tmp_path / "b", anatomy=people, count=3).code
    assert not generate(medgen, runs, tmp_path / "b", anatomy=people).code  # it goes on
    assert files(tmp_path / "b") == files(tmp_path / "a")
    assert not generate(medgen, runs, tmp_path / "c", "--only", 4, anatomy=people).code
    assert files(tmp_path / "c") == {
        name: data for name, data in files(tmp_path / "a").items() if "syn_00004" in name
    }


def test_another_folder_is_refused_for_pairs_that_are_there(medgen, runs, people, tmp_path):
    other = write_cohort(tmp_path / "other", patients=2, channels=("t1_pre",), seed=9)
    assert not generate(medgen, runs, tmp_path / "a", anatomy=people, count=2).code
    assert "anatomy" in generate(medgen, runs, tmp_path / "a", anatomy=other, count=4).err


def test_a_slice_is_taken_at_the_position_of_the_pair(model, people):
    anatomy = Anatomy(people, model, seed=0)
    for index in range(20):
        row, _ = anatomy.drawn(index, {"position": 0.3}, 1)
        mine = anatomy.store.patient == anatomy.store.patient[row]
        apart = np.abs(anatomy._position[mine] - 0.3)
        assert abs(anatomy._position[row] - 0.3) == apart.min()
    assert len({anatomy.drawn(index, {}, 1)[0] for index in range(20)}) > 5
    assert anatomy.drawn(3, {}, 1) == anatomy.drawn(3, {}, 1)
    assert len({anatomy.drawn(3, {}, attempt)[0] for attempt in range(1, 9)}) > 1


def disc(model, *centre):
    places = np.indices(model.grid.shape) - np.reshape(centre, (2, 1, 1))
    return np.hypot(*places) <= 1.5


def test_the_anatomy_is_of_a_patient_in_whom_the_lesion_lies(model, people):
    """A mask of one head may lie beside another, and its image would be refused after it was drawn."""
    anatomy = Anatomy(people, model, seed=0)
    shown = anatomy.store.read(np.arange(len(anatomy.store.patient)), anatomy.names)[:, 0] > -0.9
    place = np.argwhere(shown.any(0) & ~shown.all(0))  # in the head of some slices alone
    held = []
    for index, centre in enumerate(place[:: len(place) // 30 + 1]):
        lesion = disc(model, *centre)
        row, holds = anatomy.drawn(index, {}, 1, lesion)
        rows = [anatomy.drawn(index, {}, attempt)[0] for attempt in range(40)]
        beyond = [
            worst_outside(anatomy.store.read(np.array([each]), anatomy.names)[0], lesion)
            for each in rows
        ]
        assert holds == (
            worst_outside(anatomy.store.read(np.array([row]), anatomy.names)[0], lesion) <= 0.02
        )
        held.append((holds, min(beyond) <= 0.02, beyond[1] <= 0.02))
    found, possible, first = np.mean(held, axis=0)
    assert first < found <= possible
    assert anatomy.drawn(0, {}, 1, disc(model, 0, 0))[1] is False


def test_no_image_is_drawn_for_a_mask_that_no_anatomy_holds(runs, model, people, monkeypatch):
    seg = load_model(runs / "seg/latest.pt")
    corner, middle = (torch.from_numpy(disc(model, *at)) for at in [(0, 0), (8, 8)])
    models.draw(monkeypatch, corner, middle)
    images = []
    drawn = generator.draw_samples
    monkeypatch.setattr(
        generator, "draw_samples", lambda *given: images.append(len(given[1])) or drawn(*given)
    )
    masks = pair_writer.ModelMasks(seg, 0, 2, 1.0, 5, model)
    make = pair_writer.Generator(model, masks, 0, 2, 3, inside=5, anatomy=Anatomy(people, model, 0))
    for pair in make.block(0):
        assert pair.faults == ["outside_anatomy", ""]
        assert (pair.channels["seg"] > 0).any()
        assert (pair.channels["seg"] > 0).tolist() == middle.tolist()
        assert not pair.drawn_again
    assert images == [3]
    assert make.identity()["anatomy_tries"] == 16
    free = pair_writer.Generator(model, masks, 0, 2, 3, inside=0, anatomy=make.anatomy)
    assert "anatomy_tries" not in free.identity()
    assert [pair.faults for pair in free.block(0)] == [[""]] * 3


def test_masks_of_a_folder_that_no_anatomy_holds_stay_what_they_are(model, people):
    class Corner(NoMasks):
        names = ("seg",)

        def block(self, indices):
            values = torch.from_numpy(disc(model, 0, 0)) * 2.0 - 1
            return Masks(values.expand(len(indices), 1, -1, -1).clone(), [[""] for _ in indices])

        def again(self, index, attempt):
            return self.block([index])

    make = pair_writer.Generator(
        model, Corner(model.grid), 0, 2, 2, inside=4, anatomy=Anatomy(people, model, 0)
    )
    for pair in make.block(0):
        assert pair.faults == ["outside_anatomy"] * 3 + [""]
        assert make.settled(pair).faults == ["outside_anatomy"] * 3 + ["outside_head"]


def test_channels_come_in_the_order_of_the_mode(model, people):
    anatomy = Anatomy(people, model, seed=0)
    masks = torch.ones(2, 1, *model.grid.shape)
    given = anatomy.joined([0, 1], masks, ("seg",))
    assert model.parts.mode.condition == ("t1_pre", "seg")
    assert (given[:, 1] == 1).all()
    stored = anatomy.store.read(np.array([0, 1]), ["t1_pre"])[:, 0]
    assert (given[:, 0].numpy() == stored).all()


def test_what_is_missing_or_too_much_is_said_in_a_line(medgen, runs, people, trained, tmp_path):
    done = generate(medgen, runs, tmp_path / "a")
    assert done.code
    assert "--anatomy: the image model makes bravo given t1_pre" in done.err
    models = ("--seg-model", trained / "seg", "--image-model", trained / "bravo")
    count = ("--num-images", 2, "--output-dir", tmp_path / "b")
    done = medgen("generate", *models, *count, "--anatomy", people)
    assert done.code
    assert "--anatomy: is given, but the image model makes bravo given no image" in done.err
    done = medgen("generate", *models[:2], *count, "--anatomy", people)
    assert done.code
    assert "--anatomy: is given, but no image model is" in done.err


def test_a_folder_without_the_image_is_refused(model, tmp_path):
    other = write_cohort(tmp_path, patients=2, channels=("flair",))
    with pytest.raises(DataError, match=r"t1_pre.*`medgen data tissue` makes"):
        Anatomy(other, model, seed=0)


def test_the_control_of_obedience_has_the_same_anatomy(medgen, runs, people, model, tmp_path):
    assert not generate(medgen, runs, tmp_path / "a", anatomy=people, count=4).code
    found = control.without_mask(read_pairs(tmp_path / "a"), tmp_path / "a", model, 4, people)
    anatomy = Anatomy(people, model, seed=0)
    lines = entries(tmp_path / "a")[1:]
    rows = [anatomy.drawn(line["index"], line["numbers"], 1)[0] for line in lines]
    assert [anatomy.named(row) for row in rows] == [line["anatomy"] for line in lines]
    assert [anatomy.row(line["anatomy"]) for line in lines] == rows
    make = pair_writer.Generator(
        model, NoMasks(model.grid), seed=0, steps=2, batch_size=2, anatomy=anatomy
    )
    assert make.identity()["anatomy"] == entries(tmp_path / "a")[0]["anatomy"]
    assert found.images.shape[0] == 4
    other = write_cohort(tmp_path / "other", patients=2, channels=("t1_pre",), seed=9)
    with pytest.raises(RecipeError, match="is not the folder that the pairs were made with"):
        control.without_mask(read_pairs(tmp_path / "a"), tmp_path / "a", model, 4, other)
