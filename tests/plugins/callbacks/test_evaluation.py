"""Samples are measured in validation, change nothing of the training, and may decide what best.pt is.

Covers: medgen.evaluation.run_slices, medgen_builtins.callbacks._evaluating.
"""

from __future__ import annotations

import json

import pytest
import torch
from conftest import TINY
from data.cohort import write_cohort
from faults import ranks
from faults.forkserver import Server, differences

from medgen.config.recipe import load
from medgen.errors import RecipeError
from medgen.evaluation import obedience
from medgen.run import checkpoint
from medgen.training import sampling

SHORT = (
    "network.unet.channels=[8,8]",
    "network.unet.attention=[false,false]",
    "callbacks.previews=false",
    "callbacks.tensorboard=false",
    "training.steps=9",
    "training.epoch_steps=3",
    "data.val_fraction=0.3",
)
MEASURED = (
    "callbacks.evaluation.every=1",
    "callbacks.evaluation.count=20",
    "callbacks.evaluation.steps=2",
)


@pytest.fixture(scope="module")
def people(tmp_path_factory):
    """More made-up patients than `cohort` has: two of them are held out."""
    return write_cohort(tmp_path_factory.mktemp("people"), patients=8, channels=("bravo", "seg"))


@pytest.fixture
def short(people):
    return ("bravo_rflow", f"data.root={people}", *TINY, *SHORT)


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """The segmenter learns little; the figure is one all the same."""
    monkeypatch.setattr(obedience, "STEPS", 4)


def teach_little(rank: int, stop: int = 0) -> None:
    """In a process: the same, and an end asked for after a step."""
    from medgen.training.trainer import Trainer

    obedience.STEPS, real = 4, Trainer.step

    def stopping(self):
        record = real(self)
        if self.run.step == stop:
            self.run.stop("SIGTERM")
        return record

    Trainer.step = stopping


