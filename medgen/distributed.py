"""Ranks: processes that train together. What they share and decide, how they are started, and how they are watched.

Alone, everything here does nothing: `rank()` is 0, `size()` is 1, and no function waits. Collective functions, `share`,
`once`, `wait`, `total`, `first_on_node` and a `Vote`, must be called by all ranks in the same order.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from medgen import console
from medgen.errors import MedgenError, RankError, RecipeError, StoppedError

if TYPE_CHECKING:
    from medgen.recipe import Recipe

Result = TypeVar("Result")

PATIENCE = timedelta(days=30)
"""How long ranks wait for one that saves or validates: as long as it lives, which is what heartbeats tell."""
TICK = 0.25
"""Seconds between heartbeats."""
AFTER = 5.0
"""Seconds that a rank has more than the watch: so that the silent rank is named, not the one that waited for it."""
NOTES = "MEDGEN_NOTES"
"""Names the folder in which workers leave notes for the process that started them, if that was medgen."""


class Place(NamedTuple):
    """A process among those that train together."""

    rank: int
    size: int
    local: int


def place(environment: Mapping[str, str] = os.environ) -> Place | None:
    """Where `torchrun` or `srun` put this process; None if it was started by neither."""
    if "RANK" in environment and "WORLD_SIZE" in environment:
        rank, size = int(environment["RANK"]), int(environment["WORLD_SIZE"])
        return Place(rank, size, int(environment.get("LOCAL_RANK", rank)))
    # of the step, as a batch script has a rank of its own and no step
    if int(environment.get("SLURM_STEP_NUM_TASKS", 1)) > 1:
        names = ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID")
        return Place(*(int(environment[name]) for name in names))
    return None


def rank() -> int:
    """This process's number, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def size() -> int:
    """How many processes train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def leads() -> bool:
    """Whether this is the process that writes and prints."""
    return rank() == 0


# What ranks share and decide


class _State:
    """The process's own, while it is joined. control: a group on the CPU, for all but gradients."""

    control: dist.ProcessGroup | None = None
    local = 0
    pulse: Pulse | None = None


def share(value: Any, source: int = 0) -> Any:
    """The value that one rank has, for all; of JSON's types."""
    if size() == 1:
        return value
    text = json.dumps(value).encode() if rank() == source else b""
    length = torch.tensor([len(text)])
    with waiting():
        dist.broadcast(length, source, group=_State.control)
        data = torch.tensor(list(text) or [0] * int(length), dtype=torch.uint8)
        dist.broadcast(data, source, group=_State.control)
    return json.loads(bytes(data.tolist()))


def once(work: Callable[[], Any]) -> Any:
    """Let rank 0 do it; its result, of JSON's types, for all."""
    return share(work() if leads() else None)


def wait() -> None:
    """Until all ranks are here, however long one of them saves."""
    if size() > 1:
        with waiting():
            dist.barrier(group=_State.control)


def total(values: Tensor) -> Tensor:
    """The sum over the ranks."""
    values = values.clone()
    if size() > 1:
        with waiting():
            dist.all_reduce(values)
    return values


def total_of(values: Tensor, summed: Sequence[bool]) -> list[float]:
    """The sums over the ranks of those values `[n]` that are `summed`; the others, which all have, as they are.

    One transfer from the device.
    """
    if size() == 1:
        return list(values.tolist())
    return list(torch.where(torch.tensor(summed, device=values.device), total(values), values).tolist())


@contextmanager
def first_on_node() -> Iterator[None]:
    """One process of each node does it, then the others, who find it done."""
    if _State.local:
        wait()
    yield
    if not _State.local:
        wait()


