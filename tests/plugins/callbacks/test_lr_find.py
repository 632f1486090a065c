"""The learning-rate finder: a curve that is about the rate, a suggestion that can be doubted, a run left as it was.

Covers: medgen_builtins.callbacks._lr_finding, medgen_builtins.callbacks._lr_plot,
medgen_builtins.callbacks._lr_sweep, medgen_builtins.callbacks.lr_find.
"""

import copy
import math

import numpy as np
import pytest
import torch
from medgen_builtins.callbacks import _lr_finding
from medgen_builtins.callbacks._lr_finding import judge, number, smooth
from medgen_builtins.callbacks._lr_plot import HEIGHT, WIDTH, draw, plot
from medgen_builtins.callbacks._lr_sweep import Finder, Probe, ramp
from medgen_builtins.callbacks.lr_find import LrFind
from medgen_builtins.commands._verify_resume import differences
from medgen_builtins.strategies._rflow import RflowStrategy
from PIL import ImageColor

from medgen import Turn, TurnOutput
from medgen.config.recipe import load
from medgen.run.assemble import assemble
from medgen.training.trainer import Trainer

RATES = ramp(LrFind())
DECADES = np.log10(RATES)
QUIET = ("callbacks.previews=false", "callbacks.tensorboard=false", "callbacks.checkpoints=false")


@pytest.fixture
def run(tiny, tmp_path):
    run = assemble(load("bravo_rflow", [*tiny, *QUIET, "training.steps=20"]), tmp_path)
    yield run
    run.train.close()


def state(run):
    """All that a run must have afterwards as before."""
    optimizers = {name: each.state_dict() for name, each in run.optimizers.items()}
    whole = {name: run.state_dict()[name] for name in ("network", "averaged", "position")}
    turns = {name: turn.state_dict() for name, turn in run.turns.items()}
    return copy.deepcopy({**whole, "optimizers": optimizers, "turns": turns})


def same(one, two):
    torch.testing.assert_close(one, two, rtol=0, atol=0, equal_nan=True)


# The curve


def falling(centre=-3.0, turn=-2.0):
    """Scores from 1 to 0.2, falling fastest at `centre` (log10 of the rate), and rising from `turn` on."""
    return [0.2 + 0.8 / (1 + math.exp(6 * (x - centre))) + max(0.0, x - turn) * 5 for x in DECADES]


@pytest.mark.parametrize("centre", [-4.0, -3.0])
def test_the_suggestion_is_half_of_where_the_loss_falls_no_more_but_not_below_its_fastest_fall(
    centre,
):
    found = judge(RATES, falling(centre))
    assert 10**centre / 1.3 < found.steepest < 10**centre * 1.5
    assert 2 * found.steepest < found.bound <= 10**-1.9
    assert found.suggestion == max(found.steepest, found.bound / 2)


def test_what_comes_after_a_rise_is_luck():
    lucky = [*falling()[:80], *[0.01] * 20]
    assert lucky[79] > 3
    assert judge(RATES, lucky)[3:] == judge(RATES, falling())[3:]


@pytest.mark.parametrize(
    ("scores", "says"),
    [
        ([1 + 0.005 * math.sin(index) for index in range(100)], "stayed at 1"),
        ([1 + 0.01 * index for index in range(100)], "stayed at 1"),
        (falling(0.0, 1.0), "still falling at 1. Raise max_lr"),
        (falling(-6.0), "fell fastest at 1e-06, the first. Lower min_lr"),
        ([1.0, 0.9, 2.0, math.nan], "was lost: 3, expected 10"),
        ([math.nan], "was lost: 0, expected 10"),
        ([], "was lost: 0, expected 10"),
    ],
)
def test_a_curve_that_says_nothing_is_inconclusive_and_the_verdict_says_why(scores, says):
    found = judge(RATES, scores)
    assert (found.suggestion, found.steepest, found.bound) == (None, None, None)
    assert says in found.verdict
    assert _lr_finding.override(found) == ""


def test_noise_of_a_hundredth_moves_the_suggestion_by_less_than_a_factor_of_two():
    noise = np.random.default_rng(0).normal(0, 0.01, (20, 100))
    rates = [judge(RATES, list(falling() + each)).suggestion for each in noise]
    assert max(rates) / min(rates) < 2


def test_smoothing_is_corrected_for_its_start():
    assert smooth([3.0] * 5) == pytest.approx([3.0] * 5)


# The sweep


def test_a_sweep_leaves_weights_averages_optimizers_and_position_as_they_were(run):
    trainer = Trainer(run)
    for _ in range(3):
        run.hooks.medgen_step_end(run=run, losses=trainer.step())
    run.limit(math.inf, 4)
    before, rate = state(run), run.learning_rate(3)
    found = Finder(LrFind(min_lr=1e-4, max_lr=1e-1, steps=12)).find(run)
    assert len(set(found.scores)) == len(found.scores) >= 3
    same(state(run), before)
    assert (run.stops.until, run.stopping, run.learning_rate(3)) == (4, None, rate)


