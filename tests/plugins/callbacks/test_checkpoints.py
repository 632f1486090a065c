"""What is kept of a run, and which of it is best."""

import pytest
import torch
from faults.variants import AUTOENCODER, SMALL
from medgen_builtins.strategies.rflow import Rflow

from medgen import StrategySettings
from medgen.config.checks import metrics
from medgen.config.recipe import load
from medgen.errors import RecipeError
from medgen.run.assemble import assemble
from medgen.training.trainer import validate


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
        run.recipe, run.saved = recipe, []
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
    assert end_epochs(*saving(), [3.0, 2.0, float("nan"), 2.5, None, 0.0]) == [
        True,
        True,
        False,
        False,
        False,
        True,
    ]


def test_a_minus_makes_the_highest_best(saving):
    assert end_epochs(*saving(metric='"-psnr/x0"'), [20.0, 25.0, 24.0], "psnr/x0") == [
        True,
        True,
        False,
    ]


def test_the_highest_of_a_gain_is_best_without_a_minus_too(saving):
    assert end_epochs(*saving(metric="psnr/x0"), [20.0, 25.0, 24.0], "psnr/x0") == [
        True,
        True,
        False,
    ]


@pytest.mark.parametrize(
    "metric", ["loss/val", "loss/val/mse", "loss/val/t_800_1000", "mse/lesion", "-psnr/x0"]
)
def test_whatever_validation_gives_may_be_what_is_best(metric):
    assert (
        load("bravo_rflow", [f'callbacks.checkpoints.metric="{metric}"'])
        .callbacks["checkpoints"]
        .metric
        == metric
    )


@pytest.mark.parametrize(
    ("metric", "said"),
    [
        (
            "loss/val/l1",
            'got "loss/val/l1", which no loss, strategy or callback of this recipe gives',
        ),
        ("psnr", "Did you mean psnr/x0"),
        ("kid", "Choose one of loss/val, "),
        ("-loss/val", "but loss/val is better where it is low. Leave the minus out"),
    ],
)
def test_a_metric_that_nothing_gives_is_told_before_training(metric, said):
    with pytest.raises(RecipeError, match=rf"callbacks\.checkpoints\.metric: .*{said}"):
        load("bravo_rflow", [f'callbacks.checkpoints.metric="{metric}"'])


@pytest.mark.parametrize(
    ("name", "more"), [("bravo_rflow", ()), ("vae_bravo", (*SMALL, *AUTOENCODER))]
)
def test_no_figure_of_validation_is_refused(name, more, tiny, tmp_path):
    """But for those of latent channels, which nothing is best by."""
    recipe = load(name, [*tiny, *more, "training.steps=1", "callbacks.previews=false"])
    run = assemble(recipe, tmp_path)
    found = {each for each in validate(run) if not each.startswith("latent/")}
    assert {"loss/val"} < found <= {*metrics(recipe)}
    run.train.close()


def test_the_metrics_of_a_strategy_that_does_not_say_are_not_checked(monkeypatch):
    monkeypatch.setattr(Rflow, "metrics", StrategySettings.metrics)
    assert (
        load("bravo_rflow", ["callbacks.checkpoints.metric=own"]).callbacks["checkpoints"].metric
        == "own"
    )


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
