"""Training at growing sizes: when a phase ends, what it hands on, and that no interruption changes the result.

Covers: medgen.training.phases, medgen_builtins.callbacks._plateau, medgen_builtins.callbacks._progressive.
"""

from __future__ import annotations

import contextlib
import io
import json
import math
import os
import random
import signal
from pathlib import Path

import pytest
import torch
from faults.dying import die_at
from faults.forkserver import Server, differences, flat
from medgen_builtins.callbacks._plateau import Plateau
from medgen_builtins.callbacks.progressive_vae import ProgressiveVae
from medgen_builtins.commands import _verify_resume as verify_resume

from medgen.config.recipe import load
from medgen.run import checkpoint
from medgen.training import dry_run
from medgen.training.trainer import Trainer

PHASES = ("phase_16", "phase_32", "phase_64")
KEY = "callbacks.progressive_vae"
PLUGIN = "medgen_builtins.callbacks._progressive"


def fired_at(curve, **settings):
    """The epoch, from 1, at which the detector fires; None: never."""
    plateau = Plateau(ProgressiveVae(**settings).rule)
    return next((epoch for epoch, value in enumerate(curve, 1) if plateau.add(value)), None)


@pytest.mark.parametrize("window", [1, 10, 30])
def test_a_curve_that_halves_never_fires(window):
    assert fired_at((2.0**-epoch for epoch in range(1000)), window=window) is None


@pytest.mark.parametrize("window", [1, 10, 100])
@pytest.mark.parametrize(("min_epochs", "patience"), [(20, 10), (1, 1), (45, 3)])
def test_a_flat_curve_fires_at_exactly_min_epochs_and_patience(min_epochs, patience, window):
    settings = {"min_epochs": min_epochs, "patience": patience, "window": window}
    assert fired_at([0.5] * 300, **settings) == min_epochs + patience


def test_a_noisy_falling_curve_does_not_fire_and_fires_once_it_is_flat():
    noise = random.Random(0)
    falling = [math.exp(-epoch / 100) * noise.uniform(0.9, 1.1) for epoch in range(300)]
    flat_part = [falling[-1] * noise.uniform(0.9, 1.1) for _ in range(100)]
    assert fired_at(falling) is None
    assert 300 + 10 <= fired_at(falling + flat_part) <= 300 + 60


def test_a_curve_that_rises_fires_as_a_flat_one_does():
    assert fired_at([1.0 + epoch for epoch in range(100)], min_epochs=5, patience=4) == 9


def test_progress_in_steps_smaller_than_the_least_improvement_adds_up():
    assert (
        fired_at([0.999**epoch for epoch in range(500)], min_improvement=0.5, window=1, patience=6)
        is None
    )


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_value_that_is_not_finite_is_no_progress_and_never_the_best(bad):
    settings = {"min_epochs": 2, "patience": 3, "window": 2}
    assert fired_at([bad] * 20, **settings) == 5
    assert fired_at([0.5, 0.5, bad, 0.5, bad], **settings) == 5
    assert fired_at([8.0, 4.0, bad, 1.0, bad, bad, 0.1, bad, bad, bad], **settings) == 10


def test_a_gain_is_told_by_a_leading_minus():
    plateau = Plateau(ProgressiveVae(metric="-psnr", min_epochs=1, patience=3, window=1).rule)
    assert not any(plateau.add(plateau._value({"psnr": 20.0 + epoch})) for epoch in range(50))
    assert [plateau.add(plateau._value({"psnr": 69.0})) for _ in range(3)] == [False, False, True]


def test_the_detector_goes_on_from_its_state_as_if_it_had_never_stopped():
    rule, noise = ProgressiveVae(min_epochs=3, patience=6, window=4).rule, random.Random(1)
    whole = parts = Plateau(rule)
    for _ in range(40):
        value = noise.choice([1.0, 1.01, 0.98, math.nan])
        restored = Plateau(rule)
        restored.load_state_dict(json.loads(json.dumps(parts.state_dict())))
        parts = restored
        assert parts.add(value) == whole.add(value)
        assert parts.state_dict() == whole.state_dict()


@pytest.fixture
def growing(tiny):
    """A diffusion model at three sizes; the first two end at a plateau after two epochs of two steps."""
    return (*tiny, *SMALL)


@pytest.fixture(scope="module")
def grown(train, tmp_path_factory):
    """Such a run that nothing disturbed."""
    return train(tmp_path_factory.mktemp("grown") / "r", "bravo_rflow", SMALL)


