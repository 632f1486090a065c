"""The sections of a card that need no feature extractor."""

from __future__ import annotations

import functools

import attrs
import numpy as np
import pytest
from evaluation import made_heads
from medgen_builtins.segmenters.small_unet import SmallUnet

from medgen.evaluation import anatomy, lesions, obedience, radiomics
from medgen.evaluation.card_sections import SECTIONS
from medgen.evaluation.comparison import arrange


@pytest.fixture(scope="module")
def comparison():
    real = made_heads.heads(range(8), slices=2)
    made = made_heads.heads(range(20, 26), slices=1)
    return arrange(made, real, made_heads.heads(range(8, 12), slices=2), draws=4)


@pytest.mark.parametrize("module", [anatomy, radiomics, lesions])
def test_a_section_compares_the_pairs_and_one_half_of_the_persons_with_the_other(
    comparison, module
):
    found = SECTIONS[module.SECTION](comparison)
    assert {each.section for each in found} == {module.SECTION}
    real, other = comparison.halves
    assert not set(real.people) & set(other.people)
    expected = module.figures_of(real, other, comparison.made, draws=4)
    assert [(each.value, each.reference) for each in found] == [
        (each.value, each.reference) for each in expected
    ]


def test_what_cannot_be_told_is_left_out(comparison):
    bare = attrs.evolve(
        comparison, made=attrs.evolve(comparison.made, masks=np.zeros_like(comparison.made.masks))
    )
    names = [each.name for each in SECTIONS[lesions.SECTION](bare)]
    assert names == ["lesions per slice", "lesions per slice, distance"]


def test_obedience_is_judged_by_the_segmenter_that_is_registered(comparison, monkeypatch):
    asked = []

    def quick(settings, real, *, seed):
        asked.append(settings)
        return fit(SmallUnet(channels=(4, 4)), real, seed=seed)

    fit = functools.partial(obedience.fit, folds=2, steps=1)
    monkeypatch.setattr(obedience, "fit", quick)
    found = SECTIONS[obedience.SECTION](comparison)
    assert asked == [SmallUnet()]
    assert [each.name for each in found][:2] == ["Dice", "Dice with the mask of another (control)"]
