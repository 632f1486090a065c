"""Pairs of models that are given numbers: drawn as they lie together in training, told, and the same again.

Covers: medgen.generation.numbers.
"""

from __future__ import annotations

import json

import attrs
import numpy as np
import pytest
import torch
from conftest import TINY
from faults.variants import SMALL
from test_control import NoMasks

from medgen import seeds
from medgen.errors import CheckpointError, RecipeError
from medgen.evaluation.pair_samples import read_pairs
from medgen.generation import control, numbers, pair_writer
from medgen.generation.model import draw_samples
from medgen.generation.numbers import Table
from medgen.run import checkpoint

ROWS = {
    "lesion_size": np.array([0.0, 10.0, 20.0, 400.0]),
    "position": np.array([0.1, 0.4, 0.5, 0.9]),
}
GIVEN = {"seg": '["position", "lesion_size"]', "bravo": '["position", "spacing", "lesion_size"]'}


@pytest.fixture(scope="module")
def trained(tmp_path_factory, cohort):
    """A folder with `seg` and `bravo`: models that are given numbers, after a few steps."""
    from medgen.cli.main import main

    folder = tmp_path_factory.mktemp("numbers")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MEDGEN_CACHE", str(folder / "cache"))
        for mode, given in GIVEN.items():
            options = (f"data.root={cohort}", *TINY, *SMALL, f"mode.{mode}.numbers={given}")
            length = ("training.steps=3", f"run.dir={folder / mode}")
            with pytest.raises(SystemExit) as ended:
                main(["train", f"{mode}_rflow", *options, *length])
            assert not ended.value.code
    return folder


def arguments(trained, out, *more, count=5):
    models = ("--seg-model", trained / "seg", "--image-model", trained / "bravo")
    limits = ("--max-area", 1, "--steps", 2, "--batch-size", 2, "--inside", "off", "--no-audit")
    chosen = () if "--only" in more else ("--num-images", count)
    return ("generate", *models, *chosen, "--output-dir", out, *limits, *more)


def files(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted((folder / "train").rglob("*.nii.gz"))
    }


def lines(out):
    return [json.loads(line) for line in (out / "manifest.jsonl").read_text().splitlines()][1:]


@pytest.fixture(scope="module")
def made(trained, tmp_path_factory):
    from medgen.cli.main import main

    out = tmp_path_factory.mktemp("made")
    with pytest.raises(SystemExit) as ended:
        main([str(each) for each in arguments(trained, out)])
    assert not ended.value.code
    return out


# What a checkpoint keeps


def test_a_checkpoint_keeps_the_numbers_of_its_training_slices_and_no_other_has_the_key(trained):
    data = checkpoint.load(trained / "bravo/latest.pt")["data"]
    assert sorted(data["numbers"]) == ["lesion_size", "position", "spacing"]
    assert {len(each) for each in data["numbers"].values()} == {data["samples"]["train"]}
    table = pair_writer.load_model(trained / "bravo/latest.pt").numbers
    assert table.names == ("position", "spacing", "lesion_size")
    assert 0 <= table.positions[0] < table.positions[1] <= 1


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data.pop("numbers"),
        lambda data: data["numbers"].pop("position"),
        lambda data: data["numbers"].update(position=torch.zeros(2)),
        lambda data: data["numbers"].update(spacing=data["numbers"]["spacing"] * 0),
        lambda data: data.update(numbers="none"),
    ],
)
def test_a_checkpoint_without_them_is_refused(trained, tmp_path, damage):
    state = checkpoint.load(trained / "bravo/latest.pt")
    damage(state["data"])
    state.pop("format")
    checkpoint.save(state, tmp_path / "bad.pt")
    with pytest.raises(CheckpointError, match=r"bad\.pt: the numbers of its training slices"):
        pair_writer.load_model(tmp_path / "bad.pt")


# What is drawn


def test_a_row_near_what_is_known_is_drawn_and_what_is_known_stays():
    table = Table(("position",), {name: np.repeat(each, 16) for name, each in ROWS.items()})
    drawn = [numbers.of_image(table, {"lesion_size": 12.0}, 0, index, 1) for index in range(20)]
    assert drawn == [{"position": 0.4}] * 20
    both = numbers.of_image(table, {"lesion_size": 12.0, "position": 0.45}, 0, 0, 1)
    assert both == {"position": 0.45}


def test_without_a_mask_every_training_slice_may_be_drawn():
    table = Table(("position",), ROWS)
    drawn = {numbers.of_image(table, {}, 0, index, 1)["position"] for index in range(50)}
    assert drawn == set(ROWS["position"])
    again = [numbers.of_image(table, {}, 0, 7, 1) for _ in range(2)]
    assert again[0] == again[1]