AUTOENCODER = (
    "network=autoencoder",
    "network.autoencoder.channels=[8,16]",
    "network.autoencoder.latent_channels=2",
    "network.autoencoder.num_res_blocks=1",
    "strategy.vae.discriminator.channels=8",
    "strategy.vae.discriminator.start_step=1",
    "losses.perceptual=false",
)
"""The shipped recipe, whose discriminator joins at the second step and is deeper at 64 px."""
SMALL = (
    f"{KEY}.sizes=[16,32,64]",
    f"{KEY}.batch_sizes=[4,2,1]",
    f"{KEY}.min_epochs=1",
    f"{KEY}.patience=1",
    f"{KEY}.min_improvement=90",
    f"{KEY}.final_epochs=2",
    "training.epochs=5",
    "training.epoch_steps=2",
    "training.val_batches=1",
    "callbacks.checkpoints.every_steps=1",
    "callbacks.ema.decay=0.9",
    "callbacks.previews=false",
    "callbacks.tensorboard=false",
)


def signal_at(patch, owner, name, call=1):
    """SIGTERM comes at the end of the given call."""
    real, calls = getattr(owner, name), iter(range(1, 1 << 30))

    def signalled(*arguments, **keywords):
        result = real(*arguments, **keywords)
        if next(calls) == call:
            os.kill(os.getpid(), signal.SIGTERM)
        return result

    patch.setattr(owner, name, signalled)


def wrong(one, two):
    """What differs between two progressive runs."""
    found = [f"{name}/{each}" for name in PHASES for each in differences(one / name, two / name)]
    finals = [flat(checkpoint.load(each / "final_model.pt")) for each in (one, two)]
    found += [name for name in finals[0] if not same(*(each.get(name) for each in finals))]
    states = [(each / "progressive_state.pt").read_bytes() for each in (one, two)]
    return found + ["progressive_state.pt"] * (states[0] != states[1])


def same(one, two):
    if isinstance(one, torch.Tensor):
        return one.shape == getattr(two, "shape", None) and torch.equal(one, two)
    return one == two


KILLS = [
    ("medgen.training.trainer:Trainer.step", 2, False),  # in the first phase
    ("medgen.training.trainer:fit", 1, True),  # it is done, and nobody knows
    (f"{PLUGIN}:Progressive._save", 1, True),  # it is noted, and the second has not begun
    (f"{PLUGIN}:carry_over", 1, True),  # it has its weights, and nothing is saved
    ("medgen.training.trainer:Trainer.step", 3, True),  # in the second
    (
        "medgen_builtins.callbacks._plateau:Plateau.add",
        1,
        True,
    ),  # its plateau is seen and not saved
    (f"{PLUGIN}:Progressive._save", 1, False),
    ("medgen.training.trainer:Trainer.step", 3, False),  # in the last
    (f"{PLUGIN}:Progressive._finish", 1, False),
]


def test_killed_in_each_phase_and_between_phases_it_ends_as_if_never_killed(
    grown_autoencoder, tiny, tmp_path
):
    server, (whole, *_) = Server(tmp_path), grown_autoencoder
    given = ("train", "vae_progressive", *tiny, *SMALL, *AUTOENCODER, f"run.dir={tmp_path}/r")
    for kill in KILLS:
        assert server.run(*given, hook=die_at, given=kill).code == 137, kill
        given = ("train", "--resume", tmp_path / "r")
    ended = server.run(*given)
    assert ended.code == 0, ended.err
    assert wrong(whole, tmp_path / "r") == []


@pytest.fixture
def stopped(medgen, growing, tmp_path, monkeypatch):
    """Stops a new run by a signal at a call, and gives its folder."""

    def stop(owner, name, call=1, folder=tmp_path / "r"):
        with monkeypatch.context() as patch:
            signal_at(patch, owner, name, call)
            ended = medgen("train", "bravo_rflow", *growing, f"run.dir={folder}")
        assert ended.code == 75, ended
        assert f"medgen train --resume {folder}" in ended.err
        return folder

    return stop


