"""A bar on a terminal, lines of fixed fields in a log."""

from __future__ import annotations

import time
from collections.abc import Mapping

from rich import progress

from medgen import Callback, Run, hookimpl
from medgen.ranks.collectives import size
from medgen.system import console

SILENT = 30.0
"""Maximum seconds between lines."""


class Reporting(Callback):
    """Shows what passes through `medgen_log`."""

    def __init__(self, every_steps: int):
        self.every_steps = every_steps
        self._alone = size() == 1  # ranks have clocks of their own, and read numbers together
        self._bar: progress.Progress | None = None
        self._first, self._said = 0, time.monotonic()

    @hookimpl
    def medgen_run_start(self, run: Run) -> None:
        self._first, self._said = run.step + 1, time.monotonic()
        if console.out.is_terminal:
            self._bar = _bar(run)
            self._bar.start()

    @hookimpl
    def medgen_step_end(self, run: Run) -> None:
        if run.step == self._first or self._overdue():
            run.flush()

    @hookimpl
    def medgen_log(self, run: Run, scalars: Mapping[str, float]) -> None:
        if "loss/val" in scalars:
            console.say(validation_line(run, scalars))
        if "loss/train" not in scalars:
            return
        line = training_line(run, scalars)
        if self._bar:
            self._bar.update(progress.TaskID(0), completed=run.step, numbers=line)
        elif (
            run.step % self.every_steps == 0
            or run.complete
            or run.step == self._first
            or self._overdue()
        ):
            compiled = (
                run.recipe.training.compile and run.step == self._first
            )  # so nothing is known yet
            rest = "-:--:--" if compiled else left(run, scalars)
            console.say(f"step {run.step:>7}/{run.total_steps}  {line}  left {rest}")
            self._said = time.monotonic()

    def _overdue(self) -> bool:
        """Return True if the last line is long ago, as on a slow device."""
        return self._alone and time.monotonic() - self._said >= SILENT

    @hookimpl
    def medgen_run_end(self) -> None:
        if self._bar:
            self._bar.stop()


def _bar(run: Run) -> progress.Progress:
    times = (progress.TimeElapsedColumn(), "elapsed", progress.TimeRemainingColumn(), "left")
    columns = (
        progress.MofNCompleteColumn(),
        progress.BarColumn(20),
        *times,
        "{task.fields[numbers]}",
    )
    bar = progress.Progress("training", *columns, console=console.out)
    bar.add_task("training", total=run.total_steps, completed=run.step, numbers="")
    return bar


def training_line(run: Run, scalars: Mapping[str, float]) -> str:
    """Format a training line with fields of fixed width."""
    peak = f"  {scalars['mfu']:>3.0%} peak" if "mfu" in scalars else ""
    speed = f"{scalars['images_per_second']:>6.1f} img/s{peak}"
    norms = [
        value for name, value in scalars.items() if name.startswith("grad_norm")
    ]  # of the turns, in their order
    norm = f"grad {norms[0]:.2f}  " if norms else ""
    return (
        f"epoch {run.epoch:>4}  loss {scalars['loss/train']:.4f}  {norm}"
        f"lr {scalars['learning_rate']:.1e}  {speed}  {scalars['memory_gb']:.1f} GB"
    )


def validation_line(run: Run, scalars: Mapping[str, float]) -> str:
    """Format the validation loss and the other metrics in short."""
    names = {
        "psnr/x0": ("psnr", ".1f"), "psnr/image": ("psnr", ".1f"), "psnr/head": ("in the head", ".1f"),
        "ssim": ("ssim", ".3f"), "mse/lesion": ("lesion", ".4f"), "mse/outside": ("outside", ".4f"),
    }  # fmt: skip
    rest = "".join(
        f"  {short} {scalars[name]:{how}}"
        for name, (short, how) in names.items()
        if name in scalars
    )
    return f"valid {run.step:>6}/{run.total_steps}  epoch {run.epoch:>4}  loss {scalars['loss/val']:.4f}{rest}"


def left(run: Run, scalars: Mapping[str, float]) -> str:
    """Estimate the time left at the speed of the last steps, as hours:minutes:seconds."""
    speed = scalars["images_per_second"] / run.recipe.training.batch_size
    minutes, seconds = divmod(int((run.total_steps - run.step) / max(speed, 1e-9)), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{seconds:02d}"
