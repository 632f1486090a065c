"""medgen's whole training step (data, draws, losses, averaging, logging) over the bare step of the same network.

Both run in this process with the same network, optimizer and precision, a block of steps in turn; an A/A row of the
bare step against itself shows the noise.
`python tests/benchmarks/bench_step.py [--pairs 30] [--channels 128,256,256] [--axes 3]`
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parents[1]))

from data.cohort import write_cohort

from medgen.config.recipe import load
from medgen.run.assemble import assemble
from medgen.training.trainer import Trainer

RECIPE = str(Path(__file__).parents[2] / "recipes" / "bravo_rflow.toml")


def overrides(folder: Path, options: argparse.Namespace, *more: str) -> tuple[str, ...]:
    """Of the size that the options say, on data below `folder`."""
    return (
        f"data.root={folder / 'cohort'}", f"data.image_size={options.size}", "data.min_foreground=0.02",
        f"network.unet.channels=[{options.channels}]", f"training.batch_size={options.batch}", "training.steps=100000",
        "training.compile=false", "training.validate_every=0", f"training.precision={options.precision}", *more,
    )  # fmt: skip


def medgen_step(
    folder: Path, options: argparse.Namespace, *more: str
) -> tuple[Callable[[], None], Trainer]:
    """medgen's own loop, one step at a time, with every callback of a real recipe. more: `KEY=VALUE`."""
    write_cohort(folder / "cohort", patients=6, size=(64, 64, 24))
    (folder / "run").mkdir()
    run = assemble(load(RECIPE, overrides(folder, options, *more)), folder / "run")
    run.hooks.medgen_run_start(run=run)
    trainer = Trainer(run)

    def step() -> None:
        losses = trainer.step()
        if any(run.step % steps == 0 for steps in run.cadences):
            trainer.flush()
        run.hooks.medgen_step_end(run=run, losses=losses)

    return step, trainer


def bare_step(trainer: Trainer, options: argparse.Namespace) -> Callable[[], None]:
    """Forward, loss, backward, clip, fused AdamW: what any loop has to do, on one batch that stays where it is."""
    import copy

    run = trainer.run
    network = copy.deepcopy(run.network)
    optimizer = torch.optim.AdamW(network.parameters(), 1e-4, fused=True)
    shape, batch, device = run.recipe.data.shape, options.batch, run.device
    condition = -torch.ones(batch, 1, *shape, device=device)
    x0, noise = torch.randn(2, batch, 1, *shape, device=device)
    t = torch.rand(batch, device=device)

    def step() -> None:
        weight = t.view(-1, *(1,) * (x0.ndim - 1))
        with torch.autocast(device.type, torch.bfloat16, enabled=options.precision == "bf16"):
            output = network(
                torch.cat([(1 - weight) * x0 + weight * noise, condition], 1), t * 1000
            )
        (output.float() - (x0 - noise)).square().mean().backward()
        torch.nn.utils.clip_grad_norm_(list(network.parameters()), 1.0, foreach=True)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def seconds(step: Callable[[], object], count: int, cuda: bool) -> float:
    """Time per step over a block of steps."""
    began = time.perf_counter()
    for _ in range(count):
        step()
    if cuda:
        torch.cuda.synchronize()
    return (time.perf_counter() - began) / count


def compare(
    one: Callable[[], object], two: Callable[[], object], pairs: int, count: int, cuda: bool
) -> list[float]:
    """Ratios of one to two, interleaved; the order within a pair alternates."""
    ratios = []
    for pair in range(pairs):
        first, second = (one, two) if pair % 2 == 0 else (two, one)
        a, b = seconds(first, count, cuda), seconds(second, count, cuda)
        ratios.append(a / b if pair % 2 == 0 else b / a)
    return ratios


def interval(ratios: list[float]) -> tuple[float, float, float]:
    """Median and the 95 % interval of the median, by order statistics."""
    ordered, n = sorted(ratios), len(ratios)
    reach = 0.98 * n**0.5
    low, high = int(max(0, n / 2 - reach)), int(min(n - 1, n / 2 + reach))
    return statistics.median(ordered), ordered[low], ordered[high]


def measure(folder: Path, options: argparse.Namespace, axes: int = 2) -> dict[str, list[float]]:
    """Ratios by name."""
    cuda = torch.cuda.is_available()
    ours, trainer = medgen_step(folder, options, f"data.dimensions={axes}")
    bare, again = bare_step(trainer, options), bare_step(trainer, options)
    for step in (ours, bare, again):
        seconds(step, 3, cuda)
    rows = {
        "medgen / bare": compare(ours, bare, options.pairs, options.count, cuda),
        "bare / bare (A/A)": compare(again, bare, options.pairs, options.count, cuda),
    }
    trainer.run.train.close()
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=30)
    parser.add_argument("--count", type=int, default=1, help="steps in a block")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--channels", default="128,256,256")
    parser.add_argument("--precision", default="bf16")
    parser.add_argument("--axes", type=int, default=2, choices=(2, 3), help="of the samples")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows = measure(Path(folder), options, options.axes)
    table = Table("ratio", "median", "95 % interval", "pairs")
    for name, ratios in rows.items():
        median, low, high = interval(ratios)
        table.add_row(name, f"{median:.3f}", f"{low:.3f} to {high:.3f}", str(len(ratios)))
    console = Console(width=100)
    console.print(table)
    console.print(
        f"unet ({options.channels}), {options.size} px, {options.axes} axes, batch {options.batch},"
        f" {options.precision}"
    )


if __name__ == "__main__":
    main()
