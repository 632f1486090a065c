"""Masks come on the grid of the images, in millimetres, or not at all."""

import json

import models
import nibabel as nib
import numpy as np
import pytest
import torch

from medgen.data.grid import Grid
from medgen.errors import RecipeError
from medgen.generation import pair_writer
from medgen.generation.masks import surest


def blob(*pixels, size=16):
    mask = torch.zeros(size, size, dtype=torch.bool)
    for rows, columns in pixels:
        mask[rows, columns] = True
    return mask


LESION = blob((slice(7, 10), slice(5, 11)), (slice(8, 9), slice(4, 12)))
"""20 pixels near the middle."""
CORNER = blob((slice(0, 3), slice(0, 3)))


def command(seg, image, out, *more):
    limits = ("--max-area", 1, "--steps", 2, "--batch-size", 2, "--num-images", 3)
    limits += (
        "--inside",
        "off",
        "--no-audit",
    )  # after a few steps there is no head that a lesion could lie in
    return (
        "generate",
        "--seg-model",
        seg,
        "--image-model",
        image,
        "--output-dir",
        out,
        *limits,
        *more,
    )


def areas(out):
    """mm2 of each lesion, by the header."""
    masks = [nib.load(path) for path in sorted(out.glob("train/*/seg.nii.gz"))]
    return [
        float(np.count_nonzero(mask.dataobj) * np.prod(mask.header.get_zooms()[:2]))
        for mask in masks
    ]


def scaled(model, factor):
    """The model with pixels of another size."""
    grid = model.grid
    return model._replace(grid=Grid.of_slices(grid.shape[0], grid.spacing[0] * factor, grid.axis))


@pytest.mark.parametrize("spacing", [0.8, 1.0, 1.3, 1.5, 2.0, 3.0, 5.9])
def test_a_lesion_keeps_its_area_whatever_the_pixels_of_both_models(
    spacing, trained, medgen, tmp_path, monkeypatch
):
    """Issue 10, point 6: it became 0.27 or 4.3 times as large."""
    image = models.altered(trained / "bravo", tmp_path / "bravo.pt", spacing)
    models.draw(monkeypatch, LESION)
    result = medgen(*command(trained / "seg", image, tmp_path / "out"))
    assert result.code == 0, result.err
    expected = int(LESION.sum()) * pair_writer.load_model(trained / "seg/latest.pt").grid.cell
    pixel = spacing**2
    assert areas(tmp_path / "out") == pytest.approx(
        [expected] * 3, abs=max(0.05 * expected, pixel / 2)
    )
    header = nib.load(tmp_path / "out/train/syn_00000/bravo.nii.gz").header
    assert header.get_zooms() == pytest.approx((spacing,) * 3)


def test_masks_of_the_same_pixels_are_left_as_they_are(trained):
    """Issue 10, point 6: nothing that was right before changes."""
    seg, image = (
        pair_writer.load_model(trained / f"{name}/latest.pt") for name in ("seg", "bravo")
    )
    alone = pair_writer.ModelMasks(seg, 0, 3, 1.0, 2).block(range(4))
    for factor in (1, 1.0001):
        both = pair_writer.ModelMasks(seg, 0, 3, 1.0, 2, scaled(image, factor)).block(range(4))
        assert torch.equal(alone.values, both.values)
        assert alone.faults == both.faults


def test_a_lesion_outside_the_images_is_drawn_again_and_told(
    trained, medgen, tmp_path, monkeypatch
):
    """Issue 10, point 6."""
    image = models.altered(trained / "bravo", tmp_path / "bravo.pt", 1.0)
    models.draw(monkeypatch, CORNER, LESION)
    assert medgen(*command(trained / "seg", image, tmp_path / "again")).code == 0
    lines = [
        json.loads(line)
        for line in (tmp_path / "again/manifest.jsonl").read_text().splitlines()[1:]
    ]
    assert [line["attempts"] for line in lines] == [2, 2, 2]
    models.draw(monkeypatch, CORNER)
    result = medgen(*command(trained / "seg", image, tmp_path / "never", "--max-attempts", 2))
    assert result.code == 12
    assert "6 in part outside the image model's slices" in result.err
    line = json.loads((tmp_path / "never/manifest.jsonl").read_text().splitlines()[1])
    assert line["rejected"] == {"outside": 2}


