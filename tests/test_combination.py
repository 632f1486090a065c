"""Issue 10, point 20: models that cannot give pairs together are one line, and nothing is made."""

import pytest

from medgen.api.values import Mode
from medgen.errors import RecipeError
from medgen.generation import combination, pair_writer


@pytest.fixture(scope="module")
def model(trained):
    """Build a model of another mode; what is checked reads no weights."""
    base = pair_writer.load_model(trained / "bravo/latest.pt")

    def build(images, condition=(), pooled=False, masks=("seg", "core")):
        mode = Mode(images, condition, pooled)
        return base._replace(parts=base.parts._replace(mode=mode), masks=frozenset(masks))

    return build


@pytest.mark.parametrize(
    ("mode", "told"),
    [
        ((("bravo",),), "makes bravo, of which bravo is no mask (its masks are core, seg)"),
        ((("bravo", "seg"),), "makes bravo, seg, of which bravo is no mask"),
        ((("bravo",), ("seg",)), "makes bravo given seg, not masks. Give it as --image-model"),
        ((("bravo",), ("t1_pre",)), "makes bravo given t1_pre, not masks"),
        ((("seg",), ("t1_pre",)), "makes seg given t1_pre, which generate cannot give it"),
        ((("core",), ("seg",)), "makes core given seg, which generate cannot give it"),
        ((("seg", "core"), (), True), "makes seg or core in one channel (pooled)"),
    ],
)
def test_what_makes_no_masks_from_noise_is_no_mask_model(model, mode, told):
    with pytest.raises(RecipeError) as error:
        combination.require_mask_model(model(*mode))
    assert error.value.lines[0].startswith(f"--seg-model: {told}")
    assert len(error.value.lines) == 1


@pytest.mark.parametrize(
    ("mode", "with_masks", "told"),
    [
        ((("seg",),), True, "--image-model: makes seg, which are masks. Give it as --seg-model."),
        ((("seg", "core"),), False, "--image-model: makes seg, core, which are masks"),
        (
            (("bravo",),),
            True,
            "--image-model: makes bravo given nothing, so that masks (--seg-model) would not fit",
        ),
        (
            (("bravo",), ("t1_pre",)),
            True,
            "--image-model: makes bravo given t1_pre, so that masks (--seg-model) would not fit",
        ),
        (
            (("bravo",), ("seg", "t1_pre")),
            False,
            "--seg-model: the image model needs seg.",
        ),
        ((("bravo",), ("seg", "core")), False, "--seg-model: the image model needs seg, core."),
        (
            (("t1_pre", "flair"), ("seg",), True),
            True,
            "--image-model: makes t1_pre or flair in one channel (pooled)",
        ),
    ],
)
def test_what_makes_no_images_of_masks_is_no_image_model(model, mode, with_masks, told):
    with pytest.raises(RecipeError) as error:
        combination.require_image_model(model(*mode), with_masks)
    assert error.value.lines[0].startswith(told)
    assert len(error.value.lines) == 1


@pytest.mark.parametrize(
    ("mode", "with_masks"),
    [((("bravo",), ("seg",)), True), ((("bravo",),), False), ((("bravo", "seg"),), False),
     ((("bravo",), ("core", "seg")), True), ((("bravo",), ("seg",), True), True)],
)  # fmt: skip
def test_what_goes_together_is_not_refused(model, mode, with_masks):
    combination.require_image_model(model(*mode), with_masks)


@pytest.mark.parametrize("names", [("seg",), ("seg", "core")])
def test_models_of_masks_are_mask_models(model, names):
    combination.require_mask_model(model(names))


def test_a_mask_model_for_images_is_one_line(trained, cohort, medgen, tmp_path):
    for masks in ([], ["--seg-model", trained / "seg"], ["--seg-model", cohort]):
        options = ("--num-images", 1, "--output-dir", tmp_path / "out")
        result = medgen("generate", "--image-model", trained / "seg", *masks, *options)
        assert (result.code, len(result.err.splitlines())) == (2, 1)
        assert "--image-model: makes seg, which are masks. Give it as --seg-model." in result.err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("option", "name", "told"),
    [
        (
            "--image-model",
            "folder",
            "is a folder without latest.pt. Give a checkpoint, or the folder of a run.",
        ),
        ("--image-model", "a.nii.gz", "is a scan or a mask, not a model. Give a checkpoint."),
        (
            "--seg-model",
            "a.NII",
            "not a model. Give a checkpoint, or the folder that the masks lie in.",
        ),
    ],
)
def test_what_is_no_model_is_one_line(option, name, told, medgen, tmp_path):
    (tmp_path / "folder").mkdir()
    result = medgen(
        "generate", option, tmp_path / name, "--num-images", 1, "--output-dir", tmp_path / "out"
    )
    assert (result.code, len(result.err.splitlines())) == (2, 1)
    assert result.err.startswith(f"medgen: {option}: {tmp_path / name} is a ")
    assert result.err.endswith(f"{told}\n")
