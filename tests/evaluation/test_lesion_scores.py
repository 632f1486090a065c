"""Lesion-wise scores are those of the BraTS challenges."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from evaluation.lesion_cases import SHAPES, lesion_cases

from medgen.evaluation.lesion_scores import SIZES, components, lesion_scores, pixel_dice

KNOWN = json.loads(Path(__file__).with_name("lesion_oracle.json").read_text())
"""What BraTS's own code says of the cases; `tests/benchmarks/lesion_oracle.py` wrote it."""


@pytest.mark.parametrize("case", KNOWN)
def test_scores_equal_those_of_brats_on_20_cases_to_a_millionth(case):
    shape, rule, *dilation = case.split()
    prediction, truth = lesion_cases(0, 20, SHAPES[shape])
    scores = lesion_scores(prediction, truth, 1.0, rule=rule, dilation=int(*dilation or [0]))
    each = [scores.take(np.array([number])) for number in range(20)]

    # BraTS since 2025 gives no score to a case without a lesion, even one with false positives
    expected = _known(case, "dice")
    scored = np.isfinite(expected)
    assert scored.sum() >= 17
    np.testing.assert_allclose(
        np.array([one.mean_dice() for one in each])[scored], expected[scored], atol=1e-6
    )
    assert [len(one.false_sample) for one in each] == KNOWN[case]["false"]
    if rule == "matched":  # the older rule calls a lesion found that its dilated mask touches
        found = [int((one.dice >= 0.1).sum()) for one in each]
        assert found == [int(value or 0) for value in KNOWN[case]["found"]]
    some = np.isfinite(_known(case, "pixel"))
    np.testing.assert_allclose(
        pixel_dice(prediction, truth)[some], _known(case, "pixel")[some], atol=1e-6
    )


def test_a_perfect_prediction_scores_one_and_a_false_positive_counts_as_a_missed_lesion():
    truth = np.zeros((1, 32, 32), bool)
    truth[0, 4:8, 4:8] = True
    invented = truth.copy()
    invented[0, 20:24, 20:24] = True

    for rule in ("merged", "matched"):
        assert lesion_scores(truth, truth, 1.0, rule=rule).mean_dice() == 1
        assert lesion_scores(invented, truth, 1.0, rule=rule).mean_dice() == 0.5
        assert lesion_scores(invented, truth, 1.0, rule=rule).sensitivity() == 1


def test_two_near_lesions_are_one_after_dilation_and_two_without():
    truth = np.zeros((1, 32, 32), bool)
    truth[0, 4:8, 4:8] = truth[0, 4:8, 10:14] = True

    assert len(lesion_scores(truth, truth, 1.0, dilation=1).dice) == 1
    assert len(lesion_scores(truth, truth, 1.0, dilation=0).dice) == 2


def test_size_classes_are_in_mm_and_share_the_lesions_out():
    prediction, truth = lesion_cases(1, 20, (64, 64))
    scores = lesion_scores(prediction, truth, 2.0, rule="matched")
    parts = [scores.sized(size) for size in SIZES]

    assert (
        sum(len(part.dice) for part in parts)
        == len(scores.dice)
        == sum(components(mask)[1] for mask in truth)
    )
    assert sum(len(part.false_sample) for part in parts) == len(scores.false_sample)
    half = lesion_scores(prediction, truth, 1.0, rule="matched")
    np.testing.assert_allclose(half.diameter * 2, scores.diameter)
    disc = np.hypot(*np.indices((1, 64, 64))[1:] - 32.0) < 10
    assert lesion_scores(disc, disc, 0.5).diameter == pytest.approx(10, abs=0.2)


def test_a_sample_drawn_twice_counts_twice():
    prediction, truth = lesion_cases(2, 6, (64, 64))
    scores = lesion_scores(prediction, truth, 1.0)
    drawn = np.array([3, 1, 3])
    again = lesion_scores(prediction[drawn], truth[drawn], 1.0)

    assert scores.take(drawn).mean_dice() == pytest.approx(again.mean_dice(), abs=1e-12)
    assert len(scores.take(drawn).false_sample) == len(again.false_sample)


def test_nothing_to_find_and_nothing_found_is_no_score_per_lesion_and_one_per_pixel():
    nothing = np.zeros((2, 8, 8), bool)
    scores = lesion_scores(nothing, nothing, 1.0)

    assert np.isnan(scores.mean_dice())
    assert np.isnan(scores.sensitivity())
    assert pixel_dice(nothing, nothing).tolist() == [1, 1]


def test_masks_of_different_shapes_are_refused():
    with pytest.raises(ValueError, match=r"\(1, 8, 8\) and truth \(1, 8, 9\)"):
        lesion_scores(np.zeros((1, 8, 8), bool), np.zeros((1, 8, 9), bool), 1.0)


def _known(case: str, name: str) -> np.ndarray:
    return np.array([np.nan if value is None else value for value in KNOWN[case][name]])
