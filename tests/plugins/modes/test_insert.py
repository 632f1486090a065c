"""Mode `insert`: its channels, and the recipes that it refuses.

Covers: medgen_builtins.modes.insert.
"""

from __future__ import annotations

import pytest
from conftest import RECIPES
from medgen_builtins.modes.insert import Insert

from medgen.api.values import Mode
from medgen.config.recipe import load
from medgen.errors import RecipeError

RECIPE = RECIPES / "insert_rflow.toml"


def test_it_paints_images_by_a_mask_within_a_margin():
    assert Insert(images=("flair", "t1_gd"), mask="tumour", margin=3.0).build() == Mode(
        ("flair", "t1_gd"), ("tumour",), margin=3.0
    )


@pytest.mark.parametrize(
    ("override", "told"),
    [
        (
            "data.crop=none",
            'data.crop: got "none", expected "lesions", which mode.insert learns from.',
        ),
        ("mode.insert.images=[]", "mode.insert.images: got [], expected at least one image"),
        (
            "mode.insert.mask=bravo",
            'mode.insert.images: got ["bravo"], expected at least one image, each once, and',
        ),
        ('mode.insert.images=["a", "a"]', 'mode.insert.images: got ["a", "a"], expected'),
        ("mode.insert.margin=0", "mode.insert.margin: got 0"),
    ],
)
def test_a_recipe_that_cannot_learn_to_paint_is_refused(override, told):
    with pytest.raises(RecipeError) as error:
        load(RECIPE, (override,))
    assert told in error.value.lines[0]
    assert len(error.value.lines) == 1


def test_a_latent_which_mixes_a_lesion_with_its_surroundings_is_refused():
    with pytest.raises(
        RecipeError, match=r"space\.latent: mixes a lesion with what lies around it"
    ):
        load(RECIPE, ("space=latent", "space.latent.checkpoint=x"))


def test_an_autoencoder_which_is_given_no_mask_is_refused():
    with pytest.raises(
        RecipeError, match=r"strategy\.vae: is given no mask, which mode.insert paints by"
    ):
        load(RECIPES / "vae_bravo.toml", ("mode=insert", "data.crop=lesions", "data.image_size=64"))
