"""Copy-paste takes lesions of other training persons, into the brain, without an edge that gives them away."""

from __future__ import annotations

import numpy as np
from evaluation.made_up import heads, volumes
from scipy import ndimage

from medgen.evaluation.copy_paste import copy_paste
from medgen.evaluation.heads import heads_of
from medgen.evaluation.lesion_scores import components


def _added(samples, made):
    """Each made slice's host row and what was added to its mask."""
    for number, image in enumerate(made.images):
        far = [np.mean(np.abs(image - host) > 1e-6) for host in samples.images]
        host = int(np.argmin(far))
        yield number, host, made.masks[number] & ~samples.masks[host]


def test_a_pasted_lesion_lies_inside_the_head_and_apart_from_the_hosts_own():
    samples = heads(6)
    made = copy_paste(samples, 40, seed=3)
    inside = heads_of(samples.images)
    pasted = 0
    for number, host, added in _added(samples, made):
        assert made.people[number] == samples.people[host]
        assert (made.masks[number] & samples.masks[host]).sum() == samples.masks[host].sum()
        assert not (added & ~inside[host]).any()
        assert not (ndimage.binary_dilation(samples.masks[host]) & added).any()
        pasted += bool(added.any())
    assert pasted >= 36


def test_lesions_come_from_other_persons_alone():
    samples = heads(2)
    own = samples.people == 0
    samples.images[own], samples.masks[own] = (
        np.where(samples.masks[own][:, None], 1, samples.images[own]),
        samples.masks[own],
    )
    made = copy_paste(samples, 24, seed=0)
    for number, host, added in _added(samples, made):
        if (
            added.any() and samples.people[host] == 0
        ):  # the other person's lesions are not of brightness 1
            assert made.images[number, 0][added].max() < 1


def test_with_one_person_there_is_nothing_to_paste():
    samples = heads(1)
    made = copy_paste(samples, 5, seed=0)
    assert all(not added.any() for _, _, added in _added(samples, made))


def test_the_edge_of_a_pasted_lesion_is_blended_and_its_surroundings_have_the_hosts_level():
    samples = heads(6)
    lifted = (
        samples.images
        + 0.3 * (samples.people % 2)[:, None, None, None] * heads_of(samples.images)[:, None]
    )
    samples.images[:] = np.clip(lifted, -1, 1)
    made = copy_paste(samples, 40, seed=1)
    jumps = []
    for number, host, added in _added(samples, made):
        ring = (
            ndimage.binary_dilation(added, iterations=2)
            & ~ndimage.binary_dilation(added)
            & ~samples.masks[host]
        )
        if added.any():
            jumps.append(np.mean(made.images[number, 0][ring] - samples.images[host, 0][ring]))
    assert np.abs(np.mean(jumps)) < 0.05
    assert np.percentile(np.abs(jumps), 90) < 0.15


def test_slice_8_is_the_same_however_many_are_made():
    samples = heads(4)
    few, many = copy_paste(samples, 9, seed=5), copy_paste(samples, 30, seed=5)
    np.testing.assert_array_equal(few.images[8], many.images[8])
    assert not np.array_equal(few.images, copy_paste(samples, 9, seed=6).images)


def test_lesions_are_pasted_into_volumes_whole_inside_the_head_and_apart_from_others():
    samples = volumes(5, 24)
    made = copy_paste(samples, 12, seed=1)
    inside = heads_of(samples.images)
    sizes = {
        int(each) for mask in samples.masks for each in np.bincount(components(mask)[0].ravel())[1:]
    }
    pasted = 0
    for number, host, added in _added(samples, made):
        assert made.people[number] == samples.people[host]
        assert (made.masks[number] & samples.masks[host]).sum() == samples.masks[host].sum()
        assert not (added & ~inside[host]).any()
        assert not (ndimage.binary_dilation(samples.masks[host]) & added).any()
        if added.any():
            assert int(added.sum()) in sizes
            pasted += 1
    assert pasted >= 8
