"""What a resumed run takes back, what it refuses, and what may differ.

Covers: medgen.api.run_state, medgen.config.compatibility, medgen.run.open, medgen.run.progress, medgen.run.run,
medgen.run.state, medgen.run.weights.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys

import pytest
import torch
from data.cohort import write_cohort
from faults.forkserver import Server, differences, flat, losses
from faults.variants import SMALL, VARIANTS, overrides
from medgen_builtins.commands import _verify_resume as verify_resume

from medgen.config.recipe import load
from medgen.run import checkpoint, folder, tensor_tree
from medgen.run.run import TrainingRun
from medgen.training.trainer import Trainer

SHORT = (*SMALL, "training.val_batches=1")
VOLUMES = ("bravo_rflow_3d", "bravo_rflow_latent_3d", "insert_3d")
"""Kinds of which one stands for all among the quick tests: autoencoders, trained on crops."""
EPOCHS = {10: 5, 24: 8}
"""Steps of a run that is stopped at each or some of its steps, and of its epochs."""
SOME = (1, 4, 5, 6)
"""Steps of the short one at which something is different: the first one, and those around an epoch's end."""
FEW = ("training.steps=4", "callbacks.checkpoints.every_steps=1", "training.validate_every=0")


@pytest.fixture
def server(tmp_path):
    return Server(tmp_path)


@pytest.fixture
def short(tiny):
    return (*tiny, *SHORT, *FEW)


@pytest.fixture(scope="module")
def once(train, tmp_path_factory):
    return train(tmp_path_factory.mktemp("once") / "trained", "bravo_rflow", (*SHORT, *FEW))


@pytest.fixture
def trained(once, tmp_path):
    """A run of four steps, for each test a copy of its own."""
    return shutil.copytree(once, tmp_path / "trained")


def chain(steps):
    """A run of so many steps, saved after each."""
    epochs = f"training.epoch_steps={EPOCHS[steps]}"
    return (f"training.steps={steps}", epochs, "callbacks.checkpoints.every_steps=1")


def stop_at(patch, step):
    """As a signal would that comes before that step's end."""
    real = Trainer.step

    def stopping(self):
        record = real(self)
        if self.run.step == step:
            self.run.stop("SIGTERM")
        return record

    patch.setattr(Trainer, "step", stopping)


def keep_every_checkpoint(patch, folder):
    """A copy of `latest.pt` for each step, as it is when that step is done and before an epoch's end."""
    from medgen.run.run import TrainingRun

    real = TrainingRun.save

    def save(self, name="latest.pt"):
        path = real(self, name)
        if name == "latest.pt" and not (folder / str(self.step)).exists():
            (folder / str(self.step)).mkdir(parents=True)
            for each in (path, self.dir / "metrics.jsonl"):
                shutil.copy(each, folder / str(self.step))
        return path

    patch.setattr(TrainingRun, "save", save)


@pytest.mark.parametrize(
    ("name", "steps", "stops"),
    [
        ("bravo_rflow", 10, range(1, 11)),
        *((name, 10, SOME) for name in VARIANTS if name not in ("bravo_rflow", *VOLUMES)),
        *(pytest.param(name, 10, SOME, marks=pytest.mark.slow) for name in VOLUMES),
        *(pytest.param(name, 24, range(1, 25), marks=pytest.mark.slow) for name in VARIANTS),
    ],
    ids=lambda value: f"{len(value)} stops" if isinstance(value, (tuple, range)) else None,
)
@pytest.mark.row("R1")
def test_stopping_and_resuming_equals_never_stopping_step_by_step(
    name, steps, stops, medgen, tiny, autoencoder, tmp_path, monkeypatch
):
    """The state after each step is the whole of what the next depends on, so the stops of one run show all of them."""
    common = (*tiny, *overrides(name, autoencoder), "training.val_batches=1", *chain(steps))
    with monkeypatch.context() as patch:
        keep_every_checkpoint(patch, tmp_path / "kept")
        assert medgen("train", name, *common, f"run.dir={tmp_path}/whole").code == 0
    folder, compared = tmp_path / "r", 0
    for step in stops:
        given = ("--resume", folder) if step > 1 else (name, *common, f"run.dir={folder}")
        with monkeypatch.context() as patch:
            stop_at(patch, step)
            assert medgen("train", *given).code == 75
        kept = tmp_path / "kept" / str(step)
        if epochs_ended(kept) == epochs_ended(
            folder
        ):  # else that is still to come in the one that stopped
            assert differences(kept, folder) == []
            compared += 1
    assert compared >= 0.6 * len(
        stops
    )  # epochs of volumes are short, and a third of the stops end one
    assert medgen("train", "--resume", folder).code == 0
    assert differences(tmp_path / "whole", folder) == []


