"""What is measured is right, and the same every time.

Covers: medgen.training.lesion_masks.
"""

import json

import numpy as np
import pytest
import torch

from medgen import pictures
from medgen.api.values import Mode, Prediction
from medgen.config.recipe import load
from medgen.run.assemble import assemble
from medgen.training.lesion_masks import lesion_masks
from medgen.training.validation import validate


@pytest.fixture
def run(tiny, tmp_path):
    run = assemble(
        load(
            "bravo_rflow",
            [*tiny, "training.steps=1", "callbacks.ema=false", "callbacks.previews=false"],
        ),
        tmp_path,
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
    monkeypatch.setattr(
        type(run.strategy), "read", lambda *_: Prediction(seen["noisy"].target, seen["noisy"].x0)
    )
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
        return step._replace(
            prediction=step.prediction._replace(x0=truth.where(batch.condition <= 0, towards_zero))
        )

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


@pytest.fixture
def given_a_scan(tiny, tmp_path):
    """Build a run whose condition is named, before its first step."""
    runs = []

    def build(*condition, previews=False):
        mode = (
            "mode=images",
            'mode.images.images=["bravo"]',
            f"mode.images.condition={json.dumps(condition)}",
        )
        options = [*tiny, *mode, "training.steps=1", "callbacks.ema=false"]
        options += [] if previews else ["callbacks.previews=false"]
        runs.append(assemble(load("bravo_rflow", options), tmp_path))
        return runs[-1]

    yield build
    for run in runs:
        run.train.close()


def test_a_scan_that_is_given_is_no_lesion(given_a_scan):
    """Issue 10, point 20: without a mask there are no figures inside and outside lesions."""
    metrics = validate(given_a_scan("t1_pre"))
    assert "psnr/x0" in metrics
    assert not {"mse/lesion", "mse/outside"} & set(metrics)


def test_beside_a_scan_the_mask_alone_is_the_lesion(given_a_scan):
    """Issue 10, point 20."""
    run = given_a_scan("t1_pre", "seg")
    batch = run.val.read(np.arange(2))
    masks = lesion_masks(run.mode, run.store.masks, batch.image, batch.condition)
    assert torch.equal(masks, batch.condition[:, 1:] > 0)
    assert {"mse/lesion", "mse/outside"} <= set(validate(run))


def test_previews_outline_masks_and_no_scan(given_a_scan, monkeypatch):
    """Issue 10, point 20."""
    outlined = []
    monkeypatch.setattr(
        pictures, "tile", lambda image, masks=(): outlined.append(len(masks)) or np.zeros((1, 1, 3))
    )
    for condition, most in ((("t1_pre",), 0), (("t1_pre", "seg"), 1)):
        outlined.clear()
        run = given_a_scan(*condition, previews=True)
        run.callbacks["previews"]._pictures(run)
        assert max(outlined) == most


@pytest.mark.parametrize(
    ("images", "condition", "pooled", "expected"),
    [
        (("bravo",), ("t1_pre",), False, []),
        (("bravo",), ("t1_pre", "core"), False, ["core"]),
        (("core", "edema"), (), False, ["core", "edema"]),
        (("bravo", "core"), (), False, ["core"]),
        (("core",), ("edema",), False, ["edema", "core"]),
        (("bravo", "core"), (), True, []),
        (("seg",), (), False, []),
    ],
)
def test_masks_are_what_the_data_settings_name(images, condition, pooled, expected):
    """Issue 10, point 20."""
    mode, names = Mode(images, condition, pooled), [*condition, *images]
    values = {name: torch.full((1, 2, 2), -1.0) for name in names}
    for number, name in enumerate(names):
        values[name].view(-1)[number] = 1
    stacks = [torch.stack([values[name] for name in part], 1) if part else torch.empty(1, 0, 2, 2)
              for part in (images[:1] if pooled else images, condition)]  # fmt: skip
    masks = lesion_masks(mode, {"core", "edema"}, *stacks)
    assert (masks is None) == (not expected)
    assert expected == [] or torch.equal(
        masks, torch.stack([values[name] > 0 for name in expected], 1)
    )