def test_positions_outside_of_training_are_refused():
    table = Table(("position",), ROWS)
    assert numbers.restricted(table, "--seg-model", (0.3, 1.0), (0.0, 0.6)).positions == (0.4, 0.5)
    with pytest.raises(RecipeError, match=r"^--seg-model: was trained on slices at 0\.1\.\.0\.9"):
        numbers.restricted(table, "--seg-model", (0.6, 0.8))


def test_a_mask_is_measured_in_mm2_of_all_its_channels():
    mask = torch.full((2, 4, 4), -1.0)
    mask[0, :2, :2], mask[1, 3, 3] = 1.0, 1.0
    assert numbers.lesion_size(mask, 2.25) == 11.25


# Pairs


def test_every_line_has_the_numbers_and_the_image_that_of_its_mask(trained, made):
    rows = lines(made)
    tables = [pair_writer.load_model(trained / mode / "latest.pt").numbers for mode in GIVEN]
    asked = [(row["numbers"]["position"], row["numbers"]["lesion_size"]) for row in rows]
    drawn = {*zip(tables[0].values["position"], tables[0].values["lesion_size"], strict=True)}
    assert {*asked} <= drawn
    assert len({*asked}) > 1
    assert {row["numbers"]["spacing"] for row in rows} <= {*tables[1].values["spacing"]}


def test_a_folder_says_how_masks_of_a_given_size_were_cut(trained, made):
    """So that a folder from before they were is not gone on with."""
    header = json.loads((made / "manifest.jsonl").read_text().splitlines()[0])
    assert header["mask_cut"] == "lesion_size, above -0.7, blur 1.0"


def test_the_image_is_what_the_model_makes_of_the_numbers_in_its_line(trained):
    seg, bravo = (pair_writer.load_model(trained / mode / "latest.pt") for mode in GIVEN)
    masks = pair_writer.ModelMasks(seg, 0, 2, 1.0, 1, bravo)
    made = [*pair_writer.Generator(bravo, masks, seed=0, steps=2, batch_size=3).block(0)]
    values = masks.block(range(3)).values
    size = [numbers.lesion_size(each, bravo.grid.cell) for each in values]
    given = [{**pair.numbers, "lesion_size": each} for pair, each in zip(made, size, strict=True)]
    other = [{**each, "position": 1 - each["position"]} for each in given]
    images = np.stack([pair.channels["bravo"] for pair in made])
    assert (draw(bravo, values, given) == images).all()
    assert (draw(bravo, values, other) != images).any((1, 2)).all()


def draw(model, condition, given):
    generators = [seeds.stream(0, "image", index, 1) for index in range(len(given))]
    return draw_samples(model, condition, generators, 2, given)[:, 0].numpy()


def test_a_pair_that_is_drawn_again_has_numbers_of_its_own(trained, monkeypatch):
    seg, bravo = (pair_writer.load_model(trained / mode / "latest.pt") for mode in GIVEN)
    masks = pair_writer.ModelMasks(seg, 0, 2, 1.0, 4, bravo)
    make = pair_writer.Generator(bravo, masks, seed=0, steps=2, batch_size=2, inside=4)
    shares = iter([1.0, 1.0, 0.0])
    monkeypatch.setattr(make, "outside", lambda channels: next(shares))
    first = next(make.block(0))
    pair = make.settled(first)
    assert (pair.drawn_again, len(pair.faults)) == (2, 3)
    drawn = masks.again(0, 3)
    assert pair.numbers == {**pair.numbers, **drawn.numbers[0]}
    assert torch.equal(drawn.values[0, 0], torch.from_numpy(pair.channels["seg"]))


def test_the_control_without_masks_is_given_the_same_numbers_but_no_lesion(
    trained, made, monkeypatch
):
    given = []

    def drawn(model, condition, generators, steps, numbers, guidance):
        given.extend(numbers)
        return torch.zeros(len(condition), 1, 16, 16)

    monkeypatch.setattr(control, "draw_samples", drawn)
    model = pair_writer.load_model(trained / "bravo/latest.pt")
    control.without_mask(read_pairs(made), made, model, most=5)
    assert given == [row["numbers"] | {"lesion_size": 0.0} for row in lines(made)]


