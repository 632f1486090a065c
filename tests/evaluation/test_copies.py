"""Copies of training slices are found whatever was done to them, and new persons are not called copies.

Covers: medgen.evaluation.copy_limit, medgen.evaluation.lesion_outside_head, medgen.evaluation.head_views,
medgen.evaluation.lesion_patches, medgen.evaluation.nearest, medgen.evaluation.registration.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from made_up_heads import cohort
from planted import PLANTED

from medgen.evaluation import copies, threads
from medgen.evaluation.copies import Judge
from medgen.evaluation.copy_limit import Held, limit
from medgen.evaluation.lesion_patches import patches


@pytest.fixture(scope="module")
def training():
    return cohort(range(6))


@pytest.fixture(scope="module")
def judge(training):
    return Judge(training)


@pytest.mark.parametrize("name", PLANTED)
def test_a_copy_is_found_with_the_slice_it_is_of(name, training, judge):
    rng = np.random.default_rng(0)
    rows = np.arange(0, len(training), 4)
    made = np.stack([PLANTED[name](training.images[row, 0], rng) for row in rows])[:, None].astype(
        np.float32
    )
    verdicts = judge.judge(made, np.zeros(made[:, 0].shape, bool))
    assert [each.why for each in verdicts] == ["slice"] * len(rows)
    assert [each.row for each in verdicts] == rows.tolist()


def test_other_persons_are_no_copies(judge):
    others = cohort(range(20, 26))
    assert {each.why for each in judge.judge(others.images, others.masks)} == {""}


def test_a_lesion_pasted_into_another_head_is_found(training, judge):
    hosts = cohort(range(20, 22)).take(slice(12))
    images, masks = hosts.images.copy(), np.zeros_like(hosts.masks)
    for row in range(12):
        lesion, source = training.masks[row], training.images[row, 0]
        if row % 2:
            lesion, source = lesion[::-1], source[::-1]
        there, moved = np.roll(lesion, (3, -2), (0, 1)), np.roll(source, (3, -2), (0, 1))
        images[row, 0][there], masks[row] = moved[there], there
    verdicts = judge.judge(images, masks)
    large = [n for n in range(12) if len(patches(images[n : n + 1], masks[n : n + 1]).area)]
    assert len(large) > 8
    assert [(verdicts[n].why, verdicts[n].lesion_row) for n in large] == [
        ("lesion", n) for n in large
    ]


def test_the_share_of_false_alarms_is_what_persons_show_each_other(judge):
    share, low, high = judge.false_alarms(np.random.default_rng(0))
    assert low <= share <= high
    assert share <= 0.01


@pytest.mark.parametrize("persons", [1, 2])
def test_one_or_two_persons_give_no_limit_and_say_so(training, persons):
    alone = Judge(training.take(training.people < persons))
    assert not alone.limit.calibrated
    assert np.isnan(alone.false_alarms(np.random.default_rng(0))[0])
    assert alone.judge(training.images[:1], training.masks[:1])[0].limit == copies.CEILING


def test_the_number_of_threads_changes_nothing(training, judge, monkeypatch):
    before = torch.get_num_threads()
    monkeypatch.setattr(threads, "count_cores", lambda: 1)
    one = Judge(training)
    assert one.limit.levels.tolist() == judge.limit.levels.tolist()
    assert torch.equal(one.search.finder.references.fine, judge.search.finder.references.fine)
    assert torch.get_num_threads() == before


def test_persons_who_are_alike_raise_the_limit_up_to_the_ceiling():
    rng, people = np.random.default_rng(0), np.repeat(np.arange(5), 40)
    size = np.full(200, 500.0)
    low = limit(Held(rng.normal(0.3, 0.05, 200), size, people), 0.95).at(np.array([500.0]))[0]
    high = limit(Held(rng.normal(0.7, 0.05, 200), size, people), 0.95).at(np.array([500.0]))[0]
    top = limit(Held(rng.normal(0.94, 0.01, 200), size, people), 0.95).at(np.array([500.0]))[0]
    assert low < high < top == 0.95


def test_a_person_like_nobody_else_is_counted_as_false_alarms():
    rng, people = np.random.default_rng(0), np.repeat(np.arange(5), 40)
    scores = rng.normal(0.3, 0.05, 200)
    scores[people == 4] = 0.9
    found = limit(Held(scores, np.full(200, 500.0), people), 0.95)
    assert found.alarms.mean() == pytest.approx(0.2)


def test_few_persons_who_differ_are_not_trusted_as_much_as_many():
    """Likenesses differ between persons, and a new one may differ more than three that are there."""

    def false_alarms(persons):
        shares = []
        for repeat in range(40):
            rng = np.random.default_rng([persons, repeat])
            own = np.repeat(rng.normal(0.6, 0.12, persons), 100)
            scores = np.tanh(own + rng.normal(0, 0.05, len(own)))
            people, size = np.repeat(np.arange(persons), 100), np.full(len(own), 500.0)
            most = limit(Held(scores, size, people), 1.0).at(size[:1])
            new = np.tanh(rng.normal(0.6, 0.12, 200)[:, None] + rng.normal(0, 0.05, 20))
            shares.append((new > most).mean())
        return np.mean(shares)

    assert false_alarms(3) < 0.01
    assert false_alarms(30) < 0.01


def test_where_all_persons_are_alike_few_are_as_many():
    rng, people = np.random.default_rng(0), np.repeat(np.arange(30), 100)
    scores, size = rng.normal(0.5, 0.05, 3000), np.full(3000, 500.0)
    few = people < 3
    found = limit(Held(scores[few], size[few], people[few]), 0.95).at(size[:1])
    assert found[0] == pytest.approx(
        limit(Held(scores, size, people), 0.95).at(size[:1])[0], abs=0.03
    )
