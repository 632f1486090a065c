"""A model that makes images with their masks gives pairs as two models do; see `medgen.generation.masks.JointMasks`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import TINY
from data.cohort import write_cohort
from faults.variants import SMALL
from test_generate import files

from medgen.config.recipe import load
from medgen.data.store.nifti_writer import read_slice
from medgen.evaluation import obedience
from medgen.generation import auto_steps, pair_writer
from medgen.generation.masks import JointMasks

Run = Callable[..., Any]
STEPS, BATCH = 3, 2
DRAWN = ("--max-area", 1, "--inside", "off", "--no-audit", "--batch-size", BATCH)


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Enough made-up patients for a card."""
    return write_cohort(tmp_path_factory.mktemp("people"), patients=8, channels=("bravo", "seg"))


@pytest.fixture(scope="module")
def run(people: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a joint model after a few steps, given numbers, measured in validation and shown."""
    from medgen.cli.main import main

    folder = tmp_path_factory.mktemp("joint")
    shown = ("callbacks.previews.count=2", "callbacks.previews.steps=2", "data.val_fraction=0.3")
    measured = ("callbacks.evaluation.every=1", "callbacks.evaluation.count=8")
    length = ("training.steps=4", "training.epoch_steps=2", "callbacks.evaluation.steps=2")
    small = (*TINY, *SMALL[:2], "callbacks.tensorboard=false", f"data.root={people}")
    known = ('mode.images.numbers=["position","lesion_size"]', f"run.dir={folder}/run")
    given = ("train", "joint_rflow", *small, *shown, *measured, *length, *known)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MEDGEN_CACHE", str(folder / "cache"))
        patch.setattr(obedience, "STEPS", 4)
        with pytest.raises(SystemExit) as ended:
            main([*given])
    assert not ended.value.code
    return folder / "run"


@pytest.fixture(scope="module")
def model(run: Path) -> pair_writer.Model:
    return pair_writer.load_model(run / "latest.pt")


def generate(medgen: Run, run: Path, out: Path, *more: object, count: int | None = 5) -> Any:
    number = ("--num-images", count) if count else ()
    options = (*number, "--output-dir", out, "--steps", STEPS, *DRAWN)
    return medgen("generate", "--image-model", run, *options, *more)


def entries(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "manifest.jsonl").read_text().splitlines()]


def maker(model: pair_writer.Model, masks: JointMasks, inside: int = 0) -> pair_writer.Generator:
    return pair_writer.Generator(model, masks, 0, STEPS, BATCH, inside)


# Trained


def test_validation_knows_its_lesions_and_shows_them(run):
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    (first, *_) = [line for line in lines if "loss/val" in line]
    wanted = {"mse/lesion", "mse/outside", "psnr/x0", "kid", "obedience", "obedience/real"}
    assert wanted <= first.keys()
    assert len(list((run / "previews").glob("samples_*.png"))) == 2


def test_masks_are_trained_on_at_minus_1_and_1_like_those_of_a_mask_model(run, people, tmp_path):
    from medgen.run.assemble import assemble

    found = assemble(load(run / "recipe.toml", (f"data.root={people}",)), tmp_path)
    batch = found.train.at(0, 8)
    assert batch.image.shape[:2] == (8, 2)
    assert batch.condition.shape[1] == 0
    assert sorted(set(batch.image[:, 1].flatten().tolist())) == [-1, 1]
    assert (batch.image[:, 1] > 0).flatten(1).any(1).all()  # an empty mask is no pair


@pytest.mark.parametrize("name", ["joint_rflow", "demo_joint"])
def test_the_recipes_make_an_image_with_its_mask_from_nothing(name):
    mode = load(name).mode.build()
    assert (mode.images, mode.condition) == (("bravo", "seg"), ())


# Pairs


def test_a_pair_is_an_image_and_the_mask_that_was_drawn_with_it(run, model, medgen, tmp_path):
    result = generate(medgen, run, tmp_path)
    assert result.code == 0, result.err
    drawn = JointMasks(model, 0, STEPS, 1.0, 1).block(range(BATCH))
    for number in range(BATCH):
        folder = tmp_path / "train" / f"syn_{number:05d}"
        assert sorted(path.name for path in folder.iterdir()) == ["bravo.nii.gz", "seg.nii.gz"]
        mask = read_slice(folder / "seg.nii.gz", is_mask=True)
        assert (mask == np.where(drawn.images[number, 1] > 0, 1, -1)).all()
        image = read_slice(folder / "bravo.nii.gz")
        assert np.abs(image - drawn.images[number, 0].numpy()).max() < 2e-3
    assert (tmp_path / "pairs.png").exists()


def test_the_manifest_says_what_decides_a_pair_and_what_its_lesions_are(run, medgen, tmp_path):
    assert generate(medgen, run, tmp_path).code == 0
    header, *lines = entries(tmp_path)
    assert "seg_model" not in header
    assert (header["max_area"], header["max_attempts"], header["seed"]) == (1.0, 10, 0)
    assert [set(line["files"]) for line in lines] == [{"bravo", "seg"}] * 5
    assert all(line["lesions"]["count"] > 0 and "outside" in line["lesions"] for line in lines)


def test_a_line_has_the_numbers_that_image_and_mask_were_given_together(
    run, model, medgen, tmp_path
):
    result = generate(medgen, run, tmp_path, "--position", "0.4..0.6")
    assert result.code == 0, result.err
    header, *lines = entries(tmp_path)
    assert header["position"] == [0.4, 0.6]
    masks = JointMasks(model, 0, STEPS, 1.0, 1, (0.4, 0.6))
    drawn = [number for block in range(3) for number in masks.block(pair_of(block)).numbers]
    assert [line["numbers"] for line in lines] == drawn[:5]
    assert all(0.4 <= line["numbers"]["position"] <= 0.6 for line in lines)


def pair_of(block: int) -> range:
    return range(block * BATCH, (block + 1) * BATCH)


def test_a_pair_is_the_same_alone_in_shards_and_after_others(run, medgen, tmp_path):
    assert generate(medgen, run, tmp_path / "whole").code == 0
    for part in ("1/2", "2/2"):
        assert generate(medgen, run, tmp_path / "parts", "--shard", part).code == 0
    for count in (2, 5):
        assert generate(medgen, run, tmp_path / "grown", count=count).code == 0
    assert generate(medgen, run, tmp_path / "alone", "--only", 3, count=None).code == 0
    whole = files(tmp_path / "whole")
    assert files(tmp_path / "parts") == files(tmp_path / "grown") == whole
    alone = {f"train/{name}": each for name, each in files(tmp_path / "alone/train").items()}
    assert len(alone) == 2
    assert alone.items() <= whole.items()


def test_an_invalid_mask_is_drawn_again_with_its_image_and_no_other_pair_changes(model):
    plain = JointMasks(model, 0, STEPS, 1.0, 1).block(range(4))

    class Picky(JointMasks):
        def fault(self, mask: torch.Tensor) -> str:
            return "empty" if torch.equal(mask, plain.values[1]) else ""

    picky = Picky(model, 0, STEPS, 1.0, 4)
    again = picky.block(range(4))
    assert again.faults == [[""], ["empty", ""], [""], [""]]
    others = [0, 2, 3]
    assert torch.equal(again.images[others], plain.images[others])
    assert not torch.equal(again.images[1], plain.images[1])
    assert torch.equal(again.images[1, 1] > 0, again.values[1, 0] > 0)


def test_masks_that_are_too_large_or_empty_are_left_out_and_counted(run, medgen, tmp_path):
    result = generate(medgen, run, tmp_path, "--max-area", 0, "--max-attempts", 2)
    assert (result.code, "5 of 5 masks were invalid 2 times" in result.err) == (12, True)
    assert all(line["failed"] for line in entries(tmp_path)[1:])


def test_a_lesion_outside_its_head_is_drawn_again_with_the_head(model, monkeypatch):
    make = maker(model, JointMasks(model, 0, STEPS, 1.0, 4), inside=4)
    (first, second) = make.block(0)
    judged = iter([1.0, 1.0, 0.0])
    monkeypatch.setattr(pair_writer.Generator, "outside", lambda *_: next(judged))
    settled = make.settled(second)
    assert settled.faults == ["outside_head", "outside_head", ""]
    assert settled.drawn_again == 2
    third = JointMasks(model, 0, STEPS, 1.0, 4).again(second.number, 3)
    assert (settled.channels["seg"] == third.values[0, 0].numpy()).all()
    assert (settled.channels["bravo"] == third.images[0, 0].numpy()).all()
    assert (first.channels["bravo"] != settled.channels["bravo"]).any()


def test_the_fewest_steps_are_found_by_heads_and_lesions(
    run, people, medgen, tmp_path, monkeypatch
):
    monkeypatch.setattr(auto_steps, "SAMPLE", 16)
    monkeypatch.setattr(auto_steps, "CANDIDATES", (2,))
    result = generate(medgen, run, tmp_path, "--steps", "auto", "--audit-against", people)
    assert result.code == 0, result.err
    tried = entries(tmp_path)[0]["steps_auto"]["tried"]
    assert [row["steps"] for row in tried] == [2, 25]
    assert all("lesion size, distance" in row for row in tried)


def test_pairs_are_a_dataset_to_audit_and_to_train_on(run, people, medgen, tmp_path):
    assert generate(medgen, run, tmp_path).code == 0
    result = medgen("audit", tmp_path, "--against", people, "--limit", 1)
    assert result.code == 0, result.err
    assert all("nearest" in line for line in entries(tmp_path)[1:])
    short = ("training.steps=1", "data.val_fraction=0", "callbacks.previews=false")
    given = (f"data.root={tmp_path}", *TINY, *short, f"run.dir={tmp_path}/run")
    assert medgen("train", "bravo_rflow", *given).code == 0


# Refused


def test_masks_from_elsewhere_are_refused_in_one_line(run, trained, people, medgen, tmp_path):
    for masks in (trained / "seg", people):
        result = generate(medgen, run, tmp_path / "out", "--seg-model", masks)
        assert (result.code, len(result.err.splitlines())) == (2, 1), result.err
        assert "makes bravo, seg given nothing, so that masks (--seg-model)" in result.err
        assert "Leave --seg-model out" in result.err
    assert not (tmp_path / "out").exists()


def test_a_joint_model_is_no_mask_model(run, trained, medgen, tmp_path):
    for image in ((), ("--image-model", trained / "bravo")):
        result = medgen(
            "generate", "--seg-model", run, *image, "--num-images", 1, "--output-dir", tmp_path
        )
        assert (result.code, len(result.err.splitlines())) == (2, 1), result.err
        assert "--seg-model: makes bravo, seg, of which bravo is no mask" in result.err


def test_a_card_has_no_control_without_a_mask_where_none_was_given(run, medgen, tmp_path):
    from medgen.cli._evaluate import _with_control
    from medgen.evaluation.comparison import Comparison
    from medgen.evaluation.pair_samples import read_pairs

    assert generate(medgen, run, tmp_path).code == 0
    made = read_pairs(tmp_path)
    comparison = Comparison(made, made, ())
    found = _with_control(comparison, tmp_path, run / "latest.pt", 4)
    assert found.without_mask is None
    assert found.control == "not made, as the model that made the pairs is given no mask"
