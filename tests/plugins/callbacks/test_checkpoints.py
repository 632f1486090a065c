"""What is kept of a run, and which of it is best."""

import pytest
import torch

from medgen.config.recipe import load


@pytest.fixture
def saving(tiny, tmp_path):
    class Run:
        dir, step, epochs_ended, epoch_due, saved = tmp_path, 0, 0, False, []

        def save(self, name="latest.pt"):
            self.saved.append(name)
            torch.save({}, self.dir / name)
            return self.dir / name

    def build(**options):
        overrides = [f"callbacks.checkpoints.{key}={value}" for key, value in options.items()]
        recipe = load("bravo_rflow", [*tiny, "training.steps=1", *overrides])
        run = Run()
        run.saved = []
        return recipe.callbacks["checkpoints"].build(run), run

    return build


def end_epochs(saving, run, values, name="loss/val"):
    best = []
    for number, value in enumerate(values, 1):
        run.step, run.epochs_ended, run.saved[:] = number, number, []
        saving.medgen_epoch_end(run, {} if value is None else {name: value})
        best.append("best.pt" in run.saved)
    return best


def test_best_is_the_lowest_and_neither_nan_nor_nothing_is(saving):
    assert end_epochs(*saving(), [3.0, 2.0, float("nan"), 2.5, None, 0.0]) == [True, True, False, False, False, True]


def test_a_minus_makes_the_highest_best(saving):
    assert end_epochs(*saving(metric='"-psnr/x0"'), [20.0, 25.0, 24.0], "psnr/x0") == [True, True, False]


def test_the_newest_epochs_are_kept_and_nothing_else_is_touched(saving, tmp_path):
    (tmp_path / "epoch_notes.txt").write_text("mine")
    end_epochs(*saving(every_epochs=2, keep=2), [1.0] * 9)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert [name for name in names if name.startswith("epoch")] == [
        "epoch_00006.pt",
        "epoch_00008.pt",
        "epoch_notes.txt",
    ]


def test_every_so_many_steps_the_latest_is_saved(saving):
    callback, run = saving(every_steps=2)
    for step in range(1, 6):
        run.step = step
        callback.medgen_step_end(run)
    assert run.saved == ["latest.pt"] * 2
