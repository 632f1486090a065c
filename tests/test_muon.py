"""Muon steps matrices along orthogonal directions, leaves the rest to AdamW, and can be stopped at any step.

Covers: medgen.run.muon.
"""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from medgen.run import muon
from medgen.run.muon import Muon

RATE = 1e-2


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv3d(2, 32, 3), nn.SiLU(), nn.Conv3d(32, 64, 3), nn.Conv3d(64, 2, 1))


def optimizer(model: nn.Module) -> Muon:
    made = Muon(model.parameters(), lr=RATE, weight_decay=0.0, fused=True)
    made.found_inf = torch.zeros(())
    return made


def give_gradients(model: nn.Module, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for each in model.parameters():
        each.grad = torch.randn(each.shape, generator=generator)


def step(model: nn.Module, made: Muon, seed: int) -> None:
    give_gradients(model, seed)
    made.step()
    made.zero_grad(set_to_none=True)


@pytest.mark.parametrize("shape", [(3, 40, 300), (3, 300, 40), (1, 64, 64)])
def test_singular_values_come_near_one_and_directions_stay(shape: tuple[int, int, int]) -> None:
    values = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    values += 3 * torch.eye(shape[1], shape[2])  # so that none of a square one is nearly 0
    left, _, right = torch.linalg.svd(values, full_matrices=False)

    made = muon.orthogonal(values)

    inside = left.mT @ made @ right.mT
    gains = inside.diagonal(dim1=1, dim2=2)
    assert gains.min() > 0.6
    assert gains.max() < 1.25
    assert (inside - torch.diag_embed(gains)).abs().max() < 1e-9


def test_it_is_the_iteration_of_the_paper() -> None:
    values = torch.randn(2, 8, 20, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    a, b, c = muon.COEFFICIENTS
    expected = values / values.norm(dim=(1, 2), keepdim=True)
    for _ in range(muon.ITERATIONS):
        gram = expected @ expected.mT
        expected = a * expected + (b * gram + c * gram @ gram) @ expected

    assert torch.allclose(muon.orthogonal(values), expected, atol=1e-12)


def test_no_gradient_makes_no_step() -> None:
    assert muon.orthogonal(torch.zeros(1, 32, 32)).abs().max() == 0


def test_weights_between_features_are_stepped_by_muon_and_all_others_as_by_adamw() -> None:
    model, other = network(), network()
    mine = optimizer(model)
    adamw = torch.optim.AdamW(other.parameters(), lr=RATE, weight_decay=0.0, fused=True)
    before = model[2].weight.detach().clone()
    for seed in range(3):
        step(model, mine, seed)
        give_gradients(other, seed)
        adamw.step()

    changed = (model[2].weight - before).square().mean().sqrt()
    assert 1 < changed / (muon.RMS * RATE) < 3  # three steps, not all in one direction
    for name, value in model.state_dict().items():
        assert torch.equal(value, other.state_dict()[name]) == (name != "2.weight")
    assert mine.state_dict()["state"].keys() == adamw.state_dict()["state"].keys()


def test_decay_shrinks_matrices_by_the_rate() -> None:
    model = network()
    mine = Muon(model.parameters(), lr=RATE, weight_decay=0.5, fused=True)
    mine.found_inf = torch.zeros(())
    before = model[2].weight.detach().clone()
    for each in model.parameters():
        each.grad = torch.zeros_like(each)
    mine.step()

    assert torch.allclose(model[2].weight, before * (1 - RATE * 0.5))


def test_a_step_that_is_not_finite_changes_neither_weights_nor_momentum() -> None:
    model = network()
    mine = optimizer(model)
    step(model, mine, 0)
    weights = copy.deepcopy(model.state_dict())
    state = copy.deepcopy(mine.state_dict()["state"])

    mine.found_inf = torch.ones(())
    for each in model.parameters():
        each.grad = torch.full_like(each, float("nan"))
    mine.step()

    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())
    for key, held in mine.state_dict()["state"].items():
        assert all(torch.equal(value, state[key][name]) for name, value in held.items())


def test_going_on_from_its_state_equals_never_stopping() -> None:
    model = network()
    mine = optimizer(model)
    step(model, mine, 0)
    again = network()
    again.load_state_dict(model.state_dict())
    resumed = optimizer(again)
    resumed.load_state_dict(copy.deepcopy(mine.state_dict()))
    for seed in (1, 2):
        step(model, mine, seed)
        step(again, resumed, seed)

    assert all(
        torch.equal(value, again.state_dict()[name]) for name, value in model.state_dict().items()
    )
