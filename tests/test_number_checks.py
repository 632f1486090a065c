"""Numbers that a recipe's samples do not have are mistakes, each told in one line with its key."""

from __future__ import annotations

import pytest

from medgen.api.tables import DataSettings
from medgen.config.recipe import load, public_toml
from medgen.errors import RecipeError

KEY = "mode.bravo.numbers"


@pytest.mark.parametrize(
    ("recipe", "overrides", "told"),
    [
        (
            "bravo_rflow",
            [f'{KEY}=["positon"]'],
            f'{KEY}: got "positon", expected names among position, lesion_size, spacing, contrast, place.'
            " Did you mean position?",
        ),
        (
            "bravo_rflow",
            [f'{KEY}=["position", "position"]'],
            f'{KEY}: got "position" more than once. Name it once.',
        ),
        (
            "vae_bravo",
            [f'{KEY}=["position"]'],
            f'{KEY}: got ["position"], but strategy.vae is given no condition.',
        ),
        (
            "bravo_rflow",
            [f'{KEY}=["position"]', "data.crop=lesions"],
            f'{KEY}: got ["position"], which are known of whole slices alone, not of crops.',
        ),
        (
            "bravo_rflow",
            [f'{KEY}=["lesion_size"]', "mode.bravo.condition=[]"],
            f'{KEY}: got "lesion_size", which needs a mask, and the channels are bravo.',
        ),
        (
            "seg_rflow",
            ['mode.seg.numbers=["contrast"]'],
            'mode.seg.numbers: got "contrast", which is of one image that is no mask, and the channels are seg.',
        ),
        (
            "bravo_rflow",
            [
                'mode.images.images=["bravo", "flair"]',
                "mode.images.pooled=true",
                'mode.images.condition=["seg"]',
                'mode.images.numbers=["contrast"]',
            ],
            'mode.images.numbers: got "contrast", which is of one image that is no mask, and the channels are bravo,'
            " flair, seg (pooled).",
        ),
        (
            "bravo_rflow",
            [f'{KEY}=["position", "contrast", "place", "lesion_size"]', "data.patch_size=64"],
            f'{KEY}: got ["contrast", "lesion_size"], which are known of whole slices alone, not of crops.',
        ),
        (
            "bravo_rflow",
            [f'{KEY}=["place"]'],
            f'{KEY}: got "place", but no crops are trained on. Leave it out, or give data.patch_size.',
        ),
        (
            "bravo_rflow",
            [f'{KEY}=["place"]', "data.crop=lesions"],
            f'{KEY}: got ["place"], which are known of whole slices alone, not of crops.',
        ),
        (
            "vae_bravo",
            [f'{KEY}=["place"]', "data.patch_size=64"],
            f'{KEY}: got ["place"], but strategy.vae is given no condition.',
        ),
        (
            "insert_rflow",
            ['mode.insert.numbers=["contrast", "position"]'],
            'mode.insert.numbers: got ["position"], which are known of whole slices alone, not of crops.',
        ),
        ("bravo_rflow", [f"{KEY}=3"], f"{KEY}: got 3, expected a list of strings."),
    ],
)
def test_numbers_that_a_mode_cannot_be_given_are_told(recipe, overrides, told):
    with pytest.raises(RecipeError) as error:
        load(recipe, overrides)
    [line] = error.value.lines
    assert told in line


def test_a_position_of_volumes_is_refused_and_their_other_numbers_are_not(monkeypatch):
    monkeypatch.setattr(DataSettings, "axes", 3)
    with pytest.raises(RecipeError, match=r'got "position", which is known of slices alone'):
        load("bravo_rflow", [f'{KEY}=["spacing", "position"]'])
    load("bravo_rflow", [f'{KEY}=["lesion_size", "spacing", "contrast"]'])


def test_what_is_as_true_of_a_crop_may_be_given_with_its_place():
    given = load("bravo_rflow", [f'{KEY}=["position", "place", "spacing"]', "data.patch_size=64"])
    mode = given.mode.build()
    assert (mode.scalars, mode.has_place) == (("position", "spacing"), True)


def test_the_contrast_of_a_lesion_that_is_inserted_may_be_given():
    given = load("insert_rflow", ['mode.insert.numbers=["contrast"]'])
    assert given.mode.build().scalars == ("contrast",)


def test_numbers_stay_in_the_recipe_and_without_them_its_text_is_as_before():
    given = load("bravo_rflow", [f'{KEY}=["position", "lesion_size"]'])
    assert given.mode.build().numbers == ("position", "lesion_size")
    assert '"position"' in public_toml(given)
    plain = load("bravo_rflow")
    assert plain.mode.build().numbers == ()
    assert "numbers" not in public_toml(plain)
