"""Harm that is known is seen, the more of it the more; real against real is not taken for harm.

Covers: medgen.evaluation.comparison, medgen.evaluation.fidelity, medgen.evaluation.two_sample,
medgen_builtins.features._harms, medgen_builtins.features.atlas, medgen_builtins.features.taught.
"""

from __future__ import annotations

import itertools

import attrs
import numpy as np
import pytest
import torch
from evaluation.heads import heads
from medgen_builtins.features.atlas import Atlas
from medgen_builtins.features.taught import Taught
from scipy import ndimage

from medgen.evaluation import diversity, two_sample
from medgen.evaluation.comparison import Comparison, Fold
from medgen.evaluation.distances import kid, manifold
from medgen.evaluation.fidelity import figures_of

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def atlas():
    """An atlas of 30 persons."""
    extractor, others = Atlas(heights=6).build(CPU), heads(30, first=100)
    extractor.fit(others.images, others.people, others.position, 0)
    return extractor


@pytest.fixture(scope="module")
def taught():
    """An extractor taught on 12 persons, for few and short steps."""
    extractor, others = Taught(steps=150, batch_size=32).build(CPU), heads(12, first=100)
    extractor.fit(others.images, others.people, others.position, 0)
    return extractor


@pytest.fixture(scope="module")
def real():
    return heads(10)


def blur(images, strength):
    return ndimage.gaussian_filter(images, (0, 0, strength, strength))


def noise(images, strength):
    return images + np.random.default_rng(0).normal(0, strength, images.shape).astype(np.float32)


def gamma(images, strength):
    return ((images + 1) / 2).clip(0) ** (1 + strength) * 2 - 1


def mottle(images, strength):
    """Smooth blobs instead of anatomy, inside an unchanged outline."""
    blobs = blur(np.random.default_rng(0).normal(0, 1, images.shape), 1)
    inside = ndimage.binary_erosion(images > -0.9, np.ones((1, 1, 3, 3)))
    return np.where(
        inside, (1 - strength) * images + strength * blobs / blobs.std() * 0.4, images
    ).astype(np.float32)


def upside_down(images, strength):
    """Of `strength`, a share, of the heads."""
    turned = images.copy()
    turned[: round(strength * len(images))] = turned[: round(strength * len(images)), ..., ::-1]
    return turned


def no_ventricles(images, strength):
    """Dark insides filled with what is around them, in a share of the heads."""
    filled, count = images.copy(), round(strength * len(images))
    inside = ndimage.binary_erosion(images > -0.9, np.ones((1, 1, 5, 5)))
    filled[:count] = np.where(inside & (filled < 0), 0.4, filled)[:count]
    return filled


HARMS = [
    (blur, (0.6, 1.0, 2.0)),
    (noise, (0.03, 0.06, 0.12)),
    (gamma, (0.5, 1.0, 2.0)),
    (mottle, (0.2, 0.4, 0.7)),
    (upside_down, (0.3, 0.6, 1.0)),
    (no_ventricles, (0.3, 0.6, 1.0)),
]


def require_monotone(extractor, real, harm, strengths):
    other, clean = heads(10, first=50), extractor(real.images)

    def distance(images):
        return kid(clean, extractor(images.astype(np.float32)), real.people, other.people)

    found = [distance(other.images), *(distance(harm(other.images, each)) for each in strengths)]
    assert all(a < b for a, b in itertools.pairwise(found)), found
    assert found[-1] > 5 * abs(found[0]), found


@pytest.mark.parametrize(
    ("harm", "strengths"), HARMS, ids=lambda each: getattr(each, "__name__", "")
)
def test_an_atlas_sees_harm_the_more_the_stronger(atlas, real, harm, strengths):
    require_monotone(atlas, real, harm, strengths)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("harm", "strengths"), HARMS, ids=lambda each: getattr(each, "__name__", "")
)
def test_a_network_taught_on_real_heads_sees_harm_the_more_the_stronger(
    taught, real, harm, strengths
):
    require_monotone(taught, real, harm, strengths)


def test_a_quarter_of_the_modes_dropped_is_seen_by_recall_and_coverage(real):
    """No head above three quarters of its height is made."""
    other = heads(10, first=50)
    # by the images themselves: features that are standardised at each height do not know how many there are of each
    clean, whole, part = (
        each.reshape(len(each), -1)
        for each in (real.images, other.images, other.images[other.position < 0.75])
    )
    all_there, dropped = manifold(clean, whole), manifold(clean, part)
    assert dropped.recall < all_there.recall - 0.1 or dropped.coverage < all_there.coverage - 0.1