@pytest.mark.slow
@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("step", range(1, 25))
@pytest.mark.row("R1")
def test_a_run_stopped_at_a_step_and_resumed_in_another_process_equals_one_that_was_not(
    step, name, server, tiny, autoencoder, tmp_path
):
    common = (*tiny, *overrides(name, autoencoder), "training.val_batches=1", *chain(24))
    assert server.run("train", name, *common, f"run.dir={tmp_path}/whole").code == 0
    stopped = server.run(
        "train", name, *common, f"run.dir={tmp_path}/r", hook=stop_here, given=(step,)
    )
    assert stopped.code == 75
    assert server.run("train", "--resume", tmp_path / "r").code == 0
    assert differences(tmp_path / "whole", tmp_path / "r") == []


def epochs_ended(folder):
    return checkpoint.load(folder / "latest.pt")["position"]["epochs_ended"]


def stop_here(step: int) -> None:
    stop_at(pytest.MonkeyPatch(), step)


@pytest.mark.row("R1")
def test_a_run_stopped_during_validation_validates_again_when_resumed(
    medgen, tiny, tmp_path, monkeypatch
):
    from medgen.training.validation import Validation

    common = (*tiny, *SHORT, "training.steps=6", "training.epoch_steps=3")
    assert medgen("train", "bravo_rflow", *common, f"run.dir={tmp_path}/whole").code == 0
    real = Validation.medgen_validate

    def stopping(self, run):
        run.stop("SIGTERM")
        return real(self, run)

    stopping.medgen_impl = real.medgen_impl
    with monkeypatch.context() as patch:
        patch.setattr(Validation, "medgen_validate", stopping)
        assert medgen("train", "bravo_rflow", *common, f"run.dir={tmp_path}/r").code == 75
    assert medgen("train", "--resume", tmp_path / "r").code == 0
    assert differences(tmp_path / "whole", tmp_path / "r") == []


@pytest.mark.row("R1")
def test_a_run_that_ended_within_an_epoch_and_goes_on_validates_at_its_new_end(
    medgen, tiny, tmp_path
):
    folder = tmp_path / "r"
    common = (*tiny, *SHORT, "training.epoch_steps=5", f"run.dir={folder}")
    assert medgen("train", "bravo_rflow", *common, "training.steps=2").code == 0
    for steps in (4, 7):
        assert medgen("train", "--resume", folder, f"training.steps={steps}").code == 0
    validated = [line["step"] for line in losses(folder) if "loss/val" in line]
    assert validated == [2, 4, 5, 7]


@pytest.mark.parametrize(
    "name",
    [
        "bravo_rflow",
        "vae_bravo",
        *(
            pytest.param(name, marks=pytest.mark.slow)
            for name in VARIANTS
            if name not in ("bravo_rflow", "vae_bravo")
        ),
    ],
)
@pytest.mark.row("R2")
def test_every_key_that_is_gone_makes_resuming_fail_and_is_named(
    name, medgen, tiny, autoencoder, tmp_path
):
    common = (*tiny, *overrides(name, autoencoder), "training.validate_every=0", "training.steps=2")
    assert medgen("train", name, *common, f"run.dir={tmp_path}/r").code == 0
    path = tmp_path / "r/latest.pt"
    (tmp_path / "r/prev.pt").unlink(missing_ok=True)
    state = torch.load(path, weights_only=True)
    paths = list(
        tensor_tree.key_paths({key: value for key, value in state.items() if key != "keys"})
    )
    assert len(paths) > 200
    for key in paths:
        with pytest.raises(
            checkpoint.CheckpointError,
            match=r"latest\.pt: (the key|not a medgen checkpoint \(no key)",
        ):
            checkpoint._check_keys(path, without(state, key))
    for key in (
        "network",
        "optimizers",
        "turns",
        "space",
        "position",
        "callbacks",
        "data",
        "keys",
        "journal",
    ):
        torch.save(without(state, key), path)
        result = medgen("train", "--resume", tmp_path / "r")
        assert (result.code, f"'{key}" in result.err) == (4, True), key


