"""Event files of TensorBoard, which may fail without ending a run."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch.utils.tensorboard import SummaryWriter

from medgen import Callback, Run, hookimpl
from medgen.config.recipe import public_toml
from medgen.system.console import warn
from medgen.system.names import is_utf8


class Writing(Callback):
    """Opens the writer once the run's state is restored, dropping events that a crash left later.

    If events cannot be written, training goes on; writing is tried again after each epoch.
    """

    def __init__(self) -> None:
        self.writer: Any = None
        self._hook: Callable[[Any], Any] | None = None

    @hookimpl
    def medgen_run_start(self, run: Run) -> None:
        if not run.is_rank_zero:
            return
        self._hook = threading.excepthook
        threading.excepthook = self._hear
        self._open(run)
        if run.step == 0:
            text = "".join(
                f"    {line}\n" for line in public_toml(run.recipe).splitlines()
            )  # a block in Markdown
            with self._spared(run):
                self.writer.add_text("recipe", text, 0)

    @hookimpl
    def medgen_log(self, run: Run, scalars: Mapping[str, float], images: Mapping[str, Any]) -> None:
        with self._spared(run):
            for name, value in scalars.items():
                self.writer.add_scalar(name, value, run.step)
            for name, image in images.items():
                self.writer.add_image(name, image, run.step, dataformats="HWC")
            self.writer.flush()  # a save may follow, and what is before it is not written again

    @hookimpl
    def medgen_epoch_end(self, run: Run) -> None:
        if run.is_rank_zero and self.writer is None:
            self._open(run)

    @hookimpl
    def medgen_run_end(self, run: Run) -> None:
        with self._spared(run):
            self.writer.close()
        if self._hook is not None:
            threading.excepthook = self._hook

    def _open(self, run: Run) -> None:
        with self._spared(run, opens=True):
            self.writer = SummaryWriter(_nameable(run.dir / "tensorboard"), purge_step=run.step + 1)

    @contextmanager
    def _spared(self, run: Run, opens: bool = False) -> Iterator[None]:
        """Use the writer, if there is one, and do without it once it fails."""
        if self.writer is None and not opens:
            self.writer = _Nothing()
        try:
            yield
        except OSError as error:
            self.writer = None
            what = f"cannot be written ({error.strerror or error})"
            warn(
                f"{run.dir / 'tensorboard'}: {what}. Training goes on; metrics.jsonl has the numbers."
            )
        finally:
            if isinstance(self.writer, _Nothing):
                self.writer = None

    def _hear(self, failed: Any) -> None:
        """The writer's next call raises what ended its thread, so no traceback is needed."""
        if type(failed.thread).__name__ != "_AsyncWriterThread" and self._hook is not None:
            self._hook(failed)


class _Nothing:
    """A writer that writes nothing."""

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *_, **__: None


def _nameable(folder: Path) -> str:
    """Return a UTF-8 name of the folder for TensorBoard; without one, that of an open file."""
    if is_utf8(str(folder)):
        return str(folder)
    folder.mkdir(parents=True, exist_ok=True)
    return f"/proc/self/fd/{os.open(folder, os.O_RDONLY)}"  # open until the process ends, as the writer may be