def compared(made, real, heads_of_others, draws=60):
    order = real.persons
    one = np.isin(real.people, order[::2])
    return Comparison(
        made, real, (Fold(real.take(one), real.take(~one), heads_of_others),), 0, draws
    )


def pairs(count, first):
    """A slice each of so many persons, at all heights."""
    every = heads(count, first=first)
    return every.take(np.arange(count) * 6 + np.arange(count) % 6)


def test_other_real_persons_are_as_good_as_real_and_mottled_ones_are_not(real):
    others, held = heads(30, first=100), pairs(40, 300)
    good, _ = figures_of(compared(held, real, others), "atlas", Atlas(heights=6).build(CPU))
    bad = attrs.evolve(held, images=mottle(held.images, 1.0))
    worse, _ = figures_of(compared(bad, real, others), "atlas", Atlas(heights=6).build(CPU))
    assert good[0].name == worse[0].name == "KID"
    assert good[0].as_good
    assert not worse[0].as_good
    assert worse[0].low > good[0].high


def test_a_slice_is_not_compared_with_its_own_person_when_the_usual_is_measured():
    """Else real slices of others would look worse than is usual."""
    others, held = heads(30, first=100), heads(30, first=200)
    extractor = Atlas(heights=6).build(CPU)
    extractor.fit(others.images, others.people, others.position, 0)
    found = extractor(held.images)
    assert np.abs(found.mean(axis=0)).max() < 0.5


def test_teaching_is_a_function_of_the_seed_and_touches_no_global_generator(real):
    def taught(seed):
        extractor = Taught(steps=3, batch_size=8).build(CPU)
        extractor.fit(real.images, real.people, real.position, seed)
        return extractor.hash

    torch.manual_seed(7)
    before = torch.random.get_rng_state()
    assert taught(0) == taught(0) != taught(1)
    assert torch.equal(torch.random.get_rng_state(), before)


# A classifier


def test_auc_is_the_share_of_pairs_in_order():
    rng = np.random.default_rng(0)
    one, two = rng.integers(0, 6, 30).astype(float), rng.integers(2, 9, 20).astype(float)
    wanted = np.mean([(b > a) + 0.5 * (b == a) for a in one for b in two])
    assert two_sample.auc(one, two) == pytest.approx(wanted)


@pytest.mark.slow
def test_a_classifier_that_never_met_a_person_does_not_tell_persons_but_tells_noise(real):
    others = heads(10, first=50)
    noisy = attrs.evolve(others, images=noise(others.images, 0.3))
    same = two_sample.auc(*two_sample.cross_fit(real, others, 60, 0, CPU))
    harmed = two_sample.auc(*two_sample.cross_fit(real, noisy, 60, 0, CPU))
    assert same < 0.75
    assert harmed > 0.95


def test_no_score_is_of_a_person_that_the_network_was_taught_on(real, monkeypatch):
    met: list[set[float]] = []
    marked = attrs.evolve(
        real, images=np.broadcast_to(real.people[:, None, None, None], (60, 1, 16, 16)).astype("f4")
    )
    monkeypatch.setattr(
        two_sample, "_teach", lambda sets, *_: met.append({*np.unique(np.concatenate(sets))})
    )

    def scores(taught, images, device):
        assert not met[-1] & {*np.unique(images)}
        return np.arange(len(images), dtype=float)

    monkeypatch.setattr(two_sample, "_scores", scores)
    one, two = marked.take(marked.people < 5), marked.take(marked.people >= 5)
    two_sample.cross_fit(one, two, 1, 0, CPU)
    assert len(met) == 2


# Diversity


def test_a_generator_that_repeats_itself_is_more_alike(real):
    rng = np.random.default_rng(0)
    few = real.images[rng.integers(0, 3, 60)]
    repeated = attrs.evolve(pairs(60, 500), images=few)
    [figure] = diversity.figures_of(compared(repeated, real, real))
    assert figure.low > figure.reference_high
    [figure] = diversity.figures_of(compared(pairs(60, 500), real, real))
    assert figure.overlaps