def test_masks_of_a_folder_get_positions_of_slices_with_such_lesions(
    trained, cohort, medgen, tmp_path
):
    models = ("--seg-model", cohort, "--image-model", trained / "bravo")
    limits = ("--steps", 2, "--inside", "off", "--no-audit", "--num-images", 3)
    assert medgen("generate", *models, *limits, "--output-dir", tmp_path / "out").code == 0
    model = pair_writer.load_model(trained / "bravo/latest.pt")
    sizes = model.numbers.values["lesion_size"]
    for row in lines(tmp_path / "out"):
        size, place = row["lesions"]["mm2"], row["numbers"]["position"]
        apart = np.abs(np.log1p(sizes) - np.log1p(size))
        assert place in model.numbers.values["position"][np.argsort(apart)[: numbers.NEAR]]


def test_the_same_pairs_by_name_by_shard_and_gone_on_with(trained, medgen, made, tmp_path):
    wanted = files(made)
    assert medgen(*arguments(trained, tmp_path / "one", "--only", 3)).code == 0
    assert files(tmp_path / "one").items() <= wanted.items()
    for shard in ("2/3", "1/3", "3/3"):
        assert medgen(*arguments(trained, tmp_path / "shards", "--shard", shard)).code == 0
    assert medgen(*arguments(trained, tmp_path / "grown", count=3)).code == 0
    assert medgen(*arguments(trained, tmp_path / "grown")).code == 0
    for name in ("shards", "grown"):
        assert files(tmp_path / name) == wanted
        assert lines(tmp_path / name) == lines(made)


def test_positions_that_are_asked_for_are_those_of_the_pairs(trained, medgen, tmp_path):
    given = arguments(trained, tmp_path / "out", "--position", "0.4..0.6")
    result = medgen(*given)
    assert result.code == 0, result.err
    found = [row["numbers"]["position"] for row in lines(tmp_path / "out")]
    assert all(0.4 <= each <= 0.6 for each in found)
    other = medgen(*arguments(trained, tmp_path / "out"))
    assert (other.code, "position: [0.4, 0.6] -> None" in other.err) == (4, True)


def test_positions_are_refused_where_no_model_is_given_one(trained):
    plain = pair_writer.load_model(trained / "bravo/latest.pt")._replace(numbers=None)
    with pytest.raises(RecipeError, match=r"--position: is given, but no model here is given"):
        pair_writer.Generator(plain, NoMasks(plain.grid), 0, 2, 4, within=(0.3, 0.6))


@pytest.mark.parametrize("value", ["0.5", "0.6..0.3", "0..1.5", "-1..1", "a..b"])
def test_what_is_no_range_of_positions_is_a_mistake(medgen, tmp_path, value):
    result = medgen("generate", "--output-dir", tmp_path, f"--position={value}")
    assert result.code == 2
    assert "is no range within 0..1, such as 0.3..0.6" in result.err
    assert len(result.err.splitlines()) == 1


# Guidance by the mask, of such pairs


def test_guidance_changes_images_alone_and_stands_in_the_manifest(trained, made, medgen, tmp_path):
    out = {weight: tmp_path / str(weight) for weight in (0, 2)}
    for weight, folder in out.items():
        assert medgen(*arguments(trained, folder, "--guidance", weight)).code == 0
    plain, none, guided = (files(each) for each in (made, out[0], out[2]))
    assert none == plain
    changed = [name for name in plain if guided[name] != plain[name]]
    assert changed  # a lesion of one pixel may be white or black with guidance and without
    assert all(name.endswith("bravo.nii.gz") for name in changed)
    header = json.loads((out[2] / "manifest.jsonl").read_text().splitlines()[0])
    assert header["guidance"] == 2
    other = medgen(*arguments(trained, out[2], "--guidance", 1))
    assert other.code == 4
    assert "guidance" in other.err


def test_guidance_without_a_model_that_is_given_masks_is_refused(trained, medgen, tmp_path):
    options = ("--seg-model", trained / "seg", "--num-images", 1, "--output-dir", tmp_path / "out")
    said = medgen("generate", *options, "--guidance", 1)
    assert said.code == 2
    assert "--guidance: is given, but no image model here is given a mask" in said.err


def test_a_recipe_says_how_its_model_is_guided(trained):
    bravo = pair_writer.load_model(trained / "bravo/latest.pt")
    condition = torch.full((1, 1, *bravo.grid.shape), -1.0)
    condition[..., 4:8, 4:8] = 1.0
    given = [{"position": 0.5, "spacing": 1.0, "lesion_size": 16.0}]
    plain = draw(bravo, condition, given)
    bravo.parts.strategy.guidance = 2.0
    assert (draw(bravo, condition, given) != plain).any()
    settings = bravo.recipe.strategy
    assert attrs.evolve(settings, guidance=2.0).build().guidance == 2.0
