"""Intervals hold what they promise, over people and not over slices."""

from __future__ import annotations

import numpy as np
import pytest

from medgen.evaluation.bootstrap import interval


def covered(persons: int, slices: int) -> int:
    """In how many of 100 draws the interval of a mean holds the truth, 0; slices of a person are alike."""
    held = 0
    for repeat in range(100):
        rng = np.random.default_rng([persons, slices, repeat])
        values = np.repeat(rng.normal(0, 1, persons), slices) + rng.normal(0, 0.3, persons * slices)
        people = np.repeat(np.arange(persons), slices)
        low, high = interval(lambda rows, values=values: values[rows].mean(), people, 200, rng)
        held += low <= 0 <= high
    return held


@pytest.mark.parametrize(("persons", "slices"), [(4, 6), (8, 5), (30, 3), (40, 1)])
def test_95_percent_intervals_hold_the_truth_in_90_to_99_of_100_draws(persons, slices):
    assert 90 <= covered(persons, slices) <= 99


@pytest.mark.parametrize("persons", [(6, 6, 6, 6), (3, 4, 3, 4), (2, 2)])
def test_intervals_of_a_mean_over_parts_hold_the_truth_as_often(persons):
    held, wide = 0, 0
    for repeat in range(100):
        rng = np.random.default_rng([*persons, repeat])
        parts = [rng.normal(0, 1, count) for count in persons]
        people = [np.arange(count) for count in persons]

        def mean(*rows, parts=parts):
            return np.mean([part[row].mean() for part, row in zip(parts, rows, strict=True)])

        low, high = interval(mean, [people], 200, rng)
        apart = interval(mean, people, 200, np.random.default_rng(0))
        held += low <= 0 <= high
        wide += apart[1] - apart[0] > high - low
    assert 90 <= held <= 99
    assert wide > 90  # each part for itself knows less


def test_people_are_drawn_and_not_slices():
    """A person's 50 equal slices are worth one."""
    values, people = np.repeat([0.0, 1.0, 2.0, 3.0], 50), np.repeat(np.arange(4), 50)
    by_person = interval(lambda rows: values[rows].mean(), people, 200, np.random.default_rng(0))
    by_slice = interval(
        lambda rows: values[rows].mean(), np.arange(200), 200, np.random.default_rng(0)
    )
    assert by_person[1] - by_person[0] > 5 * (by_slice[1] - by_slice[0])


def test_two_sets_are_drawn_apart():
    rng = np.random.default_rng(1)
    one, two = rng.normal(0, 1, 60), rng.normal(2, 1, 40)
    seen = []

    def difference(a, b):
        seen.append((len(a), len(b)))
        return two[b].mean() - one[a].mean()

    low, high = interval(difference, [np.arange(60), np.arange(40)], 200, rng)
    assert low < 2 < high
    assert set(seen) == {(60, 40)}


def test_one_person_tells_no_interval():
    assert np.isnan(
        interval(lambda rows: 1.0, np.zeros(9, int), 10, np.random.default_rng(0))
    ).all()


def test_same_generator_same_interval():
    values = np.random.default_rng(0).normal(size=20)
    found = {
        interval(lambda rows: values[rows].mean(), np.arange(20), 50, np.random.default_rng(5))
        for _ in range(2)
    }
    assert len(found) == 1