@pytest.mark.row("R2")
def test_a_key_that_the_file_never_had_is_named_too(trained, medgen):
    path = trained / "latest.pt"
    for key in ("callbacks/checkpoints/best", "position/skipped", "seconds"):
        state = without(checkpoint.load(path), key)
        checkpoint.save(state, trained / "other.pt")
        folder = trained.with_name("other")
        shutil.copytree(trained, folder)
        shutil.move(trained / "other.pt", folder / "latest.pt")
        result = medgen("train", "--resume", folder)
        assert (result.code, f"the key '{key.split('/')[-1]}' is missing" in result.err) == (
            4,
            True,
        ), result.err
        shutil.rmtree(folder)


def without(value, key):
    """The nested value without the key at that path."""
    first, _, rest = key.partition("/")
    at = int(first) if isinstance(value, list) or first not in value else first
    items = dict(enumerate(value)) if isinstance(value, list) else dict(value)
    if rest:
        items[at] = without(items[at], rest)
    else:
        del items[at]
    return list(items.values()) if isinstance(value, list) else items


@pytest.mark.row("R3")
def test_without_a_checkpoint_resume_fails_and_auto_starts(medgen, short, tmp_path):
    folder = tmp_path / "r"
    for told in (
        "no such folder. Check the path",
        "no checkpoint to resume. Drop --resume, or use --resume auto.",
    ):
        result = medgen("train", "--resume", folder)
        assert (result.code, told in result.err) == (4, True)
        folder.mkdir(exist_ok=True)
    for _ in range(2):  # the second finds it complete
        assert (
            medgen("train", "bravo_rflow", *short, f"run.dir={folder}", "--resume", "auto").code
            == 0
        )
    result = medgen("train", "bravo_rflow", *short, f"run.dir={folder}")
    assert (
        result.code,
        f"holds a run already. Continue it with --resume {folder}" in result.err,
    ) == (2, True)


REFUSED = {
    "training.learning_rate=1e-2": "training.learning_rate: 0.001 -> 0.01",
    "training.batch_size=8": "training.batch_size: 4 -> 8",
    "training.steps=3": "training.steps: 4 -> 3",
    "callbacks.ema.decay=0.5": "callbacks.ema.decay: 0.9999 -> 0.5",
    "callbacks.ema=false": "callbacks.ema.decay: 0.9999 -> nothing",
    "data.min_foreground=0.3": "data.min_foreground: 0.02 -> 0.3",
    "run.seed=1": "run.seed: 0 -> 1",
    "network.unet.channels=[8,16]": "network.unet.channels: [8, 8] -> [8, 16]",
    'callbacks.checkpoints.metric="-psnr/x0"': 'callbacks.checkpoints.metric: "loss/val" -> "-psnr/x0"',
}
ALLOWED = (
    "training.steps=6",
    "training.accumulate=2",
    "data.workers=2",
    "callbacks.checkpoints.every_steps=2",
    "callbacks.checkpoints.keep=1",
    "callbacks.progress.every_steps=1",
    "callbacks.tensorboard.every_steps=10",
    "training.time_limit=1000",
)


@pytest.mark.parametrize("change", REFUSED)
@pytest.mark.row("R4")
def test_a_recipe_that_would_change_the_result_is_refused_with_both_values(change, trained, medgen):
    before = (trained / "latest.pt").read_bytes()
    result = medgen("train", "--resume", trained, change)
    assert result.code == 4
    assert f"medgen: {REFUSED[change]}, in {trained}. Keep it, or start a new run" in result.err
    assert "training.init_from=" in result.err
    assert (trained / "latest.pt").read_bytes() == before


@pytest.mark.row("R4")
def test_all_changes_are_listed_at_once_also_when_auto_finds_the_run(trained, medgen, short):
    changes = ("training.learning_rate=1e-2", "training.clip=0.5")
    result = medgen(
        "train", "bravo_rflow", *short, *changes, f"run.dir={trained}", "--resume", "auto"
    )
    assert result.code == 4
    assert [each in result.err for each in ("training.learning_rate: ", "training.clip: ")] == [
        True,
        True,
    ]


@pytest.mark.row("R4")
def test_auto_finds_a_run_that_had_another_number_of_devices(tmp_path):
    def recipe(devices, seed=0):
        changes = (f"run.root={tmp_path}", f"training.devices={devices}", f"run.seed={seed}")
        return load("bravo_rflow", changes)

    (tmp_path / "r").mkdir()
    folder.write_metadata(tmp_path / "r", "stopped", recipe=folder.identity(recipe(2)))
    (tmp_path / "r/latest.pt").touch()
    assert [folder.find_unfinished(recipe(devices)) for devices in (1, 2, 4)] == [
        tmp_path / "r"
    ] * 3
    assert folder.find_unfinished(recipe(2, seed=1)) is None


