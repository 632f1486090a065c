"""The loop: what it promises about position, resuming, averaging and accumulation.

Covers: medgen.run.optim, medgen.training.objective, medgen.training.turn_values.
"""

import json

import pytest
import torch

from medgen.api.tables import TrainingSettings
from medgen.run import checkpoint, tensor_tree
from medgen.run.optim import learning_rate
from medgen.training.trainer import Trainer

VARIANTS = {
    "bravo_rflow": ("training.accumulate=2",),
    "seg_ddpm": ("losses.mse=false", "losses.min_snr.gamma=5"),
    "dual_rflow": ("space=space_to_depth", "data.image_size=32", "callbacks.ema=false"),
}


def same(one, two):
    """Every tensor and every plain value but the clock's."""
    first, second = (dict(tensor_tree.tensors(state)) for state in (one, two))
    assert first.keys() == second.keys()
    return [name for name in first if not torch.equal(first[name], second[name])]


def losses(folder):
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [
        {k: v for k, v in line.items() if k in ("step", "epoch") or k.startswith("loss")}
        for line in lines
    ]


def stop_after(steps, patch):
    """As a signal would that comes during that step."""
    step = Trainer.step

    def stopping(self):
        losses = step(self)
        if self.run.step == steps:
            self.run.stop("SIGTERM")
        return losses

    patch.setattr(Trainer, "step", stopping)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if name == "bravo_rflow" else pytest.mark.slow)
        for name in VARIANTS
    ],
)
def test_three_steps_and_three_resumed_equal_six(name, medgen, tiny, tmp_path, monkeypatch):
    common = (*tiny, *VARIANTS[name], "callbacks.previews=false", "training.steps=6")
    assert medgen("train", name, *common, f"run.dir={tmp_path}/whole").code == 0
    parts = tmp_path / "parts"
    with monkeypatch.context() as patch:
        stop_after(3, patch)
        stopped = medgen("train", name, *common, f"run.dir={parts}")
    assert stopped.code == 75
    assert f"medgen train --resume {parts}" in stopped.err
    assert checkpoint.load(parts / "latest.pt")["position"]["step"] == 3
    assert medgen("train", "--resume", parts).code == 0
    whole, resumed = (checkpoint.load(tmp_path / each / "latest.pt") for each in ("whole", "parts"))
    assert same(whole, resumed) == []
    assert whole["position"] == resumed["position"]
    assert losses(tmp_path / "whole") == losses(parts)


def test_validation_previews_and_logging_change_no_weight(medgen, tiny, tmp_path):
    quiet = ("training.validate_every=0", "callbacks.previews=false", "callbacks.tensorboard=false")
    loud = (
        "training.validate_every=1",
        "training.epoch_steps=2",
        "callbacks.progress.every_steps=1",
    )
    for name, extra in {"quiet": quiet, "loud": loud}.items():
        assert (
            medgen(
                "train",
                "bravo_rflow",
                *tiny,
                *extra,
                "training.steps=4",
                f"run.dir={tmp_path}/{name}",
            ).code
            == 0
        )
    one, two = (checkpoint.load(tmp_path / each / "latest.pt") for each in ("quiet", "loud"))
    assert (
        same(
            {"n": one["network"], "a": one["averaged"]}, {"n": two["network"], "a": two["averaged"]}
        )
        == []
    )


def test_accumulation_gives_the_gradient_of_the_whole_batch(medgen, tiny, tmp_path):
    for parts in (1, 2, 4):
        options = (
            "training.steps=1",
            f"training.accumulate={parts}",
            f"run.dir={tmp_path}/{parts}",
        )
        assert medgen("train", "bravo_rflow", *tiny, *options).code == 0
    norms = [
        json.loads((tmp_path / str(n) / "metrics.jsonl").read_text().splitlines()[0])["grad_norm"]
        for n in (1, 2, 4)
    ]
    assert norms == pytest.approx([norms[0]] * 3, rel=1e-4)


def test_a_step_that_is_not_finite_changes_nothing_and_many_in_a_row_end_the_run(
    medgen, tiny, tmp_path, monkeypatch
):
    from medgen.training.objective import Objective

    forward = Objective.forward
    calls = []

    def broken(self, batch, draws, before=None):
        calls.extend([1] * self.training)
        step = forward(self, batch, draws, before)
        return (
            step._replace(losses={k: v * float("nan") for k, v in step.losses.items()})
            if len(calls) > 2
            else step
        )

    monkeypatch.setattr(Objective, "forward", broken)
    options = (
        "training.steps=40",
        "training.max_skipped=5",
        "callbacks.progress.every_steps=1",
        "training.validate_every=0",
    )
    result = medgen(
        "train",
        "bravo_rflow",
        *tiny,
        *options,
        "callbacks.checkpoints.every_steps=1",
        f"run.dir={tmp_path}/r",
    )
    assert result.code == 6
    assert "last good: step 2" in result.err
    state = checkpoint.load(tmp_path / "r" / "latest.pt")
    assert all(torch.isfinite(each).all() for _, each in tensor_tree.tensors(state))


@pytest.mark.parametrize("schedule", ["cosine", "linear", "constant"])
def test_the_rate_follows_its_closed_form(schedule):
    settings = TrainingSettings(
        steps=100, learning_rate=2.0, warmup_steps=10, schedule=schedule, min_lr=0.1
    )
    rates = [learning_rate(settings, step, 100) for step in range(100)]
    assert rates[:10] == pytest.approx([0.2 * (n + 1) for n in range(10)])
    middle = {"cosine": 1.1, "linear": 1.1, "constant": 2.0}[schedule]
    assert rates[55] == pytest.approx(middle)
    assert rates[10] == pytest.approx(2.0)