class Vote:
    """Whether any rank says yes, as asked one call before, so that no call waits; alone, the answer is at once."""

    def __init__(self) -> None:
        self._asked: tuple[Tensor, dist.Work] | None = None

    def __call__(self, mine: bool) -> bool:
        if size() == 1:
            return mine
        before, self._asked = self._asked, self._ask(mine)
        if before is None or not self._answer(before):
            return False
        self._answer(self._asked)  # the same question again
        self._asked = None
        return True

    def _ask(self, mine: bool) -> tuple[Tensor, dist.Work]:
        flag = torch.tensor([int(mine)])
        return flag, dist.all_reduce(flag, dist.ReduceOp.MAX, group=_State.control, async_op=True)

    def _answer(self, asked: tuple[Tensor, dist.Work]) -> bool:
        with waiting():
            asked[1].wait()
        return bool(asked[0].item())


def first_said(text: str | None) -> str:
    """The text of the first rank that has one; one must."""
    if size() == 1:
        return text or ""
    source = torch.tensor([size() if text is None else rank()])
    with waiting():
        dist.all_reduce(source, dist.ReduceOp.MIN, group=_State.control)
    return str(share(text, int(source)))


# What ranks compute


def wrap(turn: Any) -> Any:
    """A turn whose gradients are the means over the ranks after `backward`."""
    if size() == 1:
        return turn
    return DistributedDataParallel(turn, gradient_as_bucket_view=True)


def unreduced(turn: Any) -> AbstractContextManager[Any]:
    """While a part of a batch is computed that is not the last: gradients stay where they are."""
    return turn.no_sync() if isinstance(turn, DistributedDataParallel) else nullcontext()


def scaled(loss: Tensor) -> Tensor:
    """A share of a mean over the batch, so that the mean of the ranks' gradients is that of the batch."""
    return loss if size() == 1 else loss * size()


def rows(batch_size: int, parts: int) -> np.ndarray | None:
    """Which rows of a batch are this rank's: its share of each part, `[batch_size / size]`; None: all."""
    return None if size() == 1 else np.arange(batch_size).reshape(parts, size(), -1)[:, rank()].ravel()


def check(recipe: Recipe, devices: int) -> None:
    """Raise RecipeError if so many ranks cannot share a batch."""
    training = recipe.training
    if training.batch_size % (devices * training.accumulate):
        raise RecipeError(
            f"training.batch_size: got {training.batch_size}, expected a multiple of {devices} devices x "
            f"training.accumulate = {training.accumulate}. Change one of them."
        )


def check_devices(wanted: int) -> None:
    """Raise RecipeError if this node has GPUs, but fewer than wanted."""
    if 0 < torch.cuda.device_count() < wanted:
        raise RecipeError(
            f"training.devices: got {wanted}, this node has {torch.cuda.device_count()}. Use at most as many."
        )


# Joining


@contextmanager
def joined(recipe: Recipe) -> Iterator[None]:
    """Take part, if this process was started as one of several. One rank tells of an error, the first that has one."""
    where = place()
    if where is None or where.size == 1:
        yield
        return
    try:
        check(recipe, where.size)
    except RecipeError:  # all ranks find the same, and none may leave while others wait for it to join
        if where.rank:
            raise RankError([]) from None
        raise
    try:
        _join(where, recipe)
        check_devices(where.local + 1)
        yield
    except StoppedError:
        if not _State.pulse and not _first_to_fail():
            raise RankError([]) from None
        console.err.quiet = False
        _forget()
        raise
    except Exception as error:
        if lost_others(error) or not _first_to_fail():
            raise RankError([]) from error
        console.err.quiet = False
        raise
    _forget()
    dist.destroy_process_group()
    _State.control, _State.local = None, 0


def _forget() -> None:
    if _State.pulse:
        _State.pulse.stop()
    _State.pulse = None


def end(code: int) -> None:
    """End the process at once after a failure: to leave a group in order, all would have to be there."""
    if dist.is_initialized():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _join(where: Place, recipe: Recipe) -> None:
    _end_with_parent()
    os.environ.update(_meeting(where))
    cuda = torch.cuda.is_available()
    if cuda and where.local < torch.cuda.device_count():
        torch.cuda.set_device(where.local)
    allowed = timedelta(seconds=recipe.distributed.timeout + AFTER)
    dist.init_process_group("nccl" if cuda else "gloo", timeout=allowed, rank=where.rank, world_size=where.size)
    _State.control, _State.local = dist.new_group(backend="gloo", timeout=PATIENCE), where.local
    if where.rank:
        console.out.quiet = console.err.quiet = True


