"""What a run tells of its speed, and that telling changes nothing."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from faults.forkserver import differences
from faults.variants import SMALL
from medgen_builtins.callbacks._progress import left, training_line
from torch import Tensor, nn

from medgen.api.tables import TrainingSettings
from medgen.api.values import Batch, TurnOutput
from medgen.config.recipe import load
from medgen.run.assemble import assemble
from medgen.training import throughput

CPU = torch.device("cpu")


class Convolution(nn.Module):
    """Three 3 x 3 filters on one channel."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(1, 3, 3, padding=1)

    def forward(self, batch: Batch, draws: Any, before: TurnOutput | None) -> TurnOutput:
        made = self.layer(batch.image)
        return TurnOutput(
            {"size": made.square().mean((1, 2, 3))}, Batch(made, made), Batch(made, made)
        )

    def draw(self, generator: torch.Generator, batch: Batch) -> None:
        """Nothing."""


class Attention(Convolution):
    """64 positions with 3 features each that attend to each other."""

    def forward(self, batch: Batch, draws: Any, before: TurnOutput | None) -> TurnOutput:
        step = super().forward(batch, draws, before)
        tokens = step.prediction.image.flatten(2).transpose(1, 2)[:, None].contiguous()
        made: Tensor = nn.functional.scaled_dot_product_attention(tokens, tokens, tokens)
        return step._replace(losses={"size": made.square().mean((1, 2, 3))})


def run_of(*turns: nn.Module) -> Any:
    batch = Batch(torch.ones(1, 1, 8, 8), torch.ones(1, 0, 8, 8))
    recipe = SimpleNamespace(
        run=SimpleNamespace(seed=0), training=TrainingSettings(steps=1, precision="fp32")
    )
    feed = SimpleNamespace(stored=lambda samples: batch)
    turns_by_name = {str(number): turn for number, turn in enumerate(turns)}
    return SimpleNamespace(
        recipe=recipe, device=CPU, train=feed, to_device=lambda batch: batch, turns=turns_by_name
    )


FILTERS = 2 * 64 * 3 * 9
"""FLOPs of `Convolution` one way: two for each of 64 pixels, 3 filters and 9 weights."""
ATTENDING = 2 * 64 * 64 * 3
"""FLOPs of each of the products of `Attention`: two forward, five backward, of which one is done again."""


def test_flops_are_those_one_counts_by_hand() -> None:
    """Forward, and backward to the weights; the image needs no gradient, unless there is a layer before."""
    assert throughput.flops_per_image(run_of(Convolution())) == 2 * FILTERS
    assert throughput.flops_per_image(run_of(Convolution(), Convolution())) == 4 * FILTERS


def test_attention_is_counted_on_a_cpu_too() -> None:
    """Torch's own counter knows it on GPUs alone."""
    assert throughput.flops_per_image(run_of(Attention())) == 2 * FILTERS + 7 * ATTENDING


@pytest.fixture
def run(tiny, tmp_path):
    made = []

    def make(*options: str) -> Any:
        made.append(assemble(load("bravo_rflow", [*tiny, *SMALL, *options]), tmp_path))
        return made[-1]

    yield make
    for each in made:
        each.train.close()
        each.metrics_file.close()


def test_flops_depend_on_the_network_and_the_image_alone(run) -> None:
    """Not on how a batch is computed, in which precision, with dropout, or what is computed again."""
    usual = throughput.flops_per_image(run())
    for option in ("accumulate=2", "batch_size=2", "precision=bf16", "memory_format=channels_last"):
        assert throughput.flops_per_image(run(f"training.{option}")) == usual
    for option in ("checkpointing=true", "dropout=0.3"):
        assert throughput.flops_per_image(run(f"network.unet.{option}")) == usual
    assert throughput.flops_per_image(run("network.unet.channels=[16,16]")) > 2 * usual


def test_calibrating_leaves_gradients_generators_buffers_and_modes_as_they_were(run) -> None:
    """So that the first step is what it would be without."""
    made = run("network.unet.dropout=0.2")
    made.network.register_buffer("count", torch.zeros(1))

    def note(module: Any, *_: Any) -> None:
        module.count.add_(module.training)

    made.network.register_forward_hook(note)
    before, generator = (
        [each.clone() for each in made.network.state_dict().values()],
        torch.get_rng_state(),
    )
    throughput.Throughput(made).calibrate()
    assert all(
        torch.equal(*pair) for pair in zip(made.network.state_dict().values(), before, strict=True)
    )
    assert torch.equal(torch.get_rng_state(), generator)
    assert all(each.grad is None for each in made.network.parameters())
    assert all(module.training for module in made.network.modules())


@pytest.mark.parametrize("name", ["bravo_rflow", "vae_bravo"])
def test_no_bit_of_a_run_depends_on_it(name, medgen, tiny, tmp_path, monkeypatch) -> None:
    """With dropout, and with the two turns of an autoencoder."""
    from faults.variants import AUTOENCODER

    options = {"bravo_rflow": ("network.unet.dropout=0.2",), "vae_bravo": AUTOENCODER}[name]
    common = (name, *tiny, *SMALL, *options, "training.steps=3", "training.validate_every=0")
    assert medgen("train", *common, f"run.dir={tmp_path}/with").code == 0
    monkeypatch.setattr(throughput.Throughput, "calibrate", lambda self: None)
    assert medgen("train", *common, f"run.dir={tmp_path}/without").code == 0
    assert differences(tmp_path / "without", tmp_path / "with") == []
    shares = [
        ["mfu" in (tmp_path / each / "metrics.jsonl").read_text()] for each in ("with", "without")
    ]
    assert shares == [[True], [False]]


