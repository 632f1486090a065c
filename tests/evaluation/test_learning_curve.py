"""A learning curve finds the number of persons that a score is worth."""

from __future__ import annotations

import numpy as np
import pytest

from medgen.evaluation.learning_curve import fit

PERSONS = np.array([2, 4, 8, 16, 24])


def _score(persons, a=0.8, b=0.9, c=0.6):
    return a - b * np.asarray(persons, float) ** -c


@pytest.mark.parametrize("truth", [1, 3, 10, 20, 60])
def test_the_inverse_gives_back_the_persons_of_a_score_on_the_curve_and_beyond_it(truth):
    curve = fit(PERSONS, _score(PERSONS)[None])
    assert curve.persons(np.array([_score(truth)]), 1000)[0] == pytest.approx(truth, rel=0.06)


def test_curves_rise_with_persons_whatever_the_scores():
    scores = np.random.default_rng(0).uniform(0, 1, (200, 5))
    shown = fit(PERSONS, scores).score(PERSONS)
    assert (np.diff(shown, axis=1) >= -1e-12).all()


def test_a_score_above_the_ceiling_is_worth_the_most_and_one_far_below_nobody():
    curve = fit(PERSONS, _score(PERSONS)[None])
    assert curve.persons(np.array([0.95]), 96)[0] == 96
    assert curve.persons(np.array([-5.0]), 96)[0] < 0.2


def test_a_flat_curve_explains_a_score_by_any_number():
    curve = fit(PERSONS, np.full((1, 5), 0.5))
    assert curve.persons(np.array([0.6]), 96)[0] == 96
    assert curve.persons(np.array([0.4]), 96)[0] == 0


def test_a_falling_curve_is_taken_for_flat():
    curve = fit(PERSONS, _score(PERSONS)[None, ::-1])
    assert curve.b[0] == 0
    assert curve.a[0] == pytest.approx(_score(PERSONS).mean())
