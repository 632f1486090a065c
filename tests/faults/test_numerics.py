"""Losses that are not finite, and too little memory.

Covers: medgen.training.memory_advice, medgen.training.memory_check, medgen.training.readings,
medgen.training.sampling.
"""

from __future__ import annotations

import json

import pytest
import torch
from faults.forkserver import differences
from faults.variants import SMALL

from medgen.run import checkpoint, tensor_tree
from medgen.run.run import TrainingRun
from medgen.training import memory_check
from medgen.training.objective import Objective

SHORT = (*SMALL, "training.validate_every=0")


@pytest.fixture
def common(tiny, tmp_path):
    return (
        "bravo_rflow",
        *tiny,
        *SHORT,
        "callbacks.checkpoints.every_steps=1",
        f"run.dir={tmp_path}/r",
    )


def failing(patch, steps, error=None):
    """Losses that are NaN, or an error, in these steps (from 1)."""
    forward, calls = Objective.forward, []

    def broken(self, batch, draws, before=None):
        calls.extend([1] * self.training)
        step = forward(self, batch, draws, before)
        if not self.training or len(calls) not in steps:
            return step
        if error:
            raise error
        return step._replace(
            losses={name: each * float("nan") for name, each in step.losses.items()}
        )

    patch.setattr(Objective, "forward", broken)


@pytest.mark.row("N1")
def test_one_step_that_is_not_finite_is_left_out_and_named_with_its_slices(
    medgen, common, tmp_path, monkeypatch
):
    failing(monkeypatch, [3])
    result = medgen("train", *common, "training.steps=6")
    assert result.code == 0
    assert "step 3 was not finite and is left out (slices " in result.err
    state = checkpoint.load(tmp_path / "r/latest.pt")
    assert state["position"]["step"] == 6
    assert {int(each["step"]) for each in state["optimizers"]["network"]["state"].values()} == {5}
    lines = [json.loads(line) for line in (tmp_path / "r/metrics.jsonl").read_text().splitlines()]
    assert [line["loss/train"] is None for line in lines] == [
        False,
        False,
        True,
        False,
        False,
        False,
    ]
    assert [line.get("skipped", 0) for line in lines] == [0, 0, 1, 0, 0, 0]


@pytest.mark.row("N1")
def test_too_many_in_a_row_end_the_run_with_the_last_good_step(
    medgen, common, tmp_path, monkeypatch
):
    failing(monkeypatch, range(3, 99))
    result = medgen("train", *common, "training.steps=40", "training.max_skipped=4")
    assert (result.code, "5 steps in a row were not finite, last good: step 2" in result.err) == (
        6,
        True,
    )
    assert all(
        torch.isfinite(each).all()
        for _, each in tensor_tree.tensors(checkpoint.load(tmp_path / "r/latest.pt"))
    )


@pytest.mark.row("N2")
def test_weights_that_are_not_finite_are_never_written(medgen, common, tmp_path, monkeypatch):
    from medgen.training.trainer import Trainer

    step = Trainer.step

    def poisoned(self):
        losses = step(self)
        if self.run.step == 3:
            with torch.no_grad():
                next(iter(self.run.network.parameters())).view(-1)[0] = float("inf")
        return losses

    monkeypatch.setattr(Trainer, "step", poisoned)
    result = medgen("train", *common, "training.steps=6")
    assert (result.code, "has NaN or infinity, so nothing was written" in result.err) == (6, True)
    assert checkpoint.load(tmp_path / "r/latest.pt")["position"]["step"] == 2


CUDA = (
    "CUDA out of memory. Tried to allocate 25.30 GiB. GPU 0 has a total capacity of 79.11 GiB of which 24.60 GiB is "
    "free. Process 1 has 54.00 GiB memory in use."
)
LESS = "Use training.accumulate=2 (same batch, less memory) or network.unet.checkpointing=true (same result, slower)"


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (torch.OutOfMemoryError(CUDA), "tried 25.30 GiB, 24.60 GiB free"),
        (
            RuntimeError(
                "DefaultCPUAllocator: can't allocate memory: you tried to allocate 99 bytes."
            ),
            "tried 99 bytes",
        ),
    ],
)
@pytest.mark.row("N4")
def test_out_of_memory_says_what_would_fit_and_that_continues_the_run(
    error, said, medgen, common, tmp_path, monkeypatch
):
    with monkeypatch.context() as patch:
        failing(patch, [3], error)
        result = medgen("train", *common, "training.steps=4")
    assert result.code == 7
    assert f"out of memory at step 3, {said}. {LESS}, then continue: " in result.err
    assert checkpoint.load(tmp_path / "r/latest.pt")["position"]["step"] == 2
    words = result.err.strip().split("medgen train ")[1].split()
    assert words == ["--resume", f"{tmp_path}/r", "training.accumulate=2"]
    assert medgen("train", *words).code == 0


