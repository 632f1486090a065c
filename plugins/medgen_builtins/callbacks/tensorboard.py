"""Everything that is logged, in TensorBoard."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medgen import field, gt, hookimpl, settings
from medgen.names import is_utf8

if TYPE_CHECKING:
    from medgen.run import Run

medgen_api = 1


@settings
class TensorBoard:
    """Numbers, pictures and the resolved recipe, in the run's folder `tensorboard/`."""

    every_steps: int = field(50, help="read the losses at least this often", check=gt(0))
    may_change = ("every_steps",)

    def build(self, run: Run) -> Writing:
        run.show_every(self.every_steps)
        return Writing()


class Writing:
    """Opens the writer once the run's state is restored, so that what a crash left beyond it is dropped."""

    @hookimpl
    def medgen_run_start(self, run: Run) -> None:
        if not run.leads:
            return
        from torch.utils.tensorboard import SummaryWriter

        from medgen.recipe import public_toml

        self.writer = SummaryWriter(_nameable(run.dir / "tensorboard"), purge_step=run.step + 1)
        if run.step == 0:
            text = "".join(f"    {line}\n" for line in public_toml(run.recipe).splitlines())  # a block in Markdown
            self.writer.add_text("recipe", text, 0)

    @hookimpl
    def medgen_log(self, run: Run, scalars: Mapping[str, float], images: Mapping[str, Any]) -> None:
        for name, value in scalars.items():
            self.writer.add_scalar(name, value, run.step)
        for name, image in images.items():
            self.writer.add_image(name, image, run.step, dataformats="HWC")
        self.writer.flush()  # a save may follow, and what is before it is not written again

    @hookimpl
    def medgen_run_end(self) -> None:
        if hasattr(self, "writer"):
            self.writer.close()


@hookimpl
def medgen_callbacks() -> dict[str, type]:
    return {"tensorboard": TensorBoard}


def _nameable(folder: Path) -> str:
    """The folder by a name that TensorBoard can write as UTF-8: where its own is none, that of an open file."""
    if is_utf8(str(folder)):
        return str(folder)
    folder.mkdir(parents=True, exist_ok=True)
    return f"/proc/self/fd/{os.open(folder, os.O_RDONLY)}"  # open until the process ends, as the writer may be
