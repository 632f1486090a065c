"""The segmenter that is trained on the spot: what it learns, of whom, and that nothing but the seed decides.

Covers: medgen.evaluation.network.
"""

from __future__ import annotations

import attrs
import numpy as np
import pytest
import torch
from evaluation import made_heads
from medgen_builtins.segmenters.small_unet import SmallUnet

from medgen.evaluation import segmentation
from medgen.evaluation.obedience import dice

SMALL = SmallUnet(channels=(8, 16))
REAL, OTHER = made_heads.heads(range(12), slices=3), made_heads.heads(range(12, 18), slices=3)


def weights(network):
    return torch.cat([each.detach().flatten() for each in network.parameters()])


@pytest.fixture(scope="module")
def trained():
    return segmentation.train(SMALL, REAL, steps=60, seed=0)


def test_lesions_of_other_persons_are_found(trained):
    assert dice(segmentation.predict(trained, OTHER.images), OTHER.masks).mean() > 0.7


def test_the_same_seed_gives_the_same_weights_whatever_else_was_drawn():
    first = segmentation.train(SMALL, REAL, steps=3, seed=1)
    torch.manual_seed(5)
    before = torch.get_rng_state()
    second = segmentation.train(SMALL, REAL, steps=3, seed=1)
    assert torch.equal(weights(first), weights(second))
    assert torch.equal(before, torch.get_rng_state())
    assert not torch.equal(
        weights(first), weights(segmentation.train(SMALL, REAL, steps=3, seed=2))
    )


def test_no_person_is_in_two_folds_and_everyone_is_in_one():
    parts = segmentation.folds_of(REAL.people, 5, seed=0)
    assert sorted(np.concatenate(parts)) == list(range(len(REAL)))
    assert [len(np.unique(REAL.people[rows])) for rows in parts] == [3, 3, 2, 2, 2]
    assert not set(REAL.people[parts[0]]) & set(REAL.people[parts[1]])


def test_a_network_never_sees_the_persons_that_it_is_asked_about(monkeypatch):
    seen = []

    def untrained(settings, samples, **_):
        seen.append(samples.people)
        return settings.build(1)

    monkeypatch.setattr(segmentation, "train", untrained)
    for (_, rows), people in zip(segmentation.fit_folds(SMALL, REAL, 3, 1, 0), seen, strict=True):
        assert not set(REAL.people[rows]) & set(people)
        assert set(REAL.people[rows]) | set(people) == set(REAL.people)


def test_predictions_of_a_cross_fit_are_those_of_the_network_without_the_person():
    fitted = segmentation.fit_folds(SMALL, REAL, 2, 4, 0)
    found = segmentation.cross_fit(SMALL, REAL, 2, 4, 0)
    for network, rows in fitted:
        assert (found[rows] == segmentation.predict(network, REAL.images[rows])).all()


def test_slices_of_any_size_are_padded_and_cut_back(trained):
    images = REAL.images[:3, :, :45, :41]
    assert segmentation.probabilities(trained, images).shape == (3, 45, 41)
    assert segmentation.probabilities(trained, images[:0]).shape == (0, 45, 41)


def test_augmentation_moves_masks_with_images_and_leaves_the_background():
    image, mask = torch.from_numpy(REAL.images), torch.from_numpy(REAL.masks)[:, None].float()
    changed, moved = segmentation.augmented(image, mask, torch.Generator().manual_seed(0))
    assert (changed != image).any()
    assert moved.sum() == mask.sum()
    assert changed.min() == -1
    assert changed.max() <= 1
    assert float(changed[moved > 0].mean()) > 0.4
    for axis in (2, 3):  # the background goes where the flips put it
        assert ((changed == -1).sum((1, 2, 3)) == (image == -1).sum((1, 2, 3))).all(), axis


def test_several_channels_are_read():
    both = attrs.evolve(REAL, images=np.repeat(REAL.images, 2, 1), channels=("a", "b"))
    assert (
        segmentation.predict(segmentation.train(SMALL, both, steps=1, seed=0), both.images).shape
        == both.masks.shape
    )