@pytest.mark.row("N4")
def test_once_a_part_of_a_batch_is_one_sample_only_checkpointing_is_left_and_it_continues_the_run(
    medgen, common, tmp_path, monkeypatch
):
    """And where that is on, nothing but a smaller network or image."""
    common = (*common, "training.steps=4", "training.accumulate=4")
    with monkeypatch.context() as patch:
        failing(patch, [9], torch.OutOfMemoryError(CUDA))
        result = medgen("train", *common)
    words = result.err.strip().split("medgen train ")[1].split()
    assert words == ["--resume", f"{tmp_path}/r", "network.unet.checkpointing=true"]
    with monkeypatch.context() as patch:
        failing(patch, [1], torch.OutOfMemoryError(CUDA))
        assert "Use a smaller network or image, then" in medgen("train", *words).err
    assert medgen("train", *words).code == 0
    assert medgen("train", *common, f"run.dir={tmp_path}/whole").code == 0
    assert differences(tmp_path / "whole", tmp_path / "r") == []


# Too little memory, found before the first step


def rehearsing(patch):
    """As on a GPU, where memory is a fixed budget."""
    patch.setattr(memory_check, "due", lambda run: not run.complete)


@pytest.mark.parametrize(
    ("where", "what", "advice"),
    [
        ("medgen.training.objective:Objective.forward", "training", f"{LESS}, then"),
        (
            "medgen.training.validation:Validation._add",
            "validation",
            "Use a smaller training.batch_size, network or image in a new run.\n",
        ),
        (
            "medgen.training.sampling:sample",
            "previews",
            "Use callbacks.previews.count=1, then continue: medgen train --resume",
        ),
    ],
)
@pytest.mark.row("N5")
def test_what_will_not_fit_later_is_told_before_the_first_step(
    where, what, advice, medgen, tiny, tmp_path, monkeypatch
):
    def full(*_, **__):
        raise torch.OutOfMemoryError(CUDA)

    rehearsing(monkeypatch)
    module, name = where.split(":")
    monkeypatch.setattr(f"{module}.{name}", full)
    common = ("bravo_rflow", *tiny, *SMALL[:2], "training.steps=2", f"run.dir={tmp_path}/r")
    result = medgen("train", *common, "callbacks.tensorboard=false")
    assert result.code == 7
    said = f"out of memory at the pre-flight check of {what}, tried 25.30 GiB, 24.60 GiB free. {advice}"
    assert said in result.err, result.err
    assert checkpoint.load(tmp_path / "r/latest.pt")["position"]["step"] == 0


@pytest.mark.parametrize("name", ["bravo_rflow", pytest.param("seg_ddpm", marks=pytest.mark.slow)])
@pytest.mark.row("N5")
def test_the_memory_check_changes_no_bit(name, medgen, tiny, tmp_path, monkeypatch):
    options = (
        "network.unet.dropout=0.2",
        "training.accumulate=2",
        "training.steps=4",
        "training.epoch_steps=2",
    )
    common = (
        name,
        *tiny,
        *SMALL[:2],
        *options,
        "training.val_batches=1",
        "callbacks.tensorboard=false",
    )
    assert medgen("train", *common, f"run.dir={tmp_path}/without").code == 0
    rehearsing(monkeypatch)
    assert medgen("train", *common, f"run.dir={tmp_path}/with").code == 0
    with monkeypatch.context() as patch:
        patch.setattr(
            TrainingRun,
            "stop_agreed",
            lambda self: self.step == 3 and (self.stop("SIGTERM") or True),
        )
        assert medgen("train", *common, f"run.dir={tmp_path}/parts").code == 75
    assert medgen("train", "--resume", tmp_path / "parts").code == 0
    for each in ("with", "parts"):
        assert differences(tmp_path / "without", tmp_path / each) == []
    pictures = [
        sorted(path.name for path in (tmp_path / each / "previews").iterdir())
        for each in ("without", "with")
    ]
    assert pictures[0] == pictures[1]


@pytest.mark.row("N5")
def test_the_memory_check_leaves_gradients_generators_buffers_and_optimizers_as_they_were(
    tiny, tmp_path, monkeypatch
):
    from medgen.config.recipe import load
    from medgen.run.assemble import assemble
    from medgen.training.trainer import Trainer

    run = assemble(
        load("bravo_rflow", [*tiny, *SMALL[:2], "callbacks.tensorboard=false"]), tmp_path
    )
    run.network.register_buffer("count", torch.zeros(1))
    run.network.register_forward_hook(lambda module, *_: module.count.add_(1) and None)
    before = {name: each.clone() for name, each in run.network.state_dict().items()}
    generator, files = torch.get_rng_state(), sorted(tmp_path.rglob("*"))
    memory_check.check(run, Trainer(run)._passes)
    assert all(torch.equal(each, before[name]) for name, each in run.network.state_dict().items())
    assert torch.equal(torch.get_rng_state(), generator)
    assert all(each.grad is None for each in run.network.parameters())
    assert (dict(run.optimizers["network"].state), run.step, run.trial) == ({}, 0, None)
    assert sorted(tmp_path.rglob("*")) == files
    assert run.metrics_file.length() == 0
    run.train.close()
