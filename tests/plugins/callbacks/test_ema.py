"""Averaged weights: fp32, with a warm-up, swapped in for validation and out again."""

import pytest
import torch

from medgen.config.recipe import load
from medgen.run.assemble import assemble
from medgen.training.validation import validate


@pytest.fixture
def run(tiny, tmp_path):
    run = assemble(
        load("bravo_rflow", [*tiny, "training.steps=1", "callbacks.previews=false"]), tmp_path
    )
    yield run
    run.train.close()


def test_an_update_is_the_closed_form(run):
    before = [each.clone() for each in run.averaged.parameters()]
    with torch.no_grad():
        for each in run.network.parameters():
            each.add_(1)
    run.progress.step = 1
    run.callbacks["ema"].medgen_step_end(run)
    decay = min(0.9999, 2 / 11)
    for old, new, live in zip(
        before, run.averaged.parameters(), run.network.parameters(), strict=True
    ):
        torch.testing.assert_close(new, decay * old + (1 - decay) * live)
        assert new.dtype == torch.float32


def test_validation_sees_the_average_and_the_weights_come_back(run):
    with torch.no_grad():
        for each in run.network.parameters():
            each.add_(torch.randn_like(each))
    live = [each.clone() for each in run.network.parameters()]
    averaged = validate(run)
    assert all(
        torch.equal(one, two) for one, two in zip(live, run.network.parameters(), strict=True)
    )
    with torch.no_grad():
        torch._foreach_copy_(list(run.network.parameters()), list(run.averaged.parameters()))
    assert validate(run) == averaged