def test_shares_and_rates_are_of_the_time_since_the_last_line(run, monkeypatch) -> None:
    """On a clock of its own: 10 s, of which 4 s waited, for 20 images of 3 FLOPs on a device that can do 12 FLOP/s."""
    clock = iter([0.0, 100.0, 101.0, 105.0, 110.0])
    monkeypatch.setattr(throughput, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    monkeypatch.setattr(throughput, "flops_per_image", lambda run: 3.0)
    monkeypatch.setattr(throughput, "peak", lambda device, precision: 12.0)
    made = run()
    speed = throughput.Throughput(made)
    speed.calibrate()
    with speed.waiting():
        made.progress.samples += 20
    assert speed.read() == pytest.approx(
        {"images_per_second": 2.0, "data_wait": 0.4, "flops": 6.0, "mfu": 0.5}
    )


def test_the_peak_is_that_of_the_fastest_product_measured_once_and_draws_nothing(
    monkeypatch,
) -> None:
    """On a clock of its own: products of 2 s, 1 s and 3 s, and then the time is over."""
    clock = iter([0.0, *(0.0, 2.0), 2.0, *(2.0, 3.0), 3.0, *(3.0, 6.0), 1e9])
    monkeypatch.setattr(throughput, "time", SimpleNamespace(perf_counter=lambda: next(clock)))
    monkeypatch.setattr(throughput, "PEAK_SECONDS", 100.0)
    before = torch.get_rng_state()
    throughput.peak.cache_clear()
    try:
        peak = throughput.peak(CPU, "fp32")
        assert (
            throughput.peak(CPU, "fp32")
            == peak
            == 2 * throughput.SIDES.get("cpu", throughput.SIDE) ** 3 / 1.0
        )
    finally:
        throughput.peak.cache_clear()
    assert torch.equal(torch.get_rng_state(), before)


def test_every_line_of_the_journal_that_is_shown_has_them(
    medgen, tiny, tmp_path, monkeypatch
) -> None:
    """`data_wait` and `mfu` are shares; a recipe that is not compiled has no `recompiles`."""
    monkeypatch.setattr(
        throughput, "peak", lambda *_: 1e15
    )  # a measured one may be of a moment that was busy
    assert (
        medgen(
            "train", "bravo_rflow", *tiny, *SMALL, "training.steps=3", f"run.dir={tmp_path}/r"
        ).code
        == 0
    )
    lines = [json.loads(line) for line in (tmp_path / "r/metrics.jsonl").read_text().splitlines()]
    shown = [line for line in lines if "images_per_second" in line]
    assert [line["step"] for line in shown] == [1, 3]
    assert all(
        0 <= line["data_wait"] <= 1 and 0 < line["mfu"] < 1 and line["flops"] > 1e6
        for line in shown
    )
    assert "recompiles" not in shown[0]


def test_a_line_of_the_log_has_at_most_120_characters() -> None:
    """Also in a run of a million steps of a large model on a fast device."""
    numbers = {
        "loss/train": 0.1234,
        "grad_norm": 12.34,
        "learning_rate": 1e-4,
        "images_per_second": 2021.5,
    }
    run = SimpleNamespace(
        epoch=5000, total_steps=1_000_000, step=100_000, recipe=SimpleNamespace(training=None)
    )
    run.recipe.training = TrainingSettings(steps=1, batch_size=512)
    line = training_line(run, {**numbers, "memory_gb": 139.9, "mfu": 0.4167})
    assert " 42% peak " in line
    assert len(f"step {run.step:>7}/{run.total_steps}  {line}  left {left(run, numbers)}") <= 120
    assert "peak" not in training_line(run, {**numbers, "memory_gb": 139.9})


def test_the_norm_in_a_line_is_that_of_the_turn_whose_loss_it_shows() -> None:
    """An autoencoder and its discriminator have a norm each."""
    numbers = {
        "loss/train": 0.1,
        "grad_norm/autoencoder": 2.0,
        "grad_norm/discriminator": 9.0,
        "learning_rate": 1e-4,
    }
    run = SimpleNamespace(epoch=1, recipe=None)
    assert "  grad 2.00  lr" in training_line(
        run, {**numbers, "images_per_second": 1.0, "memory_gb": 1.0}
    )


def test_recompiles_are_those_after_the_first_step_and_told_as_they_double() -> None:
    """A compiled function that meets a new shape is compiled again."""

    def meet(*sizes: int) -> None:
        for size in sizes:
            compiled(torch.ones(size))

    compiled = torch.compile(lambda x: x * 2, backend="eager", dynamic=False)
    recompiles = throughput.Recompiles()
    assert recompiles.count == 0
    meet(2, 3)
    recompiles.step_done()
    meet(2, 3, 4, 5)
    recompiles.step_done()
    assert (recompiles.count, recompiles.notice()) == (2, None)
    meet(6)
    assert (recompiles.notice() or "").startswith(
        "training.compile: the step was compiled 3 times more after the fi"
    )
    meet(7)
    assert (recompiles.count, recompiles.notice()) == (4, None)