def test_it_leaves_them_so_after_an_error_too(run, monkeypatch):
    before = state(run)
    monkeypatch.setattr(Probe, "score", lambda self: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        Finder(LrFind(steps=12)).find(run)
    same(state(run), before)


def test_the_seed_alone_decides_the_curve(run, tiny, tmp_path):
    finder = Finder(LrFind(min_lr=1e-4, max_lr=1e-2, steps=10))
    first, again = finder.find(run), finder.find(run)
    assert first == again
    other = assemble(
        load("bravo_rflow", [*tiny, *QUIET, "training.steps=20", "run.seed=1"]), tmp_path
    )
    assert finder.find(other).scores != first.scores
    other.train.close()


def test_a_sweep_ends_where_the_loss_is_lost(run):
    found = Finder(LrFind(min_lr=1e-3, max_lr=1e30, steps=60)).find(run)
    assert len(found.rates) == len(found.scores) < 60
    assert not math.isfinite(found.scores[-1]) or found.smoothed[-1] > 3 * min(found.smoothed)
    assert all(math.isfinite(each) for each in found.scores[:-1])


def test_the_times_of_the_probe_are_spread_evenly(tiny, tmp_path):
    run = assemble(
        load("bravo_rflow", [*tiny, *QUIET, "training.steps=1", "strategy.rflow.time=uniform"]),
        tmp_path,
    )
    counts = torch.histc(Probe(run).draws.t, 16, 0, 1000)
    assert counts.sum() == 64
    assert counts.min() >= 2  # for times drawn one by one this has a chance of 1 in 1,000
    run.train.close()


class Chasing(torch.nn.Module, Turn):
    """A second turn with a parameter of its own, that follows what the first put out."""

    name, betas = "chasing", (0.5, 0.9)

    def __init__(self):
        super().__init__()
        self.place = torch.nn.Parameter(torch.tensor(3.0))
        self.register_buffer("calls", torch.zeros(()))

    def draw(self, generator, batch):
        return ()

    def forward(self, batch, draws, before):
        self.calls += 1
        losses = (self.place - before.prediction.x0.flatten(1).mean(1)).square()
        return TurnOutput({"mse": losses}, before.prediction, before.noisy)


def test_every_turn_is_driven_at_the_rate_and_the_first_one_is_scored(tiny, tmp_path, monkeypatch):
    one = RflowStrategy.turns
    monkeypatch.setattr(
        RflowStrategy, "turns", lambda self, *given: [*one(self, *given), Chasing()]
    )
    run = assemble(load("bravo_rflow", [*tiny, *QUIET, "training.steps=20"]), tmp_path)
    seen, update = [], Trainer._update

    def noted(self, name, turn, record):
        update(self, name, turn, record)
        seen.append(
            (
                name,
                self.run.optimizers[name].param_groups[0]["lr"],
                run.turns["chasing"].place.item(),
            )
        )

    monkeypatch.setattr(Trainer, "_update", noted)
    settings, before = LrFind(min_lr=1e-4, max_lr=1e-2, steps=10), state(run)
    Finder(settings).find(run)
    assert [(name, rate) for name, rate, _ in seen] == [
        (name, rate) for rate in ramp(settings) for name in ("network", "chasing")
    ]
    assert seen[-1][2] < 3.0 - 1e-3
    same(state(run), before)
    assert Probe(run).turn is run.turns["network"]
    run.train.close()


# In a run, and what is left


def test_a_run_goes_on_as_if_nothing_had_been_measured(medgen, tiny, tmp_path):
    for name, more in (("with", ["callbacks.lr_find.steps=12"]), ("without", [])):
        options = [
            *tiny,
            *more,
            "training.steps=3",
            "callbacks.previews=false",
            f"run.dir={tmp_path / name}",
        ]
        assert medgen("train", "bravo_rflow", *options).code == 0
    assert differences(tmp_path / "with", tmp_path / "without") == []
    assert {each.name for each in (tmp_path / "with").glob("lr_finder*")} == {
        "lr_finder.png",
        "lr_finder.json",
    }


@pytest.mark.parametrize(
    ("place", "word"),
    [("steepest", "fastest fall"), ("suggestion", "suggested"), ("bound", "safe")],
)
def test_the_picture_has_a_mark_at_what_was_found(place, word):
    found = judge(RATES, falling())._replace(suggestion=2 * judge(RATES, falling()).steepest)
    figure = draw(found)
    (axes,) = figure.axes
    (line,) = [each for each in axes.lines if str(each.get_label()).startswith(word)]
    assert set(line.get_xdata()) == {getattr(found, place)}
    (text,) = [each for each in axes.get_legend().get_texts() if each.get_text().startswith(word)]
    assert text.get_text().endswith(number(getattr(found, place)))
    low, high = axes.get_xlim()
    assert low < getattr(found, place) < high


def test_the_picture_is_mostly_white_and_shows_the_curve():
    picture = plot(judge(RATES, falling()))
    assert picture.shape == (HEIGHT, WIDTH, 3)
    assert 0.8 < (picture == 255).mean() < 0.999
    assert (np.abs(picture.astype(int) - ImageColor.getrgb("#1f5fa8")).max(2) < 20).sum() > 100


@pytest.mark.parametrize("scores", [[math.nan], [1.0], [1.0, math.inf], [0.0] * 30, [-1.0] * 30])
def test_a_poor_curve_is_drawn_too(scores):
    assert plot(judge(RATES, scores)).shape == (HEIGHT, WIDTH, 3)
