"""What a dry run says of the cost, and that it leaves nothing.

Covers: medgen.training.dry_run, medgen.training.rehearsal.
"""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from faults.forkserver import Server
from faults.variants import AUTOENCODER, SMALL

from medgen.api.tables import TrainingSettings
from medgen.training import device_memory, dry_run
from medgen.training.dry_run import Measured, largest
from medgen.training.trainer import Trainer


def said(out: str) -> dict[str, str]:
    """The lines of one dry run by their first word."""
    return {line.split()[0]: line for line in out.splitlines()}


@pytest.fixture
def dry(medgen, tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(dry_run, "MEASURED", 0.0)
    monkeypatch.chdir(tmp_path)
    return lambda name, *options: medgen("train", name, "--dry-run", *tiny, *SMALL, *options)


def test_a_dry_run_says_what_it_costs_and_keeps_nothing(dry, tmp_path: Path) -> None:
    """One step's speed, FLOPs and hours fit together, and it says what would fit or that it cannot tell."""
    ended = dry("bravo_rflow", "training.steps=7200", "training.schedule=linear")
    lines = said(ended.out)
    assert list(lines)[:9] == [
        "device",
        "data",
        "network",
        "plan",
        "gpu",
        "image",
        "step",
        "memory",
        "total",
    ], ended.err
    image, step = (re.findall(r"[\d.]+", lines[name]) for name in ("image", "step"))
    flops, (seconds, images, speed, share, limit) = float(image[0]) * 1e9, map(float, step[:5])
    assert (images, "not compiled" in lines["step"], "the whole process" in lines["memory"]) == (
        4,
        True,
        True,
    )
    assert speed == pytest.approx(images / seconds, rel=0.02)
    assert share == pytest.approx(
        100 * speed * flops / (limit * 1e12), abs=0.6, rel=0.03
    )  # of rounded numbers
    assert float(lines["total"].split()[4]) == pytest.approx(
        7200 * seconds / 3600, abs=0.02, rel=0.02
    )
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
    assert (
        " for 2 images on each of 2 devices, "
        in said(dry("bravo_rflow", "training.devices=2").out)["step"]
    )
    assert dry("bravo_rflow", "training.devices=3").code == 2


def test_what_would_take_long_on_a_cpu_is_not_tried(dry, monkeypatch) -> None:
    """On the login node of a cluster, say."""
    monkeypatch.setattr(dry_run, "LONG", 0.0)
    monkeypatch.setattr(Trainer, "step", None)
    lines = said(dry("bravo_rflow").out)
    assert list(lines)[-2:] == ["step", "total"]
    assert "from one image" in lines["step"]


def test_a_step_that_would_take_long_is_told_from_one_of_few_images(monkeypatch) -> None:
    """Along a straight line, in time and in memory."""
    asked = []

    def measure(run, images):
        asked.append(images)
        return Measured(images, 0.5 * images, 1e9 + 1e8 * images)

    monkeypatch.setattr(dry_run.gpu_advice, "lines", lambda run: [])
    monkeypatch.setattr(dry_run, "measure", measure)
    monkeypatch.setattr(device_memory, "room", lambda device: 20e9)
    training = TrainingSettings(steps=1, batch_size=100, accumulate=2)
    run = SimpleNamespace(device=torch.device("cpu"), total_steps=72)
    lines = list(dry_run._from_few(run, training, 100, 1.0))  # type: ignore[arg-type]
    assert asked == [10, 20]
    assert lines[0].startswith("step     about 50 s for 100 images, from one of 20,")
    assert lines[1].startswith("memory   about 11 GB")
    assert lines[2].startswith("total    72 steps take 1.00 hours")
    assert lines[3].startswith("fits     batch_size = 180,")


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


@pytest.mark.parametrize(
    ("accumulate", "devices", "tried", "fits"),
    [(1, 1, [4, 8], "= 90,"), (4, 2, [4, 8], "= 80,"), (8, 1, [8, 16], "= 88,")],
)
def test_two_steps_tell_what_would_fit(accumulate, devices, tried, fits, monkeypatch) -> None:
    """Rounded down to what the parts of a batch and the devices can share, which share a CPU's memory as well."""
    asked = []

    def measure(run, images):
        asked.append(images)
        return Measured(images, 1.0, 100.0 + 10 * images)

    assert fits in last_line(accumulate, devices, measure, monkeypatch)
    assert asked == tried


def test_where_no_more_fits_than_is_asked_for_nothing_is_said(monkeypatch) -> None:
    """A batch that cannot be halved was tried first, and the larger one is only a question."""

    def measure(run, images):
        if images > 8:
            raise torch.OutOfMemoryError
        return Measured(images, 1.0, 100.0)

    assert last_line(8, 1, measure, monkeypatch).startswith("total")


def last_line(accumulate: int, devices: int, measure, monkeypatch) -> str:
    training = TrainingSettings(
        steps=1, batch_size=8 * devices, accumulate=accumulate, devices=devices
    )
    monkeypatch.setattr(dry_run.gpu_advice, "lines", lambda run: [])
    monkeypatch.setattr(dry_run, "measure", measure)
    monkeypatch.setattr(dry_run, "flops_per_image", lambda run: 1.0)
    monkeypatch.setattr(dry_run, "peak", lambda *device: 1.0)
    monkeypatch.setattr(device_memory, "room", lambda device: 1060.0)
    run = SimpleNamespace(
        device=torch.device("cpu"), recipe=SimpleNamespace(training=training), total_steps=1
    )
    return list(dry_run.lines(run))[-1]  # type: ignore[arg-type]


def quick_with_room(size: float) -> None:
    """In a process of its own, whose memory no other test has widened, and however slow a step is."""
    dry_run.MEASURED, dry_run.LONG = 0.0, float("inf")
    device_memory.room = lambda device: size


@pytest.mark.slow
def test_what_is_said_to_fit_does_fit(tiny, tmp_path) -> None:
    """Real steps on the CPU: such a batch takes the memory that there is, and not much less."""
    server = Server(tmp_path)
    wide = (
        "network.unet.channels=[32,32]",
        "network.unet.attention=[false,false]",
        "data.image_size=64",
    )

    def lines(size: int, room: float) -> dict[str, str]:
        given = (
            "train",
            "bravo_rflow",
            "--dry-run",
            *tiny,
            *SMALL,
            *wide,
            f"training.batch_size={size}",
        )
        return said(server.run(*given, hook=quick_with_room, given=(room,)).out)

    fits = int(re.findall(r"= (\d+)", lines(8, 1.4e9)["fits"])[0])
    used = float(lines(fits, 1.4e9)["memory"].split()[1])
    assert 0.9 < used < 1.45
