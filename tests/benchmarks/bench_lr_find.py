"""Whether the finder's suggestion can be relied on: its spread over seeds, and whether it trains better than others.

For each seed: sweep, then train 200 steps at a tenth of the suggestion, at it, and at ten times it, at a constant rate
from the same weights, and score each on the sweep's own kind of probe, with live weights.
`python tests/benchmarks/bench_lr_find.py RECIPE [KEY=VALUE...] [--seeds 5] [--steps 200]`
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch
from medgen_builtins.callbacks._lr_sweep import Finder, Probe, unchanged
from medgen_builtins.callbacks.lr_find import LrFind
from rich.console import Console
from rich.table import Table

from medgen.config.recipe import load
from medgen.run.assemble import assemble
from medgen.run.run import TrainingRun
from medgen.training.trainer import Trainer

FACTORS = (0.1, 1.0, 10.0)
WITHOUT = ("ema", "previews", "checkpoints", "tensorboard", "progress")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("recipe")
    parser.add_argument("overrides", nargs="*")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    console = Console()
    rows = [measure(options, seed, console) for seed in range(options.seeds)]
    console.print(table(rows, options))
    rates = [rate for rate, _ in rows if rate]
    best = sum(losses[1] < min(losses[0], losses[2]) for rate, losses in rows if rate)
    console.print(
        f"{options.recipe}: conclusive {len(rates)} of {len(rows)}, spread {max(rates) / min(rates):.2f} (goal: 3), "
    )
    console.print(
        f"better than a tenth and ten times in {best} of {len(rows)} seeds (goal: 4 of 5)"
    )


def measure(options: argparse.Namespace, seed: int, console: Console) -> tuple[float, list[float]]:
    """The suggestion, and the losses after training at each factor of it; 0 and none if it is inconclusive."""
    overrides = [
        *options.overrides,
        f"run.seed={seed}",
        *(f"callbacks.{name}=false" for name in WITHOUT),
    ]
    with tempfile.TemporaryDirectory() as folder:
        run = assemble(load(options.recipe, overrides), Path(folder))
        finding = Finder(LrFind()).find(run)
        rate = finding.suggestion or 0.0
        losses = [trained(run, factor * rate, options.steps) for factor in FACTORS] if rate else []
        run.train.close()
        run.metrics_file.close()
    console.print(
        f"seed {seed}  suggestion {rate:.2e}  bound {finding.bound or 0:.2e}  {finding.verdict}  {losses}"
    )
    return rate, losses


def trained(run: TrainingRun, rate: float, steps: int) -> float:
    """The probe's score after some steps at a rate; the run is as before afterwards."""
    with unchanged(run):
        trainer = Trainer(run)
        run.learning_rate = lambda step: rate  # type: ignore[method-assign]
        for _ in range(steps):
            trainer.step()
            trainer.readings.discard()
        return Probe(run).score()


def table(rows: Sequence[tuple[float, Sequence[float]]], options: argparse.Namespace) -> Table:
    """One line a seed."""
    result = Table(title=f"{options.recipe}, {options.steps} steps")
    for column in ("seed", "suggestion", *(f"loss at {factor:g} times" for factor in FACTORS)):
        result.add_column(column, justify="right")
    for seed, (rate, losses) in enumerate(rows):
        result.add_row(str(seed), f"{rate:.2e}", *(f"{loss:.4f}" for loss in losses))
    return result


if __name__ == "__main__":
    main()