@pytest.mark.row("R4")
def test_more_steps_and_what_changes_no_result_are_allowed_and_kept(trained, medgen):
    result = medgen("train", "--resume", trained, *ALLOWED)
    assert result.code == 0, result.err
    assert checkpoint.load(trained / "latest.pt")["position"]["step"] == 6
    assert "already complete (step 6/6)" in medgen("train", "--resume", trained).out


@pytest.mark.row("R5")
def test_other_data_are_refused_with_counts_and_can_be_accepted(medgen, short, cohort, tmp_path):
    root, folder = tmp_path / "data", tmp_path / "r"
    shutil.copytree(cohort, root)
    options = (*short, f"data.root={root}", f"run.dir={folder}")
    assert medgen("train", "bravo_rflow", *options).code == 0
    write_cohort(tmp_path / "more", patients=1, seed=5)
    shutil.copytree(tmp_path / "more/Mets_000", root / "Mets_009")
    result = medgen("train", "--resume", folder, "training.steps=5")
    assert result.code == 3
    assert "the slices are not those of" in result.err
    assert "-> " in result.err
    result = medgen("train", "--resume", folder, "training.steps=5", "data.accept_changes=true")
    assert result.code == 0, result.err


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.module."])
@pytest.mark.row("R7")
def test_weights_of_any_wrapping_start_a_new_run(prefix, trained, medgen, short, tmp_path):
    state = checkpoint.load(trained / "latest.pt")
    source = tmp_path / "foreign.pt"
    torch.save(
        {"state_dict": {prefix + name: value for name, value in state["network"].items()}}, source
    )
    given = (
        f"training.init_from={source}",
        f"run.dir={tmp_path}/new",
        "training.steps=1",
        "training.learning_rate=1e-30",
    )
    result = medgen("train", "bravo_rflow", *short, *given)
    assert result.code == 0, result.err
    new = checkpoint.load(tmp_path / "new/latest.pt")
    for weights in (new["network"], new["averaged"]):
        assert all(torch.allclose(weights[name], value) for name, value in state["network"].items())


@pytest.mark.row("R7")
def test_init_from_prefers_averaged_weights_and_keys_never_carry_a_wrapper(
    trained, medgen, short, tmp_path, monkeypatch
):
    compiled = torch.compile
    monkeypatch.setattr(torch, "compile", lambda module: compiled(module, backend="eager"))
    given = (
        f"training.init_from={trained}/latest.pt",
        "training.compile=true",
        "training.learning_rate=1e-30",
    )
    result = medgen(
        "train", "bravo_rflow", *short, *given, f"run.dir={tmp_path}/new", "training.steps=1"
    )
    assert result.code == 0, result.err
    old, new = (checkpoint.load(folder / "latest.pt") for folder in (trained, tmp_path / "new"))
    assert all(
        torch.allclose(new["network"][name], value) for name, value in old["averaged"].items()
    )
    assert new["network"].keys() == old["network"].keys()
    assert not any("module." in name or "_orig_mod" in name for name in new["network"])


@pytest.mark.row("R7")
def test_weights_of_volumes_start_a_run_of_volumes_and_none_of_slices(short, medgen, tmp_path):
    common = (*short, "training.steps=1", f"training.init_from={tmp_path}/old/latest.pt")
    old = (*short, "training.steps=1", f"run.dir={tmp_path}/old")
    assert medgen("train", "bravo_rflow_3d", *old).code == 0
    still = ("training.learning_rate=1e-30", f"run.dir={tmp_path}/new")
    result = medgen("train", "bravo_rflow_3d", *common, *still)
    assert result.code == 0, result.err
    one, other = (checkpoint.load(tmp_path / name / "latest.pt") for name in ("old", "new"))
    for weights in (other["network"], other["averaged"]):
        assert all(torch.allclose(weights[name], each) for name, each in one["averaged"].items())
    result = medgen("train", "bravo_rflow", *common, f"run.dir={tmp_path}/slices")
    assert (result.code, " tensors would stay as they are" in result.err) == (4, True), result.err


