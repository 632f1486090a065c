"""Start a process per device of a node with torch's elastic agent; report one that dies silently."""

from __future__ import annotations

import logging
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medgen.config.checks import require_equal_shares
from medgen.data.store.processes import count_cores
from medgen.errors import MedgenError, Problem, RankError, StoppedError, of_system
from medgen.ranks import heartbeat
from medgen.ranks.place import NOTES, PARENT, check_devices
from medgen.ranks.process_group import AFTER
from medgen.system.signals import NAMES, answered, exit_code_for

if TYPE_CHECKING:
    from medgen.api.recipe import Recipe


def supervise(arguments: list[str], recipe: Recipe) -> int:
    """Run `medgen ARGUMENTS` in a process per device of this node; return the exit code of all."""
    require_equal_shares(recipe, recipe.training.devices)
    check_devices(recipe.training.devices)
    with surroundings(recipe.training.devices) as notes:
        return Supervisor(arguments, recipe.training.devices, notes).run()


@contextmanager
def surroundings(devices: int) -> Iterator[Path]:
    """Set environment, logging and signals for workers and torch's agent, and restore them after.

    Yields a folder for notes.
    """
    environment, disabled = dict(os.environ), logging.root.manager.disable
    quit_ = signal.getsignal(signal.SIGQUIT)
    with tempfile.TemporaryDirectory(prefix="medgen-") as notes:
        os.environ.setdefault("OMP_NUM_THREADS", str(max(1, count_cores() // devices)))
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
        os.environ |= {
            NOTES: notes,
            "TORCHELASTIC_SIGNALS_TO_HANDLE": "SIGQUIT",
        }  # the rest go to the workers
        logging.disable(logging.CRITICAL)  # torch's agent logs forty lines where medgen prints one
        try:
            yield Path(notes)
        finally:
            logging.disable(disabled)
            signal.signal(signal.SIGQUIT, quit_)
            for name in {*os.environ} - {*environment}:
                del os.environ[name]
            os.environ |= environment


class Supervisor:
    """Start workers with torch's elastic agent, forward signals, and report a worker that could
    not report itself.
    """

    def __init__(self, arguments: list[str], devices: int, notes: Path):
        from medgen.ranks.agent import (
            make_agent,
        )  # a second of imports, for those who start processes

        (notes / PARENT).write_text(str(os.getpid()))
        self.notes, self.devices = notes, devices
        self.agent = make_agent(arguments, devices, notes, self._look)
        self.ended: set[int] = set()
        """Pids of processes that were killed because they outlived a failed one."""
        self.asked = 0
        self._failed = False

    def run(self) -> int:
        with answered(self._forward), closing(self):
            try:
                result = self.agent.run()
            except OSError as error:
                raise of_system(error, "train") or _not_started(error) from error
        return self._judge(list(result.failures.items()))

    def close(self) -> None:
        """End the threads of the rendezvous of torch's agent."""
        self.agent.get_worker_group().spec.rdzv_handler.shutdown()

    def _pids(self) -> list[int]:
        workers = [each.id for each in self.agent.get_worker_group().workers]
        return [each for each in workers if isinstance(each, int)]

    def _forward(self, number: int, _: Any) -> None:
        self.asked = number
        if not self._pids():
            raise self._stopped(number)
        for pid in self._pids():
            _kill(pid, number)

    def _look(self) -> None:
        """If a worker failed, kill the rest after `AFTER` seconds; torch's agent would wait 30 s."""
        if not self._failed and any(map(_has_failed, self._pids())):
            self._failed = True
            threading.Thread(target=self._end_stragglers, daemon=True).start()

    def _end_stragglers(self) -> None:
        time.sleep(AFTER)
        for pid in self._pids():
            if _is_alive(pid):
                self.ended.add(pid)
                _kill(pid, signal.SIGKILL)

    def _judge(self, failures: list[tuple[int, Any]]) -> int:
        """Return the exit code of the first worker with an error of its own.

        Raises RankError if a signal killed it.
        """
        told = (
            RankError.exit_code,
            -signal.SIGTERM,
            -self.asked,
        )  # a signal may arrive before a worker handles it
        own = [
            each
            for each in failures
            if each[1].exitcode not in told and each[1].pid not in self.ended
        ]
        if own and own[0][1].exitcode < 0:
            number, failure = own[0]
            raise RankError(
                self._killed(number, failure.pid, signal.Signals(-failure.exitcode).name)
            )
        if own:
            return int(own[0][1].exitcode)
        if failures and not (self.notes / "told").exists():
            if self.asked:
                raise self._stopped(self.asked)
            raise RankError(
                Problem(
                    "",
                    f"rank {failures[0][0]} lost the others",
                    "Give the same command with --resume auto",
                )
            )
        return RankError.exit_code if failures else 0

    def _killed(self, number: int, pid: int, name: str) -> Problem:
        note = self.notes / "folder"
        if note.exists():
            folder = Path(note.read_text(encoding="utf-8", errors="surrogateescape"))
            return heartbeat.gone(
                folder, number, f"was killed by {name}", f" --devices {self.devices}"
            )
        what = f"rank {number} (pid {pid}) was killed by {name} before it trained"
        return Problem("", what, "Give the same command again")

    def _stopped(self, number: int) -> MedgenError:
        name = NAMES[signal.Signals(number)]
        return StoppedError(
            Problem("train", f"stopped by {name} before it trained", "Give the same command again"),
            exit_code=exit_code_for(name),
        )


def _not_started(error: OSError) -> RankError:
    what = f"{error.filename or sys.executable}: a process could not be started ({error.strerror or error})"
    return RankError(
        Problem(
            "",
            what,
            "See that Python can be run and processes are left (ulimit -u), then try again",
        )
    )


def _has_failed(pid: int) -> bool:
    """Return True if a process ended with an error. Does not reap it; torch's agent does."""
    try:
        ended = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return ended is not None and ended.si_status != 0


def _is_alive(pid: int) -> bool:
    try:
        return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None
    except ChildProcessError:
        return False


def _kill(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return
