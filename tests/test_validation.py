"""What is measured is right, and the same every time."""

import json

import numpy as np
import pytest
import torch

from medgen.assemble import assemble
from medgen.kinds import Prediction
from medgen.recipe import load
from medgen.trainer import validate


@pytest.fixture
def run(tiny, tmp_path):
    run = assemble(
        load("bravo_rflow", [*tiny, "training.steps=1", "callbacks.ema=false", "callbacks.previews=false"]), tmp_path
    )
    yield run
    run.train.close()


def test_two_validations_of_the_same_weights_agree_to_the_bit(run):
    first = validate(run)
    torch.rand(100)
    assert validate(run) == first


def test_a_perfect_prediction_has_no_loss_and_the_highest_psnr(run, monkeypatch):
    corrupt = type(run.strategy).corrupt
    seen = {}

    def remember(self, x0, draws):
        seen["noisy"] = corrupt(self, x0, draws)
        return seen["noisy"]

    monkeypatch.setattr(type(run.strategy), "corrupt", remember)
    monkeypatch.setattr(type(run.strategy), "read", lambda *_: Prediction(seen["noisy"].target, seen["noisy"].x0))
    metrics = validate(run)
    assert metrics["loss/val"] == 0
    assert metrics["mse/lesion"] == metrics["mse/outside"] == 0
    assert metrics["psnr/x0"] == pytest.approx(10 * np.log10(4 / 1e-10), rel=1e-4)


def test_lesions_and_the_rest_are_told_apart(run, monkeypatch):
    """A prediction that is wrong by 0.5 inside lesions only."""
    forward = type(run.turns["network"]).forward

    def wrong_inside(self, batch, draws, before=None):
        step = forward(self, batch, draws, before)
        truth = step.noisy.x0
        towards_zero = truth + 0.5 * (1 - 2 * (truth > 0).float())  # is not clamped
        return step._replace(prediction=step.prediction._replace(x0=truth.where(batch.condition <= 0, towards_zero)))

    monkeypatch.setattr(type(run.turns["network"]), "forward", wrong_inside)
    metrics = validate(run)
    assert metrics["mse/outside"] == pytest.approx(0, abs=1e-6)
    assert metrics["mse/lesion"] > 0.1


def test_bins_by_time_make_up_the_whole_loss(medgen, tiny, tmp_path):
    folder = tmp_path / "run"
    assert medgen("train", "bravo_rflow", *tiny, "training.steps=3", f"run.dir={folder}").code == 0
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    last = [line for line in lines if "loss/val" in line][-1]
    bins = [value for name, value in last.items() if name.startswith("loss/val/t_")]
    assert bins
    assert min(bins) <= last["loss/val"] <= max(bins)
    assert {"psnr/x0", "mse/lesion", "mse/outside", "loss/val/mse"} <= set(last)
