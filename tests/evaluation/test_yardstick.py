"""KID against real slices whose features are computed once: the card's figure, rising with harm to the images."""

from __future__ import annotations

import attrs
import numpy as np
import pytest
import torch
from evaluation.heads import heads

from medgen.config.registry import Registry
from medgen.evaluation import comparison as persons
from medgen.evaluation import fidelity
from medgen.evaluation.yardstick import Yardstick


@pytest.fixture(scope="module")
def build():
    settings = Registry.load().get("features", "atlas").settings_class(heights=2)
    return lambda: settings.build(torch.device("cpu"))


@pytest.fixture(scope="module")
def comparison():
    real, made = heads(16, seed=1), heads(30, slices=1, seed=2)
    return persons.arrange(made, real, real, seed=3, draws=20)


def test_it_is_the_figure_of_the_card(comparison, build):
    card, _ = fidelity.figures_of(comparison, "atlas", build())
    stick = Yardstick.of(comparison, "atlas", build)
    value, low, high = stick.interval(comparison.made, 20, comparison.rng("any"))
    assert value == pytest.approx(card[0].value, rel=1e-6)
    assert stick.kid(comparison.made) == pytest.approx(value, rel=1e-9)
    assert low < value < high


def test_it_rises_with_noise(comparison, build):
    stick, rng = Yardstick.of(comparison, "atlas", build), np.random.default_rng(0)
    noise = rng.normal(size=comparison.made.images.shape).astype(np.float32)
    harmed = [
        attrs.evolve(comparison.made, images=comparison.made.images + s * noise)
        for s in (0, 0.2, 0.5)
    ]
    found = [stick.kid(each) for each in harmed]
    assert found == sorted(found)
    assert found[2] > found[0] + 0.5
