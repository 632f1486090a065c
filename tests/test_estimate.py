"""What a dry run says of the cost, and that it leaves nothing."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from faults.variants import AUTOENCODER, SMALL

from medgen import estimate
from medgen.estimate import Measured, largest
from medgen.recipe import TrainingSettings
from medgen.trainer import Trainer


def said(out: str) -> dict[str, str]:
    """The lines of one dry run by their first word."""
    return {line.split()[0]: line for line in out.splitlines()}


@pytest.fixture
def dry(medgen, tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(estimate, "MEASURED", 0.0)
    monkeypatch.chdir(tmp_path)
    return lambda name, *options: medgen("train", name, "--dry-run", *tiny, *SMALL, *options)


def test_a_dry_run_says_what_it_costs_and_keeps_nothing(dry, tmp_path: Path) -> None:
    """One step's speed, FLOPs and hours fit together; on a CPU it makes no guess at what would fit."""
    ended = dry("bravo_rflow", "training.steps=7200", "training.schedule=linear")
    lines = said(ended.out)
    assert list(lines) == ["data", "network", "plan", "image", "step", "memory", "total"], ended.err
    image, step = (re.findall(r"[\d.]+", lines[name]) for name in ("image", "step"))
    flops, (seconds, images, speed, share, limit) = float(image[0]) * 1e9, map(float, step[:5])
    assert (images, "not compiled" in lines["step"], "the whole process" in lines["memory"]) == (4, True, True)
    assert speed == pytest.approx(images / seconds, rel=0.02)
    assert share == pytest.approx(100 * speed * flops / (limit * 1e12), abs=0.6)
    assert float(lines["total"].split()[4]) == pytest.approx(7200 * seconds / 3600, abs=0.02)
    assert list(tmp_path.iterdir()) == []


def test_both_turns_of_an_autoencoder_count(dry) -> None:
    """A discriminator makes an image dearer."""
    costs = [
        float(said(dry("vae_bravo", *AUTOENCODER, *options).out)["image"].split()[1])
        for options in ((), ("losses.adversarial=false",))
    ]
    assert costs[0] > 1.1 * costs[1]


def test_of_several_devices_one_is_measured_with_its_share(dry) -> None:
    """And a batch that they cannot share is told as training would."""
    assert " for 2 images on each of 2 devices, " in said(dry("bravo_rflow", "training.devices=2").out)["step"]
    assert dry("bravo_rflow", "training.devices=3").code == 2


def test_what_would_take_long_on_a_cpu_is_not_tried(dry, monkeypatch) -> None:
    """On the login node of a cluster, say."""
    monkeypatch.setattr(estimate, "LONG", 0.0)
    monkeypatch.setattr(Trainer, "step", None)
    lines = said(dry("bravo_rflow").out)
    assert list(lines)[-2:] == ["step", "total"]
    assert "from one image" in lines["step"]


def test_too_little_memory_ends_with_what_would_need_less(dry, monkeypatch) -> None:
    """There is no run yet to be continued."""

    def full(self):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 25.30 GiB.")

    monkeypatch.setattr(Trainer, "step", full)
    ended = dry("bravo_rflow")
    assert ended.code == 7
    assert "network.unet.checkpointing=true (same result, slower)." in ended.err
    assert "--resume" not in ended.err


def test_what_fits_lies_on_the_line_through_two_steps() -> None:
    """100 bytes for the weights and 10 for each image; where the line does not rise, nothing is said."""
    assert largest(Measured(8, 1.0, 180.0), Measured(4, 1.0, 140.0), free=1005.0) == 90
    assert largest(Measured(8, 1.0, 180.0), Measured(4, 1.0, 140.0), free=50.0) == 0
    assert largest(Measured(8, 1.0, 180.0), Measured(4, 1.0, 180.0), free=1005.0) == 0


@pytest.mark.parametrize(("accumulate", "devices", "fits"), [(1, 1, "= 90,"), (4, 2, "= 176,"), (8, 1, None)])
def test_on_a_gpu_a_step_of_half_the_images_tells_what_would_fit(accumulate, devices, fits, monkeypatch) -> None:
    """Rounded down to what the parts of a batch and the devices can share."""
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (1000.0, 2000.0))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 60.0)
    monkeypatch.setattr(estimate, "measure", lambda run, images: Measured(images, 1.0, 100.0 + 10 * images))
    training = TrainingSettings(steps=1, batch_size=8, accumulate=accumulate, devices=devices)
    run = SimpleNamespace(device="cuda", recipe=SimpleNamespace(training=training))
    lines = list(estimate._fits(run, Measured(8, 1.0, 180.0)))  # type: ignore[arg-type]
    assert [fits in line for line in lines] == ([True] if fits else [])