@pytest.mark.parametrize("call", [7, *(pytest.param(n, marks=pytest.mark.slow) for n in (1, 10))])
def test_a_signal_in_a_phase_saves_it_and_resuming_goes_on_there(call, stopped, medgen):
    folder = stopped(Trainer, "step", call)
    name = PHASES[(call - 1) // 4]
    assert checkpoint.load(folder / name / "latest.pt")["position"]["step"] == (call - 1) % 4 + 1
    assert json.loads((folder / "metadata.json").read_text())["status"] == "stopped"
    ended = medgen("train", "--resume", folder)
    assert ended.code == 0, ended.err
    assert f"{name}  batches of" in ended.out
    assert all(
        f"{earlier}  batches of" not in ended.out for earlier in PHASES[: PHASES.index(name)]
    )
    assert json.loads((folder / "metadata.json").read_text())["status"] == "complete"


def test_a_phase_begins_with_the_averaged_weights_of_the_one_before_and_new_optimizers(stopped):
    from medgen_builtins.callbacks import _progressive

    folder = stopped(_progressive, "carry_over")
    before, after = (checkpoint.load(folder / name / "latest.pt") for name in PHASES[:2])
    assert after["position"]["step"] == 0
    for kept in ("network", "averaged"):
        assert all(
            torch.equal(after[kept][name], value) for name, value in before["averaged"].items()
        )
    assert after["optimizers"]["network"]["state"] == {}
    assert "plateau" in after["callbacks"]


@pytest.fixture(scope="module")
def grown_autoencoder(train, tmp_path_factory):
    """A run that nothing disturbed, which weights a discriminator had after each carry-over, and what was printed."""
    from medgen_builtins.callbacks import _progressive

    real, seen, printed = _progressive.carry_over, [], io.StringIO()

    def carry_over(child, before):
        fresh = {
            name: each.clone() for name, each in child.turns["discriminator"].state_dict().items()
        }
        real(child, before)
        old = checkpoint.load(before / "latest.pt")["turns"]["discriminator"]
        now = child.turns["discriminator"].state_dict()
        seen.append([all(same(now[name], kept.get(name)) for name in now) for kept in (fresh, old)])

    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(printed):
        patch.setattr(_progressive, "carry_over", carry_over)
        folder = tmp_path_factory.mktemp("grown") / "whole"
        train(folder, "vae_progressive", (*SMALL, *AUTOENCODER))
    return folder, seen, printed.getvalue()


def test_a_discriminator_goes_along_where_it_fits_and_else_begins_anew_with_a_word(
    grown_autoencoder,
):
    _, fresh_or_old, printed = grown_autoencoder
    assert fresh_or_old == [[False, True], [True, False]]  # to 32 px, to 64 px
    assert printed.count("the discriminator begins anew") == 1


def goes_on(medgen, patch, *words):
    """Resume until the end of the first step."""
    with patch.context() as short:
        signal_at(short, Trainer, "step")
        return medgen("train", "--resume", *words).code == 75


def test_a_signal_while_a_phase_is_prepared_ends_at_once(stopped, medgen, monkeypatch):
    from medgen.run import assemble

    folder = stopped(assemble, "prepare_data", 2)
    assert not (folder / "phase_32" / "latest.pt").exists()
    assert goes_on(medgen, monkeypatch, folder)
    assert checkpoint.load(folder / "phase_32" / "latest.pt")["position"]["step"] == 1


def test_a_time_limit_that_no_step_fits_into_is_a_mistake_and_resuming_without_it_goes_on(
    medgen, growing, tmp_path, monkeypatch
):
    folder = tmp_path / "r"
    has_built = "medgen.data.store.cache_folder.has_built"
    monkeypatch.setattr(has_built, lambda began: False)  # time for that is no mistake
    ended = medgen(
        "train", "bravo_rflow", *growing, f"run.dir={folder}", "training.time_limit=1e-6"
    )
    assert (ended.code, "no step fits into what is left" in ended.err) == (2, True)
    assert medgen("train", "--resume", folder, "training.time_limit=1e-6").code == 2
    assert goes_on(medgen, monkeypatch, folder, "training.time_limit=0")
    assert checkpoint.load(folder / "phase_16" / "latest.pt")["position"]["step"] == 1


def test_auto_goes_on_with_the_run_and_not_with_a_phase_and_says_when_it_is_complete(
    medgen, growing, tmp_path, monkeypatch
):
    given = (
        "train",
        "bravo_rflow",
        *growing,
        f"run.root={tmp_path}/runs",
        "run.folder=p/{timestamp}",
    )
    with monkeypatch.context() as patch:
        signal_at(patch, Trainer, "step", 6)
        assert medgen(*given).code == 75
    assert medgen(*given, "--resume", "auto").code == 0
    [folder] = (tmp_path / "runs" / "p").iterdir()
    assert {each.name for each in folder.iterdir()} == {
        *PHASES, "final_model.pt", "progressive_state.pt", "recipe.toml", "metadata.json", ".lock",
    }  # fmt: skip
    again = medgen("train", "--resume", folder)
    assert (again.code, "already complete (3 of 3 phases)" in again.out) == (0, True)
    assert medgen("train", "bravo_rflow", *growing, f"run.dir={folder}").code == 2


def test_the_final_model_is_a_checkpoint_of_the_last_size_that_needs_nothing_else(
    grown,
):
    from medgen.config.recipe import from_toml

    state = checkpoint.load(grown / "final_model.pt")
    recipe = from_toml(state["recipe"])
    assert (recipe.data.image_size, recipe.training.batch_size) == (64, 1)
    assert "progressive_vae" not in recipe.callbacks
    assert state["position"]["step"] == 4  # two epochs of two steps


def test_steps_cap_every_phase_and_fast_debug_fits(medgen, growing, tmp_path):
    options = ("--with", "fast_debug", "training.steps=3", f"{KEY}.min_epochs=9")
    assert medgen("train", "bravo_rflow", *growing, *options, f"run.dir={tmp_path}/r").code == 0
    states = [checkpoint.load(tmp_path / "r" / name / "latest.pt") for name in PHASES]
    assert [state["position"]["step"] for state in states] == [3, 3, 3]


def test_a_dry_run_describes_every_phase(medgen, growing, monkeypatch):
    monkeypatch.setattr(dry_run, "MEASURED", 0.0)
    ended = medgen("train", "bravo_rflow", *growing, "--dry-run")
    assert (ended.code, ended.out.count("plan  "), ended.out.count("total  ")) == (0, 3, 3)


def test_a_metric_that_nobody_measures_is_told_with_those_that_there_are(medgen, growing, tmp_path):
    ended = medgen(
        "train", "bravo_rflow", *growing, f"run.dir={tmp_path}/r", f"{KEY}.metric=loss/vall"
    )
    assert ended.code == 2
    assert "got 'loss/vall', expected one of loss/val," in ended.err


def test_volumes_grow_in_proportion():
    given = [
        "losses.perceptual=false",
        "data.dimensions=3",
        "data.spacing=1",
        f"{KEY}.sizes=[96,192]",
    ]
    size = "data.image_size=[192,224,192]"
    recipe = load("vae_progressive", (*given, size, f"{KEY}.batch_sizes=[2,1]"))
    found = recipe.callbacks["progressive_vae"].phases(recipe)
    assert [each.data.image_size for each in found.values()] == [(96, 112, 96), (192, 224, 192)]
    assert [each.data.spacing for each in found.values()] == [2, 1]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ((f"{KEY}.batch_sizes=[4,2]",), f"{KEY}.batch_sizes: got 2 values, expected 3"),
        ((f"{KEY}.sizes=[16,64,32]",), f"{KEY}.sizes: got [16, 64, 32], expected rising sizes"),
        ((f"{KEY}.sizes=[16,16,32]",), f"{KEY}.sizes: got [16, 16, 32], expected rising sizes"),
        (
            (f"{KEY}.sizes=[]", f"{KEY}.batch_sizes=[]"),
            f"{KEY}.sizes: got [], expected at least one",
        ),
        ((f"{KEY}.sizes=[16,33,64]",), f"{KEY}.sizes[1]: got 33, which is 33 x 33 in the space"),
        (
            ("training.accumulate=2", f"{KEY}.batch_sizes=[4,2,1]"),
            f"training.accumulate: got 2, expected a divisor of training.batch_size = 1, in phase_64 of {KEY}",
        ),
        (("callbacks.checkpoints=false",), f"{KEY}: got no [callbacks.checkpoints]"),
        (("training.validate_every=0",), "training.validate_every: got 0, expected 1 or more"),
    ],
)
def test_a_mistake_is_one_line_that_names_the_phase(changes, says, medgen, growing, tmp_path):
    ended = medgen("train", "bravo_rflow", *growing, *changes, f"run.dir={tmp_path}/r")
    assert ended.code == 2
    assert says in ended.err
    assert len(ended.err.strip().splitlines()) == 1
    assert not Path(tmp_path / "r").exists()


@pytest.mark.slow
def test_verify_resume_compares_every_phase(medgen, growing, monkeypatch, tmp_path):
    monkeypatch.setattr(verify_resume, "START", "forkserver")
    Server(tmp_path)  # its processes have torch already
    ended = medgen("verify-resume", "bravo_rflow", *growing, "--steps", 1)
    assert (ended.code, "bit-identical" in ended.out) == (0, True), ended
    for name in ("one", "two"):
        for phase in PHASES:
            (tmp_path / name / phase).mkdir(parents=True)
            (tmp_path / name / phase / "metrics.jsonl").touch()
            value = float((name, phase) == ("two", "phase_32"))
            checkpoint.save(
                {"network": {"w": torch.tensor([value])}}, tmp_path / name / phase / "latest.pt"
            )
    found = verify_resume.differences(tmp_path / "one", tmp_path / "two")
    assert found == ["phase_32: network/w differs by up to 1.0e+00"]
