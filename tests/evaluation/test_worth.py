"""Verdicts and intervals on simulated scores whose truth is known."""

from __future__ import annotations

import numpy as np
import pytest

from medgen.evaluation.worth import Scores, difference, mean, verdict, worth

CURVE = {number: f"real {number}" for number in (2, 4, 8, 16, 24)}
BASE = 4


def _simulated(seed: int, arms: dict[str, float], persons: int = 10, repeats: int = 3) -> Scores:
    """Scores `[repeat, person]`: the arm's truth, what a person is like, what a repeat is like, and noise."""
    rng = np.random.default_rng(seed)
    person = rng.normal(0, 0.12, persons)
    return Scores(
        {
            arm: truth
            + person
            + rng.normal(0, 0.04, persons)
            + rng.normal(0, 0.02, (repeats, 1))
            + rng.normal(0, 0.05, (repeats, persons))
            for arm, truth in arms.items()
        }
    )


def _score(persons: float) -> float:
    return 0.8 - 0.9 * persons**-0.6


def _with_curve(seed: int, truth: float) -> Scores:
    return _simulated(
        seed,
        {arm: _score(number) for number, arm in CURVE.items()} | {"mixed": _score(BASE + truth)},
    )


def test_the_interval_covers_the_true_16_persons_in_at_least_9_of_10_repeats():
    found = [worth(_with_curve(seed, 16), CURVE, "mixed", BASE, seed) for seed in range(10)]
    assert all(each.rises for each in found)
    assert sum(each.persons.low <= 16 <= each.persons.high for each in found) >= 9
    assert 10 < np.median([each.persons.value for each in found]) < 24
    assert all(each.persons.low > 0 for each in found)  # nor is it an interval that says nothing


def test_pairs_that_are_worth_nobody_are_not_said_to_be_worth_somebody():
    found = [worth(_with_curve(seed, 0), CURVE, "mixed", BASE, seed).persons for seed in range(10)]
    assert sum(each.low <= 0 <= each.high for each in found) >= 9


def test_a_curve_that_does_not_rise_is_named_as_such():
    flat = _simulated(0, dict.fromkeys([*CURVE.values(), "mixed"], 0.5))
    assert not worth(flat, CURVE, "mixed", BASE, 0).rises


@pytest.mark.parametrize(
    ("arms", "word", "against"),
    [
        ({"mixed": 0.7, "real": 0.5, "pasted": 0.55}, "helps", "pasted"),
        ({"mixed": 0.7, "real": 0.55, "pasted": 0.5}, "helps", "real"),
        (
            {"mixed": 0.55, "real": 0.4, "pasted": 0.7},
            "no evidence",
            "pasted",
        ),  # copy-paste does it without learning
        ({"mixed": 0.3, "real": 0.5, "pasted": 0.5}, "hurts", None),
        ({"mixed": 0.5, "real": 0.5, "pasted": 0.5}, "no evidence", None),
        ({"mixed": 0.7, "real": 0.5, "fewer": 0.69, "pasted": 0.5}, "no evidence", "fewer"),
    ],
)
def test_the_verdict_is_by_the_better_of_the_controls(arms, word, against):
    real = [name for name in ("real", "fewer") if name in arms]
    found = verdict(_simulated(1, arms), "mixed", real, "pasted", 0)
    assert found.word == word
    assert against is None or found.against == against


def test_equal_arms_are_told_apart_in_at_most_1_of_20_repeats():
    words = [
        verdict(_simulated(seed, {"mixed": 0.5, "real": 0.5}), "mixed", ["real"], None, seed).word
        for seed in range(20)
    ]
    assert words.count("no evidence") >= 19


def test_differences_are_paired_so_that_what_persons_are_like_cancels():
    scores = _simulated(2, {"mixed": 0.6, "real": 0.5}, persons=20)
    paired = difference(scores, "mixed", "real", 0)
    unpaired = Scores({**scores.by_arm, "real": scores.by_arm["real"][:, ::-1]})
    apart = difference(unpaired, "mixed", "real", 0)
    assert paired.value == pytest.approx(apart.value)
    assert paired.high - paired.low < 0.8 * (apart.high - apart.low)


def test_a_person_without_a_lesion_of_a_size_counts_for_no_arm():
    table = np.array([[0.5, np.nan, 0.7], [0.6, np.nan, 0.8]])
    found = difference(Scores({"a": table, "b": table - 0.1}), "a", "b", 0)
    assert found.value == pytest.approx(0.1)
    assert (found.low, found.high) == pytest.approx((0.1, 0.1))


def test_a_seed_in_which_nobody_has_a_score_changes_nothing():
    table = np.array([[0.5, 0.7], [np.nan, np.nan], [0.6, 0.8]])
    found = mean(Scores({"a": table}), "a", 0)
    assert found.value == pytest.approx(0.65)
    assert found.low < 0.65 < found.high