@pytest.mark.row("R7")
def test_weights_that_would_leave_some_at_random_are_refused_with_the_count(
    trained, medgen, short, tmp_path
):
    options = (*short, f"training.init_from={trained}/latest.pt", f"run.dir={tmp_path}/new")
    result = medgen("train", "bravo_rflow", *options, "network.unet.channels=[8,16]")
    assert result.code == 4
    assert " tensors would stay as they are" in result.err
    result = medgen("train", "bravo_rflow", *options, f"training.init_from={tmp_path}/nothing.pt")
    assert (result.code, "no such checkpoint" in result.err) == (4, True)


@pytest.mark.row("R8")
def test_the_average_is_fp32_under_bf16_moves_and_is_not_the_network(medgen, tiny, tmp_path):
    options = (*SHORT, *FEW, "training.precision=bf16", "callbacks.ema.decay=0.99")
    assert medgen("train", "bravo_rflow", *tiny, *options, f"run.dir={tmp_path}/r").code == 0
    state, first = (checkpoint.load(tmp_path / "r" / name) for name in ("latest.pt", "prev.pt"))
    assert {value.dtype for value in state["averaged"].values()} == {torch.float32}
    assert any(
        not torch.equal(state["averaged"][name], first["averaged"][name])
        for name in first["averaged"]
    )
    assert any(
        not torch.equal(state["averaged"][name], state["network"][name])
        for name in state["network"]
    )


@pytest.mark.row("R9")
def test_the_rate_of_every_step_is_its_closed_form_across_five_resumes(
    medgen, tiny, tmp_path, monkeypatch
):
    folder = tmp_path / "r"
    options = (
        *SHORT,
        "training.steps=12",
        "training.warmup_steps=4",
        "callbacks.progress.every_steps=1",
    )
    given = ("bravo_rflow", *tiny, *options, "training.validate_every=0", f"run.dir={folder}")
    for step in (2, 4, 5, 9, 11):
        with monkeypatch.context() as patch:
            stop_at(patch, step)
            assert medgen("train", *given).code == 75
        given = ("--resume", folder)
    assert medgen("train", *given).code == 0
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    wanted = [
        (n + 1) / 4 if n < 4 else 0.5 * (1 + math.cos(math.pi * (n - 4) / 8)) for n in range(12)
    ]
    assert [line["step"] for line in lines] == list(range(1, 13))
    assert [line["learning_rate"] for line in lines] == pytest.approx(
        [1e-3 * each for each in wanted]
    )


@pytest.mark.row("R10")
def test_a_worse_epoch_after_a_resume_leaves_best_as_it_is(medgen, short, tmp_path, monkeypatch):
    from medgen.training.validation import Validation

    def answer(value):
        def measured(self, run):
            return {"loss/val": value}

        measured.medgen_impl = Validation.medgen_validate.medgen_impl
        return measured

    folder = tmp_path / "r"
    options = ("training.epoch_steps=2", "training.validate_every=1", f"run.dir={folder}")
    with monkeypatch.context() as patch:
        patch.setattr(Validation, "medgen_validate", answer(0.0))
        assert medgen("train", "bravo_rflow", *short, *options).code == 0
    best = (folder / "best.pt").read_bytes()
    for value in (0.5, float("nan")):
        with monkeypatch.context() as patch:
            patch.setattr(Validation, "medgen_validate", answer(value))
            step = checkpoint.load(folder / "latest.pt")["position"]["step"]
            assert medgen("train", "--resume", folder, f"training.steps={step + 2}").code == 0
        assert (folder / "best.pt").read_bytes() == best


@pytest.mark.row("R11")
def test_how_often_one_validates_and_looks_changes_no_loss(medgen, tiny, tmp_path):
    found = []
    for number, every in enumerate((0, 1, 2)):
        options = (
            f"training.validate_every={every}",
            "training.epoch_steps=2",
            f"run.dir={tmp_path}/{number}",
        )
        looks = (
            ("callbacks.progress.every_steps=1",) if every == 1 else ("callbacks.progress=false",)
        )
        assert (
            medgen("train", "bravo_rflow", *tiny, *SHORT, "training.steps=6", *options, *looks).code
            == 0
        )
        lines = losses(tmp_path / str(number))
        found.append([line for line in lines if "loss/train" in line])
    assert found[0] == found[1] == found[2]


def die_at(step: int) -> None:
    """End the process within that step, as a SIGKILL would."""
    import os

    real = Trainer.step

    def dying(self):
        if self.run.step + 1 == step:
            self.flush()
            os._exit(137)
        return real(self)

    Trainer.step = dying


