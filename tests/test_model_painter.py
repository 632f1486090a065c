"""A painter from a checkpoint: what it gives depends on the crop and its seed alone."""

from __future__ import annotations

import attrs
import numpy as np
import pytest
import torch
from conftest import TINY
from faults.variants import SMALL

from medgen.data.grid import Grid
from medgen.errors import CheckpointError, RecipeError
from medgen.generation.combination import require_image_model
from medgen.generation.insertion.model_painter import donor_contrast, lacking, open_painter
from medgen.generation.insertion.painter import Crop
from medgen.run import checkpoint


@pytest.fixture(scope="module")
def run(tmp_path_factory, cohort):
    """The folder of a run of mode insert, of two images, a few steps long."""
    from medgen.cli.main import main

    folder = tmp_path_factory.mktemp("insert")
    options = (
        f"data.root={cohort}",
        *TINY,
        *SMALL,
        "training.steps=3",
        f"run.dir={folder / 'run'}",
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MEDGEN_CACHE", str(folder / "cache"))
        with pytest.raises(SystemExit) as ended:
            main(["train", "insert_rflow", *options, 'mode.insert.images=["bravo", "flair"]'])
    assert not ended.value.code
    return folder / "run"


@pytest.fixture(scope="module")
def painter(run):
    return open_painter(run / "latest.pt", steps=3)


def crop(seed: int) -> Crop:
    mask = np.zeros((16, 16), bool)
    mask[6:9, 6 : 8 + seed] = True
    region = np.zeros((16, 16), bool)
    region[4:11, 4:12] = True
    image = np.random.default_rng(seed).random((2, 16, 16), np.float32)
    head = np.ones((16, 16), bool)
    return Crop(image=image, mask=mask, region=region, spacing=(1.0, 1.0), head=head)


def donated(given: Crop, contrast: float) -> Crop:
    """The same crop with a real lesion behind its mask, in slightly uneven tissue of 0.4; 0.9 of another."""
    image = np.full((2, 16, 16), 0.4, np.float32) + np.linspace(-0.01, 0.01, 16, dtype=np.float32)
    image[:, given.mask] += contrast
    clear = np.ones((16, 16), bool)
    clear[:, :5] = False
    image[:, ~clear] = 0.9
    donor = Crop(image, given.mask, clear, given.spacing, clear)
    return attrs.evolve(given, donor=donor)


def test_the_contrast_of_a_real_lesion_is_that_of_all_of_its_slices():
    one, two = donated(crop(0), 0.3), donated(crop(1), 0.1)
    voxels = [np.count_nonzero(each.mask) for each in (one, two)]
    expected = 2 * (0.3 * voxels[0] + 0.1 * voxels[1]) / sum(voxels)
    assert donor_contrast([one, two]) == pytest.approx(expected, abs=0.01)
    assert donor_contrast([one, crop(1)]) is None
    bare = attrs.evolve(one.donor, region=np.zeros((16, 16), bool))
    assert donor_contrast([attrs.evolve(one, donor=bare)]) is None


def test_it_says_what_crops_it_takes(painter):
    assert painter.channels == ("bravo", "flair")
    assert (painter.grid, painter.margin) == (Grid.of_slices(16, 1.0, "axial"), 4.0)


def test_a_crop_is_painted_in_its_region_alone(painter):
    given = crop(1)
    (made,) = painter.paint([given], [7])
    assert (made.shape, made.dtype) == ((2, 16, 16), np.float32)
    assert 0 <= made.min() <= made.max() <= 1
    assert np.allclose(made[:, ~given.region], given.image[:, ~given.region], atol=1e-6)
    assert not np.allclose(made[:, given.region], given.image[:, given.region], atol=1e-2)


def test_a_crop_is_the_same_whatever_is_painted_beside_it(painter):
    crops, seeds = [crop(n) for n in range(3)], [5, 6, 7]
    together = painter.paint(crops, seeds)
    alone = [painter.paint([each], [seed])[0] for each, seed in zip(crops, seeds, strict=True)]
    backwards = painter.paint(crops[::-1], seeds[::-1])[::-1]
    for one, two, three in zip(together, alone, backwards, strict=True):
        assert one.tobytes() == two.tobytes() == three.tobytes()


def test_another_seed_paints_another_lesion(painter):
    one, two = painter.paint([crop(1), crop(1)], [1, 2])
    assert not np.allclose(one, two, atol=1e-3)


def test_a_lesion_is_painted_by_the_contrast_of_a_training_lesion(run, tmp_path):
    from medgen.cli.main import main

    recipe, folder = run / "recipe.toml", tmp_path / "run"
    with pytest.raises(SystemExit) as ended:
        main(["train", str(recipe), 'mode.insert.numbers=["contrast"]', f"run.dir={folder}"])
    assert not ended.value.code
    painter = open_painter(folder / "latest.pt", steps=3)
    kept = painter.model.numbers.values["contrast"]
    crops = [crop(0), crop(1)]
    drawn = [painter.numbers(crops, seed) for seed in range(20)]
    assert painter.numbers(crops, 3) == drawn[3]
    assert {each["contrast"] for each in drawn} <= set(kept.tolist())
    assert len({each["contrast"] for each in drawn}) > 1
    real = [donated(each, 0.3) for each in crops]
    assert painter.numbers(real, 3)["contrast"] == pytest.approx(0.6, abs=0.02)
    low, high = (painter.paint([crop(1)], [7], {"contrast": each})[0] for each in (-1.0, 1.0))
    assert not np.array_equal(low, high)


def test_what_a_first_painting_lacks_of_the_contrast_is_asked_for_in_the_second(
    painter, monkeypatch
):
    asked, mask = [], crop(1).mask

    def half(crops, own, numbers):
        """Paint lesions half as bright as asked, 0.4 around them."""
        asked.append([each["contrast"] for each in numbers])
        level = [0.4 + each["contrast"] / 4 * mask for each in numbers]
        return [np.stack([each, each]) for each in level]

    monkeypatch.setattr(painter, "_paint", half)
    made = painter.paint([crop(1)] * 2, [7, 8], {"contrast": 0.6})
    assert np.allclose(asked, [[0.6, 0.6], [0.9, 0.9]])
    assert lacking(crop(1), made[0], 0.6) == pytest.approx(0.15)
    for bare in (np.ones_like(mask), np.zeros_like(mask)):
        assert lacking(attrs.evolve(crop(1), mask=bare), made[0], 0.6) == 0.0


def test_a_model_that_is_given_no_number_draws_none(painter):
    assert painter.numbers([crop(1)], 7) == {}


def test_averaged_weights_paint(run, painter):
    state = checkpoint.load(run / "latest.pt")
    name = next(iter(state["averaged"]))
    assert torch.equal(
        painter.model.parts.network.state_dict()[name].cpu(), state["averaged"][name]
    )
    assert not torch.equal(state["averaged"][name], state["network"][name])


def test_a_model_of_another_mode_is_no_painter(trained):
    with pytest.raises(CheckpointError) as error:
        open_painter(trained / "bravo" / "latest.pt")
    assert error.value.lines == [
        f"{trained}/bravo/latest.pt: is a model of mode bravo, which paints no lesions into scans. "
        "Give a model of mode insert, or `paste`."
    ]


def test_a_painter_makes_no_whole_images(painter):
    with pytest.raises(
        RecipeError, match=r"^--image-model: paints lesions into given bravo, flair \(mode insert\)"
    ):
        require_image_model(painter.model, with_masks=True)


def test_training_says_how_many_crops_of_how_many_patients_there_are(medgen, cohort, tmp_path):
    options = (
        f"data.root={cohort}",
        *TINY,
        *SMALL,
        "training.steps=1",
        "training.validate_every=0",
    )
    result = medgen("train", "insert_rflow", *options, f"run.dir={tmp_path}/run")
    assert result.code == 0, result.err
    said = next(line for line in (result.out + result.err).splitlines() if line.startswith("data "))
    assert "crops around lesions, 1 mm a pixel, to train on" in said
    assert "(3 + 1 patients)" in said


def test_previews_show_the_scan_what_was_painted_and_the_mask(medgen, cohort, tmp_path):
    from PIL import Image

    options = (f"data.root={cohort}", *TINY, "training.steps=1", "callbacks.tensorboard=false")
    assert medgen("train", "insert_rflow", *options, f"run.dir={tmp_path}/run").code == 0
    (picture,) = (tmp_path / "run" / "previews").glob("samples_*.png")
    with Image.open(picture) as image:
        width, height = image.size
    assert width > 5 * 160  # two crops: scan, result, and mask of each
    assert height < 2 * 160 + 20