def _meeting(where: Place) -> dict[str, str]:
    """Where ranks meet, for those that `srun` started."""
    if "MASTER_ADDR" in os.environ:
        return {}
    job = int(os.environ.get("SLURM_JOB_ID", 0)) * 7 + int(os.environ.get("SLURM_STEP_ID", 0))
    return {"MASTER_ADDR": _first_node(), "MASTER_PORT": str(20_000 + job % 12_000)}


def _first_node() -> str:
    if os.environ.get("SLURM_STEP_NUM_NODES") == "1":
        return "127.0.0.1"
    nodes = os.environ.get("SLURM_STEP_NODELIST", "")
    try:
        listed = subprocess.run(["scontrol", "show", "hostnames", nodes], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise RankError(
            f"srun: `scontrol show hostnames {nodes}` failed ({error}). Set MASTER_ADDR to the first node."
        ) from error
    return listed.stdout.split()[0]


def _end_with_parent() -> None:
    """Who was started by a process that was killed has nobody to report to, and must not train on alone."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(TICK)
        os._exit(RankError.exit_code)

    threading.Thread(target=watch, daemon=True).start()


def lost_others(error: BaseException) -> bool:
    """Whether an error only tells that another rank is gone."""
    return isinstance(error, dist.DistError) or (
        isinstance(error, RuntimeError) and re.search("gloo|NCCL|Connection closed", str(error)) is not None
    )


def _first_to_fail() -> bool:
    """Whether no other rank has told of an error before."""
    where = place()
    if not dist.is_initialized():
        return where is None or where.rank == 0
    try:
        first: bool = dist.distributed_c10d._get_default_store().add("medgen/failed", 1) == 1
    except RuntimeError:  # the rank that kept the count is gone
        return False
    if first:
        _leave_note("told")
    return first


def _leave_note(name: str, text: str = "") -> None:
    """For the process that started this one, if that was medgen."""
    if NOTES in os.environ:
        Path(os.environ[NOTES], name).write_text(text)


# Heartbeats


class Beat(NamedTuple):
    """What a rank last let know of itself. idle: seconds since it last went on. saved: step of `latest.pt`."""

    number: int
    pid: int
    step: int
    saved: int
    state: str
    idle: float


class Pulse:
    """A file `.rank-N` in the run's folder, rewritten all the time; and an eye on those of other ranks.

    Rank 0 watches all, and rank 1 watches rank 0. A process that is stopped or lost writes nothing. One that is
    `working`, not `waiting` for others nor `busy` with what may take long, has to go on within the timeout.
    """

    def __init__(self, folder: Path, timeout: float, step: int):
        self.folder, self.timeout, self.step, self.saved = folder, timeout, step, step
        self.state, self._changed, self._count = "busy", time.monotonic(), 0
        others = range(1, size()) if leads() else [0] if rank() == 1 else []
        self._seen = {other: (-1, time.monotonic()) for other in others}
        self._rank, self._ended, self._writing = rank(), threading.Event(), threading.Lock()
        self._file = os.open(_file(folder, rank()), os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o644)
        threading.Thread(target=self._beat, daemon=True).start()

    def mark(self, state: str) -> None:
        """What the rank does from now on."""
        self.state, self._changed = state, time.monotonic()

    def stop(self) -> None:
        """No longer beat or watch; all ranks have done their work."""
        self._ended.set()
        _file(self.folder, self._rank).unlink(missing_ok=True)

    def write(self) -> None:
        """Let the others know now."""
        with self._writing:
            self._count += 1
            idle = time.monotonic() - self._changed
            beat = Beat(self._count, os.getpid(), self.step, self.saved, self.state, round(idle, 1))
            os.pwrite(self._file, json.dumps(beat).ljust(100).encode(), 0)

    def _beat(self) -> None:
        while not self._ended.is_set():
            self.write()
            for other in self._seen:
                self._watch(other)
            self._ended.wait(TICK)

    def _watch(self, other: int) -> None:
        beat, now = read_beat(self.folder, other), time.monotonic()
        number, since = self._seen[other]
        if beat and beat.number != number:
            self._seen[other] = beat.number, now
        hangs = beat is not None and beat.state == "working" and beat.idle > self.timeout
        if (hangs or now - since > self.timeout) and not self._ended.is_set():
            self._give_up(other)

    def _give_up(self, other: int) -> None:
        # only rank 1 tells of rank 0, which may be the one that counts those who tell
        if other == 0 or _first_to_fail():
            _leave_note("told")
            console.err.quiet = False
            console.fail(RankError(_gone(self.folder, other, f"has been silent for {self.timeout:g} s")))
        end(RankError.exit_code)


def watch(folder: Path, timeout: float, step: int) -> None:
    """Show signs of life from now on, and look for those of others."""
    if size() > 1 and _State.pulse is None:
        _State.pulse = Pulse(folder, timeout, step)
        if leads():
            _leave_note("folder", str(folder))


def mark(step: int | None = None, saved: int | None = None) -> None:
    """This rank goes on: at this step, with so many saved."""
    pulse = _State.pulse
    if not pulse:
        return
    pulse.step = pulse.step if step is None else step
    pulse.mark(pulse.state)
    if saved is not None:
        pulse.saved = saved
        pulse.write()  # who tells of a rank's end reads it here


def working() -> AbstractContextManager[None]:
    """While it trains and has to go on."""
    return _doing("working")


def waiting() -> AbstractContextManager[None]:
    """While others may keep this rank waiting."""
    return _doing("waiting")


def busy() -> AbstractContextManager[None]:
    """While it does what may take long."""
    return _doing("busy")


@contextmanager
def _doing(state: str) -> Iterator[None]:
    pulse = _State.pulse
    if pulse is None:
        yield
        return
    before = pulse.state
    pulse.mark(state)
    try:
        yield
    finally:
        pulse.mark(before)


def read_beat(folder: Path, number: int) -> Beat | None:
    """What a rank last wrote, if anything."""
    try:
        return Beat(*json.loads(_file(folder, number).read_text()))
    except (OSError, ValueError):
        return None


def _file(folder: Path, number: int) -> Path:
    return folder / f".rank-{number}"


def _gone(folder: Path, number: int, what: str) -> str:
    from medgen.folder import continue_command

    beat, first = read_beat(folder, number), read_beat(folder, 0)
    who = f"rank {number}" + (f" (pid {beat.pid})" if beat else "")
    at = f" at step {max(beat.step, first.saved if first else 0)}" if beat else ""  # all take part in a save
    saved = f"last checkpoint: step {first.saved}" if first else "see the last checkpoint"
    return f"{folder}: {who} {what}{at}; {saved}. Continue: {continue_command(folder)}"


# Starting


def supervise(arguments: list[str], recipe: Recipe) -> int:
    """Run `medgen ARGUMENTS` in a process per device of this node, and wait for them. Returns the exit code."""
    import tempfile

    check(recipe, recipe.training.devices)
    check_devices(recipe.training.devices)
    with tempfile.TemporaryDirectory(prefix="medgen-") as notes:
        return Supervisor(arguments, recipe.training.devices, Path(notes)).run()


class Supervisor:
    """Starts workers with torch's elastic agent, forwards signals, and tells of a worker that could not tell itself."""

    def __init__(self, arguments: list[str], devices: int, notes: Path):
        cores = len(os.sched_getaffinity(0))
        os.environ.setdefault("OMP_NUM_THREADS", str(max(1, cores // devices)))
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
        os.environ[NOTES] = str(notes)
        self.notes, self.devices = notes, devices
        self.agent = _agent(arguments, devices, notes, self._look)
        self.ended: set[int] = set()
        """Processes that were alive still some time after another had failed."""
        self.asked = 0

    def run(self) -> int:
        from medgen.signals import NAMES

        before = {number: signal.signal(number, self._forward) for number in NAMES}
        try:
            result = self.agent.run()
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
        return self._judge(list(result.failures.items()))

    def _pids(self) -> list[int]:
        workers = [each.id for each in self.agent.get_worker_group().workers]
        return [each for each in workers if isinstance(each, int)]

    def _forward(self, number: int, _: Any) -> None:
        self.asked = number
        if not self._pids():
            raise _stopped(number)
        for pid in self._pids():
            _kill(pid, number)

    def _look(self) -> None:
        """torch's agent asks the others to end when one has failed, and would wait for half a minute."""
        if any(map(_has_failed, self._pids())):
            threading.Thread(target=self._end_stragglers, daemon=True).start()

    def _end_stragglers(self) -> None:
        time.sleep(AFTER)
        for pid in self._pids():
            if _is_alive(pid):
                self.ended.add(pid)
                _kill(pid, signal.SIGKILL)

    def _judge(self, failures: list[tuple[int, Any]]) -> int:
        """The exit code of the first worker that had an error of its own; raises RankError if it died in silence."""
        own = [
            (number, each)
            for number, each in failures
            if each.exitcode not in (RankError.exit_code, -signal.SIGTERM) and each.pid not in self.ended
        ]
        if not own and self.asked and not (self.notes / "told").exists():
            raise _stopped(self.asked)
        if own and own[0][1].exitcode < 0:
            number, failure = own[0]
            raise RankError(self._killed(number, failure.pid, signal.Signals(-failure.exitcode).name))
        if own:
            return int(own[0][1].exitcode)
        if failures and not (self.notes / "told").exists():
            raise RankError(f"rank {failures[0][0]} lost the others. Give the same command with --resume auto.")
        return RankError.exit_code if failures else 0

    def _killed(self, number: int, pid: int, name: str) -> str:
        note = self.notes / "folder"
        if note.exists():
            return f"{_gone(Path(note.read_text()), number, f'was killed by {name}')} --devices {self.devices}"
        return f"rank {number} (pid {pid}) was killed by {name} before it trained. Give the same command again."


def _agent(arguments: list[str], devices: int, logs: Path, look: Callable[[], None]) -> Any:
    """torch's agent for one node; calls `look` before it asks how its workers are."""
    import logging

    from torch.distributed.elastic.agent.server.api import WorkerSpec
    from torch.distributed.elastic.agent.server.local_elastic_agent import LocalElasticAgent
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs
    from torch.distributed.elastic.rendezvous import RendezvousParameters
    from torch.distributed.elastic.rendezvous.registry import get_rendezvous_handler

    class Agent(LocalElasticAgent):
        def _monitor_workers(self, worker_group: Any) -> Any:
            look()
            return super()._monitor_workers(worker_group)

    logging.disable(logging.CRITICAL)  # of torch's agent, which tells in forty lines what we tell in one
    os.environ["TORCHELASTIC_SIGNALS_TO_HANDLE"] = "SIGHUP,SIGQUIT"  # the others are for the workers to answer
    meeting = RendezvousParameters(
        "c10d", "127.0.0.1:0", run_id="medgen", min_nodes=1, max_nodes=1, local_addr="127.0.0.1"
    )
    spec = WorkerSpec(
        role="train",
        local_world_size=devices,
        entrypoint=sys.executable,
        args=("-m", "medgen", *arguments),
        rdzv_handler=get_rendezvous_handler(meeting),
        max_restarts=0,
        monitor_interval=0.1,
        local_addr="127.0.0.1",
    )
    return Agent(spec, DefaultLogsSpecs(log_dir=str(logs)))


def _stopped(number: int) -> MedgenError:
    from medgen.signals import NAMES

    name = NAMES[signal.Signals(number)]
    code = 130 if number == signal.SIGINT else 75
    return StoppedError(f"train: stopped by {name} before it trained. Give the same command again.", code)


def _has_failed(pid: int) -> bool:
    """Looks without taking the news from torch's agent."""
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