@pytest.mark.row("R12")
def test_no_step_is_shown_twice_or_missing_after_a_crash_behind_the_checkpoint(
    server, tiny, tmp_path
):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folder = tmp_path / "r"
    options = (
        *SMALL[:-1],
        "training.val_batches=1",
        "callbacks.tensorboard.every_steps=1",
        "callbacks.checkpoints.every_steps=4",
    )
    common = ("bravo_rflow", *tiny, *options, "training.steps=8", "training.validate_every=0")
    assert server.run("train", *common, f"run.dir={folder}", hook=die_at, given=(7,)).code == 137
    with open(folder / "metrics.jsonl", "ab") as file:
        file.write(b'{"step": 6, "torn')
    assert server.run("train", "--resume", folder).code == 0
    events = EventAccumulator(str(folder / "tensorboard")).Reload()
    assert [event.step for event in events.Scalars("loss/train")] == list(range(1, 9))
    assert [line["step"] for line in losses(folder)] == list(range(1, 9))


def die_validated(step):
    """Die after the measurements of an epoch's end are shown, before it is saved."""
    real = TrainingRun.log

    def log(self, scalars, images=None):
        real(self, scalars, images)
        if self.step == step and "loss/val" in scalars:
            os._exit(137)

    TrainingRun.log = log  # type: ignore[method-assign]


@pytest.mark.row("R12")
def test_no_measurement_is_shown_twice_after_a_crash_before_it_was_saved(server, tiny, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folder = tmp_path / "r"
    options = (
        *SMALL[:-1],
        "training.val_batches=1",
        "callbacks.tensorboard.every_steps=1",
        "callbacks.checkpoints.every_steps=1",
    )
    common = ("bravo_rflow", *tiny, *options, "training.steps=6", "training.epoch_steps=3")
    assert (
        server.run("train", *common, f"run.dir={folder}", hook=die_validated, given=(3,)).code
        == 137
    )
    assert server.run("train", "--resume", folder).code == 0
    events = EventAccumulator(str(folder / "tensorboard")).Reload()
    assert [event.step for event in events.Scalars("loss/train")] == list(range(1, 7))
    assert [event.step for event in events.Scalars("loss/val")] == [3, 6]
    assert [line["step"] for line in losses(folder) if "loss/val" in line] == [3, 6]


@pytest.mark.row("R13")
def test_resuming_a_run_that_is_complete_says_so_and_touches_nothing(trained, medgen):
    before = {path: path.stat().st_mtime_ns for path in trained.rglob("*") if path.name != ".lock"}
    result = medgen("train", "--resume", trained)
    assert (result.code, "already complete (step 4/4)" in result.out) == (0, True)
    assert {
        path: path.stat().st_mtime_ns for path in trained.rglob("*") if path.name != ".lock"
    } == before
    assert flat(torch.load(trained / "latest.pt", weights_only=True))["/position/step"] == 4


def forgetful(folder):
    """Resumes with other random numbers than those of the position."""
    from medgen import seeds

    derive = seeds.derive
    seeds.derive = lambda seed, *rest: derive(seed + 1, *rest)
    verify_resume._resume(folder)


def test_verify_resume_says_that_a_recipe_is_safe_and_what_differs_where_it_is_not(
    server, medgen, tiny, monkeypatch
):
    monkeypatch.setattr(verify_resume, "START", "forkserver")
    given = ("verify-resume", "bravo_rflow", *tiny, *SHORT, "--steps", 2)
    result = medgen(*given)
    assert (result.code, "bit-identical: every tensor and loss of 2 + 2 steps" in result.out) == (
        0,
        True,
    ), result
    monkeypatch.setattr(verify_resume, "_resume", forgetful)
    result = medgen(*given)
    assert (result.code, "resumed after 2 of 4 steps, network/" in result.err) == (5, True), result


@pytest.mark.slow
def test_verify_resume_as_a_user_runs_it(tiny):
    """Each part in a process that shares nothing with the others."""
    words = [
        sys.executable,
        "-m",
        "medgen",
        "verify-resume",
        "bravo_rflow",
        *tiny,
        *SHORT,
        "--steps",
        "1",
    ]
    ended = subprocess.run(words, capture_output=True, text=True, timeout=900)
    assert (
        ended.returncode,
        "bit-identical: every tensor and loss of 1 + 1 steps" in ended.stdout,
    ) == (0, True), ended
