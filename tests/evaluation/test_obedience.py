"""Whether obedience is high where images obey, low where they do not, and where its controls are."""

from __future__ import annotations

import attrs
import numpy as np
import pytest
from evaluation import made_heads
from medgen_builtins.segmenters.small_unet import SmallUnet

from medgen.evaluation import obedience
from medgen.evaluation.lesions import parts_of

SMALL = SmallUnet(channels=(8, 16))
REAL, PAIRS = made_heads.heads(range(12), slices=3), made_heads.heads(range(12, 24), slices=2)
PAIRS = attrs.evolve(PAIRS, people=np.arange(len(PAIRS)))


@pytest.fixture(scope="module")
def judges():
    return obedience.fit(SMALL, REAL, folds=2, steps=60)


def figures(judges, pairs, without_mask=None):
    return {each.name: each for each in obedience.figures_of(judges, pairs, without_mask, draws=40)}


def test_pairs_that_obey_score_like_real_persons_held_out(judges):
    found = figures(judges, PAIRS)
    assert found["Dice"].as_good
    assert found["Dice"].value > 0.7
    assert all(each.as_good for name, each in found.items() if "lesions found" in name)


def test_shuffled_masks_lower_the_score_the_more_of_them_there_are(judges):
    scores = [
        figures(judges, made_heads.shuffled_masks(PAIRS, share))["Dice"].value
        for share in (0, 0.25, 0.5, 1)
    ]
    assert (np.diff(scores) < 0).all()
    assert not figures(judges, made_heads.shuffled_masks(PAIRS, 1))["Dice"].as_good


def test_shuffled_masks_score_no_more_than_their_control(judges):
    found = figures(judges, made_heads.shuffled_masks(PAIRS, 1))
    assert found["Dice"].low <= found["Dice with the mask of another (control)"].high


def test_lesions_that_fade_are_not_found(judges):
    found = figures(judges, made_heads.shrunk_contrast(PAIRS, 1))
    assert not found["Dice"].as_good
    assert not found["medium lesions found"].as_good


def test_images_without_a_mask_are_the_control_of_the_same_masks(judges):
    bare = made_heads.shrunk_contrast(PAIRS, 1)
    found = figures(judges, PAIRS, bare)["Dice without a mask (control)"]
    assert found.value < 0.2 < figures(judges, PAIRS)["Dice"].value


def test_each_pair_has_a_score_of_its_own(judges):
    some = made_heads.shuffled_masks(PAIRS, 0.5)
    changed = (some.masks != PAIRS.masks).any((1, 2))
    scores = judges.per_pair(some)
    assert scores.shape == (len(some),)
    assert scores[~changed] == pytest.approx(judges.per_pair(PAIRS)[~changed])
    assert scores[changed].mean() < 0.3 < scores[~changed].mean()


def test_scores_do_not_depend_on_what_else_is_scored(judges):
    assert judges.per_pair(PAIRS.take(np.arange(3))) == pytest.approx(
        judges.per_pair(PAIRS)[:3], abs=1e-6
    )


def test_one_call_gives_the_scores_of_judges_that_are_fitted_first():
    fitted = obedience.fit(SMALL, REAL, folds=2, steps=3, seed=4).per_pair(PAIRS)
    assert (obedience.per_pair(SMALL, REAL, PAIRS, folds=2, steps=3, seed=4) == fitted).all()


def test_sizes_with_few_lesions_are_left_out(judges):
    few = PAIRS.take(np.arange(obedience.FEWEST // 3))
    assert not [name for name in figures(judges, few) if "lesions found" in name]
    assert len([name for name in figures(judges, PAIRS) if "lesions found" in name]) == 3


def test_masks_are_shuffled_among_persons():
    rows = obedience.shuffled(REAL, seed=0)
    assert (REAL.people[rows] != REAL.people).all()


def test_sizes_are_thirds_of_the_real_lesions(judges):
    sizes = np.array([len(part) for mask in REAL.masks for part in parts_of(mask)]) * REAL.grid.cell
    counts = np.bincount(np.digitize(sizes, judges.limits, right=True))
    assert counts == pytest.approx(len(sizes) / 3, rel=0.25)


def test_dice_is_that_of_the_definition():
    one = np.array([[[True, True, False]], [[False] * 3], [[True, False, False]]])
    two = np.array([[[True, False, False]], [[False] * 3], [[False, True, False]]])
    assert obedience.dice(one, two).tolist() == [pytest.approx(2 / 3), 1, 0]
