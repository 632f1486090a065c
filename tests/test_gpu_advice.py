"""What fits into GPUs of usual sizes: by a count of what autograd keeps, without computing anything."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from conftest import TINY
from faults.variants import SMALL
from torch import nn

from medgen.config.recipe import load
from medgen.run.open import begin
from medgen.training import gpu_advice
from medgen.training.gpu_advice import Kept, fitting


class Sums(nn.Module):
    """Keeps what it is given and its sigmoid, once each, beside its weight."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(8))

    def forward(self, x):
        return ((x * self.weight).sigmoid() * x).sum()


def test_each_tensor_that_is_kept_counts_once_and_no_weight():
    module, x = Sums(), torch.randn(5, 8)
    kept = Kept(module)
    with torch.autograd.graph.saved_tensors_hooks(kept.pack, lambda each: each):
        module(x)
    assert kept.bytes == 2 * 5 * 8 * 4


def test_samples_fit_beside_what_a_step_holds_anyhow():
    assert fitting(10e9, 2e9, 1e9) == 6
    assert fitting(10e9, 9e9, 1e9) == 0


@pytest.fixture
def run(cohort, tmp_path):
    given = (f"data.root={cohort}", *TINY, *SMALL, "callbacks.ema.decay=0.9")
    found = begin(load("bravo_rflow", given), Path(tmp_path))
    yield found
    found.train.close()


def test_a_run_is_traced_and_left_as_it_was(run, monkeypatch):
    before = {name: each.clone() for name, each in run.network.state_dict().items()}
    [line] = gpu_advice.lines(run)
    assert line.startswith("gpu      samples at a time in bf16, by arithmetic, in 10 GB: ")
    assert all(torch.equal(before[name], each) for name, each in run.network.state_dict().items())
    weights = sum(each.numel() for each in run.network.parameters())
    assert gpu_advice.held(run) == 20 * weights  # 16 bytes each, and 4 of the average
    small = gpu_advice.saved_by_sample(run, "fp32")
    assert 1e5 < small < 1e7
    assert gpu_advice.saved_by_sample(run, "bf16") < small


def test_a_part_that_looks_at_values_is_told(run, monkeypatch):
    turn, forward = run.turns["network"], run.turns["network"].forward

    def looking(batch, draws, before=None):
        assert batch.image.sum().item() > -1e9
        return forward(batch, draws, before)

    monkeypatch.setattr(turn, "forward", looking)
    [line] = gpu_advice.lines(run)
    assert line == "gpu      cannot be told, as a part of this recipe looks at values"
