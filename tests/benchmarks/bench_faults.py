"""What it costs that no run is lost: saving over a plain `torch.save`, and steps with all checks over steps with none.

Saving: `medgen.run.checkpoint.save` (finite check, key list, fsync, reading back, keeping the last, rename) of 100 MB.
Steps: on is medgen's loop as it is. Off: no finite check of the gradient's norm, no flag to the optimizer, no count of
skipped steps, nobody asked whether to stop. Both clip, log and average. `python tests/benchmarks/bench_faults.py`
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parent))

from bench_step import compare, interval, medgen_step

from medgen.run import checkpoint
from medgen.training.trainer import Trainer


def saving(folder: Path, megabytes: int, pairs: int) -> dict[str, list[float]]:
    """Ratios of a save to what torch does alone, without and with an fsync."""
    state = {"network": {f"w{n}": torch.randn(1 << 18) for n in range(megabytes)}}

    def ours() -> None:
        checkpoint.save(state, folder / "latest.pt", folder / "prev.pt")

    def plain() -> None:
        torch.save(state, folder / "plain.pt")

    def synced() -> None:
        with open(folder / "synced.pt", "wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())

    for each in (ours, plain, synced):
        each()
    return {
        "save / torch.save": compare(ours, plain, pairs, 1, False),
        "save / torch.save + fsync": compare(ours, synced, pairs, 1, False),
        "torch.save / torch.save (A/A)": compare(plain, plain, pairs, 1, False),
    }


class Unchecked(Trainer):
    """Updates whatever the gradients are."""

    def _update(self, name: str, turn, record) -> None:  # type: ignore[no-untyped-def]
        run, optimizer = self.run, self.run.optimizers[name]
        norm = torch.nn.utils.clip_grad_norm_(
            list(turn.parameters()), self.training.clip or float("inf"), foreach=True
        )
        optimizer.found_inf = None
        optimizer.param_groups[0]["lr"] = run.learning_rate(run.step)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        record["grad_norm" if len(run.turns) == 1 else f"grad_norm/{name}"] = norm.detach()


def training(folder: Path, options: argparse.Namespace) -> dict[str, list[float]]:
    """Ratios of a step with all checks to one with none, on the same run in turn."""
    step, trainer = medgen_step(folder, options)
    plain = Trainer._update

    def mode(update: Callable[..., None], asks: bool) -> Callable[[], None]:
        def work() -> None:
            Trainer._update = update  # type: ignore[method-assign]
            if asks:
                trainer.run.stop_agreed()
            step()

        return work

    on, off = mode(plain, True), mode(Unchecked._update, False)
    for each in (on, off, on):
        each()
    cuda = torch.cuda.is_available()
    rows = {
        "checks on / off": compare(on, off, options.pairs, options.count, cuda),
        "off / off (A/A)": compare(off, off, options.pairs, options.count, cuda),
    }
    Trainer._update = plain  # type: ignore[method-assign]
    trainer.run.train.close()
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=30)
    parser.add_argument("--saves", type=int, default=10, help="pairs of saves")
    parser.add_argument("--megabytes", type=int, default=100)
    parser.add_argument("--count", type=int, default=1, help="steps in a block")
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--channels", default="128,256,256")
    parser.add_argument("--precision", default="bf16")
    options = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        rows = saving(Path(folder), options.megabytes, options.saves) | training(
            Path(folder), options
        )
    table = Table("ratio", "median", "95 % interval", "range", "pairs")
    for name, ratios in rows.items():
        median, low, high = interval(ratios)
        spread = f"{min(ratios):.3f} to {max(ratios):.3f}"
        table.add_row(name, f"{median:.3f}", f"{low:.3f} to {high:.3f}", spread, str(len(ratios)))
    console = Console(width=100)
    console.print(table)
    what = f"{options.megabytes} MB; unet ({options.channels}), {options.size} px, batch {options.batch}"
    console.print(f"{what}, {options.precision}; {time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()