def test_a_lesion_too_small_for_the_images_is_an_empty_mask(trained, monkeypatch):
    """Issue 10, point 6: a mask is judged as the image model gets it."""
    seg, image = (
        pair_writer.load_model(trained / f"{name}/latest.pt") for name in ("seg", "bravo")
    )
    models.draw(monkeypatch, blob((8, 8)))
    masks = pair_writer.ModelMasks(seg, 0, 2, 1.0, 1, scaled(image, 3)).block(range(2))
    assert masks.faults == [["empty"], ["empty"]]


def drawn(*blobs, size=16):
    """What a model draws: a value in each blob, -1 elsewhere, some noise everywhere."""
    noise = torch.rand(1, size, size, generator=torch.Generator().manual_seed(0))
    values = noise * 0.2 - 1
    for pixels, value in blobs:
        values[0][pixels] += value + 1
    return values.clamp(-1, 1)


def test_a_mask_has_the_size_that_its_model_was_given():
    faint, wide = blob((slice(2, 5), slice(2, 5))), blob((slice(7, 14), slice(7, 14)))
    values = drawn((faint, -0.2), (wide, 1.0))
    both = surest(values, 58)[0] > 0
    assert torch.equal(both, faint | wide)  # above 0 is the wide one alone
    fewer = surest(values, 25)[0] > 0
    assert fewer.sum() == 25
    assert not (fewer & ~wide).any()
    assert fewer[8:13, 8:13].all()  # the middle of it: outlines shrink, they do not fray


def test_a_mask_is_not_filled_with_background():
    faint = blob((slice(2, 5), slice(2, 5)))
    assert torch.equal(surest(drawn((faint, 0.3)), 100)[0] > 0, faint)
    assert not (surest(drawn(), 100) > 0).any()


def test_masks_along_another_axis_are_refused(trained, medgen, tmp_path):
    """Issue 10, point 6."""
    seg = models.altered(
        trained / "seg", tmp_path / "seg.pt", recipe=('axis = "axial"', 'axis = "sagittal"')
    )
    result = medgen(*command(seg, trained / "bravo", tmp_path / "out"))
    assert (result.code, len(result.err.splitlines())) == (2, 1)
    assert (
        "--seg-model: makes sagittal masks, the image model (--image-model) makes axial images"
        in result.err
    )
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("factor", [0.1, 10, 1000])
def test_masks_of_another_unit_are_refused(factor, trained, medgen, tmp_path):
    """Issue 10, point 6."""
    seg = models.altered(trained / "seg", tmp_path / "seg.pt", 1.5 * factor)
    result = medgen(*command(seg, trained / "bravo", tmp_path / "out"))
    assert (result.code, len(result.err.splitlines())) == (2, 1)
    assert "over 4 times apart. Check the unit" in result.err


@pytest.mark.parametrize("spacing", [0.0, -1.0, float("nan"), float("inf")])
def test_a_checkpoint_without_a_size_in_mm_is_refused(spacing, trained, medgen, tmp_path):
    """Issue 10, point 6."""
    seg = models.altered(trained / "seg", tmp_path / "seg.pt", spacing)
    result = medgen(*command(seg, trained / "bravo", tmp_path / "out"))
    assert (result.code, len(result.err.splitlines())) == (4, 1)
    assert "has pixels of" in result.err


def test_masks_of_other_labels_are_told(trained, medgen, tmp_path, monkeypatch):
    """Issue 10, points 6 and 17."""
    labels = ("[data.masks]\n", '[data.masks]\nseg = { file = "seg", labels = [2, 3] }\n')
    seg = models.altered(trained / "seg", tmp_path / "seg.pt", recipe=labels)
    models.draw(monkeypatch, LESION)
    result = medgen(*command(seg, trained / "bravo", tmp_path / "out"))
    assert result.code == 0
    assert "its seg was made of labels 2, 3, that of the image model of every label" in result.err


def test_a_source_of_other_masks_is_no_source(trained):
    seg, image = (
        pair_writer.load_model(trained / f"{name}/latest.pt") for name in ("seg", "bravo")
    )
    mode = image.parts.mode._replace(condition=("core",))
    other = image._replace(parts=image.parts._replace(mode=mode), masks=frozenset({"core"}))
    with pytest.raises(RecipeError, match=r"gives seg, the image model .* was trained on core"):
        pair_writer.ModelMasks(seg, 0, 2, 1.0, 1, other)
