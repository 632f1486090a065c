"""Training in latents from the cache over encoding in every step, and generating in latents over generating in pixels.

Each pair runs in this process, in turn; weights are random, which costs the same as trained ones.
`python tests/benchmarks/bench_latent.py [--pairs 10] [--size 128] [--autoencoder 64,128,256] [--channels 128,256,256]`
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parent))

from bench_step import RECIPE, compare, interval, overrides, seconds
from data.cohort import write_cohort

from medgen import seeds
from medgen.api.recipe import Recipe
from medgen.config.recipe import load, public_toml
from medgen.run import checkpoint
from medgen.run.assemble import Parts, assemble, build, default_device
from medgen.run.run import TrainingRun
from medgen.training import sampling
from medgen.training.trainer import Trainer


def write_autoencoder(path: Path, options: argparse.Namespace) -> None:
    """A checkpoint of one that was never trained."""
    recipe = load(
        str(Path(RECIPE).with_name("vae_bravo.toml")),
        [f"network.autoencoder.channels=[{options.autoencoder}]"],
    )
    network = recipe.network.build(1, 1)
    checkpoint.save(
        {"recipe": public_toml(recipe), "network": network.state_dict(), "averaged": None}, path
    )


def recipe(folder: Path, options: argparse.Namespace, *more: str) -> Recipe:
    return load(RECIPE, overrides(folder, options, "callbacks.previews=false", *more))


def training_step(
    folder: Path, name: str, options: argparse.Namespace, cached: bool
) -> tuple[Callable[[], None], TrainingRun]:
    """medgen's own step; without the cache, each batch of images goes through the encoder."""
    (folder / name).mkdir()
    run = assemble(
        recipe(folder, options, "space=latent", f"space.latent.checkpoint={folder}/ae.pt"),
        folder / name,
    )
    if not cached:
        run.train.prepared = run.val.prepared = None
    run.hooks.medgen_run_start(run=run)
    trainer = Trainer(run)

    def step() -> None:
        losses = trainer.step()
        if run.step % 50 == 0:
            trainer.flush()
        run.hooks.medgen_step_end(run=run, losses=losses)

    return step, run


def generating(parts: Parts, options: argparse.Namespace) -> Callable[[], None]:
    """One batch of images, as `generate` makes it."""
    device, side = default_device(), options.size
    condition = -torch.ones(options.batch, 1, side, side, device=device)
    shape = parts.space.shape((side, side))

    def make() -> None:
        draw = sampling.noise(
            [seeds.stream(0, "image", each) for each in range(options.batch)], shape, device
        )
        with sampling.evaluation(parts.network), sampling.autocast(device, options.precision):
            sampling.sample(
                parts.strategy, parts.space, parts.network, condition, draw, options.steps
            )

    return make


def measure(
    folder: Path, options: argparse.Namespace
) -> tuple[dict[str, list[float]], list[float]]:
    """Ratios by name, and images per second of the first and the second of each."""
    cuda = torch.cuda.is_available()
    write_cohort(folder / "cohort", patients=4, size=(64, 64, 12))
    write_autoencoder(folder / "ae.pt", options)
    cached, run = training_step(folder, "cached", options, cached=True)
    encoding, other = training_step(folder, "encoding", options, cached=False)
    latents = Parts(run.mode, run.space, run.strategy, run.network)
    pixels = build(recipe(folder, options), default_device())
    make = [generating(parts, options) for parts in (pixels, latents)]
    for step in (cached, encoding):
        seconds(step, 3, cuda)
    rows = {
        "steps per second, cache / encoding": compare(
            encoding, cached, options.pairs, options.count, cuda
        )
    }
    times = [
        options.batch / seconds(step, max(options.count, 3), cuda) for step in (cached, encoding)
    ]
    for each in (run, other):
        each.train.close()
    for each in make:
        seconds(each, 1, cuda)
    generated = max(2, options.pairs // 3)
    rows["images per second, latents / pixels"] = compare(make[0], make[1], generated, 1, cuda)
    times += [options.batch / seconds(each, 1, cuda) for each in reversed(make)]
    return rows, times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=10)
    parser.add_argument("--count", type=int, default=1, help="steps in a block")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--steps", type=int, default=25, help="of the sampler")
    parser.add_argument("--channels", default="128,256,256")
    parser.add_argument("--autoencoder", default="64,128,256")
    parser.add_argument("--precision", default="bf16")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        os.environ["MEDGEN_CACHE"] = f"{temporary}/cache"
        rows, times = measure(Path(temporary), options)
    table = Table(
        "ratio", "median", "95 % interval", "pairs", "first, images/s", "second, images/s"
    )
    for number, (name, ratios) in enumerate(rows.items()):
        median, low, high = interval(ratios)
        each = [f"{time:.1f}" for time in times[2 * number : 2 * number + 2]]
        table.add_row(name, f"{median:.2f}", f"{low:.2f} to {high:.2f}", str(len(ratios)), *each)
    console = Console(width=120)
    console.print(table)
    what = f"autoencoder ({options.autoencoder}), unet ({options.channels}), {options.size} px"
    console.print(
        f"{what}, batch {options.batch}, {options.steps} sampling steps, {options.precision}"
    )


if __name__ == "__main__":
    main()