def measured(folder):
    """Figures by step."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    names = ("kid", "obedience")
    return {
        line["step"]: {name: line[name] for name in line if name.startswith(names)}
        for line in lines
        if "kid" in line
    }


def test_the_figures_are_in_the_journal_and_decide_which_is_best(short, medgen, tmp_path):
    metric = "callbacks.checkpoints.metric=kid"
    result = medgen("train", *short, *MEASURED, metric, f"run.dir={tmp_path}/r")
    assert result.code == 0, result.err
    found = measured(tmp_path / "r")
    assert list(found) == [3, 6, 9]
    assert all(each.keys() == {"kid", "obedience", "obedience/real"} for each in found.values())
    assert len({each["obedience/real"] for each in found.values()}) == 1
    state = checkpoint.load(tmp_path / "r/best.pt")
    assert state["callbacks"]["checkpoints"]["best_step"] == min(
        found, key=lambda step: found[step]["kid"]
    )


def test_a_run_that_is_measured_trains_as_one_that_is_not(short, medgen, tmp_path):
    """Samples and what they are measured with take nothing from the streams of the training; dropout is one."""
    for name, more in (("with", MEASURED), ("without", ())):
        assert (
            medgen(
                "train", *short, *more, "network.unet.dropout=0.2", f"run.dir={tmp_path}/{name}"
            ).code
            == 0
        )
    assert measured(tmp_path / "with")
    assert differences(tmp_path / "with", tmp_path / "without") == []


def test_a_run_that_was_stopped_and_resumed_has_the_same_figures(short, tmp_path):
    server, folder = Server(tmp_path), tmp_path / "r"
    whole = server.run(
        "train", *short, *MEASURED, f"run.dir={tmp_path}/whole", hook=teach_little, given=(0,)
    )
    stopped = server.run(
        "train", *short, *MEASURED, f"run.dir={folder}", hook=teach_little, given=(0, 5)
    )
    resumed = server.run("train", "--resume", folder, hook=teach_little, given=(0,))
    assert (whole.code, stopped.code, resumed.code) == (0, 75, 0), resumed.err
    assert measured(folder) == measured(tmp_path / "whole")
    assert differences(folder, tmp_path / "whole") == []


@pytest.mark.parametrize("count", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_ranks_measure_together_what_one_process_measures(count, short, medgen, tmp_path):
    """With two blocks of samples, each of two ranks makes one; of four, two have none. The weights stay as they are."""
    common = (
        *short,
        *MEASURED,
        "training.steps=3",
        "training.learning_rate=1e-30",
        "callbacks.ema=false",
    )
    assert medgen("train", *common, f"run.dir={tmp_path}/one").code == 0
    ended = ranks.run(
        Server(tmp_path), "train", *common, f"run.dir={tmp_path}/r", count=count, hook=teach_little
    )
    assert [each.code for each in ended] == [0] * count, ended[0].err
    assert measured(tmp_path / "r") == measured(tmp_path / "one")


def test_without_masks_there_is_no_obedience_and_it_cannot_be_what_is_best(short, medgen, tmp_path):
    bare = (
        "mode=images",
        "mode.images.images=['bravo']",
        "mode.images.condition=[]",
        "data.lesion_only=false",
    )
    result = medgen("train", *short, *bare, *MEASURED, f"run.dir={tmp_path}/r")
    assert result.code == 0, result.err
    assert {name for each in measured(tmp_path / "r").values() for name in each} == {"kid"}
    with pytest.raises(
        RecipeError, match=r"metric: got \"obedience\", which no loss, strategy or callback"
    ):
        load(
            "bravo_rflow", [*short[1:], *bare, *MEASURED, "callbacks.checkpoints.metric=obedience"]
        )


def test_several_features_have_a_figure_each(short, medgen, tmp_path):
    more = (
        "callbacks.evaluation.features=['radiomics','atlas']",
        "callbacks.evaluation.obedience=false",
    )
    result = medgen("train", *short, *MEASURED, *more, "training.steps=3", f"run.dir={tmp_path}/r")
    assert result.code == 0, result.err
    assert [*measured(tmp_path / "r")[3]] == ["kid", "kid/atlas"]


@pytest.mark.parametrize("axes", [2, 3])
def test_a_model_of_crops_is_measured_by_whole_samples(axes, short, medgen, tmp_path, monkeypatch):
    seen, shown, sample = [], set(), sampling.sample

    def watched(strategy, space, network, condition, *rest, **more):
        hook = network.register_forward_pre_hook(lambda _, given: shown.add(given[0].shape[1:]))
        made = sample(strategy, space, network, condition, *rest, **more)
        hook.remove()
        seen.append((made.shape, condition.shape))
        return made

    monkeypatch.setattr(sampling, "sample", watched)
    crops = ("data.patch_size=8", 'mode.bravo.numbers=["place"]', f"data.dimensions={axes}")
    result = medgen("train", *short, *MEASURED, *crops, "callbacks.evaluation.count=8",
                    "training.steps=2", f"run.dir={tmp_path}/r")  # fmt: skip
    assert result.code == 0, result.err
    found = measured(tmp_path / "r")
    assert list(found) == [2]
    assert all(each.keys() == {"kid", "obedience", "obedience/real"} for each in found.values())
    assert set(seen) == {(torch.Size((8, 1, *(16,) * axes)),) * 2}
    # in tiles, as in training: noise, mask and a channel of coordinates for each axis
    assert shown == {torch.Size((2 + axes, *(8,) * axes))}


REFUSED = {
    "vae_bravo": "callbacks.evaluation: strategy.vae generates no samples to measure. Set callbacks.evaluation=false.",
    "seg_rflow": "callbacks.evaluation: mode.seg generates masks alone, and features are of scans. Set "
    "callbacks.evaluation=false.",
    "demo_insert": 'callbacks.evaluation: samples are crops (data.crop = "lesions"), and features are of whole heads. '
    "Set callbacks.evaluation=false.",
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_generates_no_scans_is_refused_in_one_line(name):
    with pytest.raises(RecipeError) as refused:
        load(name, ["callbacks.evaluation.every=1", "training.validate_every=1"])
    assert refused.value.lines == [f"command line: {REFUSED[name]}"]


WRONG = {
    "callbacks.evaluation.features=['atals']": r'features\[0\]: got "atals", which no plugin gives. Did you mean atlas',
    "callbacks.evaluation.features=[]": r"features: got \[\], expected at least one. Name an extractor",
    "training.validate_every=0": r"training.validate_every: got 0, expected 1 or more, as callbacks.evaluation is part",
    "callbacks.checkpoints.metric=kdi": r'metric: got "kdi", which no loss, strategy or callback .* Did you mean kid\?',
    "callbacks.checkpoints.metric=-kid": r'metric: got "-kid", but kid is better where it is low. Leave the minus out',
}


@pytest.mark.parametrize("override", WRONG)
def test_a_mistake_is_told_before_training(override):
    with pytest.raises(RecipeError, match=WRONG[override]):
        load("bravo_rflow", ["callbacks.evaluation.every=1", override])


def test_with_one_person_held_out_the_run_does_not_begin(tiny, medgen, tmp_path):
    result = medgen(
        "train", "bravo_rflow", *tiny, "training.steps=1", *MEASURED, f"run.dir={tmp_path}/r"
    )
    assert result.code == 3
    assert (
        "callbacks.evaluation: persons held out with slices to compare with: 1, expected at least 2"
        in result.err
    )
