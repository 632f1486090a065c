"""Ranks: processes that train together, what they share, decide and compute, and how they join.

Alone, everything here does nothing: `rank()` is 0, `size()` is 1, and no function waits. Collective functions, `share`,
`once`, `wait`, `total`, `gathered`, `first_on_node` and a `Vote`, must be called by all ranks in the same order.
"""

from __future__ import annotations

import functools
import json
import os
import re
import socket
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

from medgen.errors import RankError, RecipeError, StoppedError
from medgen.ranks import heartbeat, rendezvous
from medgen.system import console

if TYPE_CHECKING:
    from medgen.config.recipe import Recipe

Result = TypeVar("Result")

PATIENCE = timedelta(days=30)
"""How long ranks wait for one that saves or validates: as long as it lives, which is what heartbeats tell."""
AFTER = 5.0
"""Seconds that a rank has more than the watch: so that the silent rank is named, not the one that waited for it."""
NOTES = "MEDGEN_NOTES"
"""Names the folder in which workers leave notes for the process that started them, if that was medgen."""
PARENT = "pid"
"""The note with the id of that process."""


class Place(NamedTuple):
    """A process among those that train together."""

    rank: int
    size: int
    local: int


def place(environment: Mapping[str, str] = os.environ) -> Place | None:
    """Where `torchrun` or `srun` put this process; None if it was started by neither. Raises RecipeError."""
    # of the step, as a batch script has a rank of its own and no step
    step = _number(environment, "SLURM_STEP_NUM_TASKS", 1) > 1
    if environment.get("RANK") and environment.get("WORLD_SIZE"):
        return _of_torch(environment, step)
    if step:
        names = ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID")
        return Place(*(_number(environment, name) for name in names))
    return None


def _of_torch(environment: Mapping[str, str], step: bool) -> Place:
    """torch's variables, unless they are left over from something else. step: whether `srun` says where ranks meet."""
    where = Place(_number(environment, "RANK"), _number(environment, "WORLD_SIZE"), 0)
    said = f"RANK, WORLD_SIZE: got {where.rank} and {where.size}"
    if not 0 <= where.rank < where.size:
        raise RecipeError(f"{said}, expected a rank from 0 and below the size. Unset both, or use --devices.")
    lacking = [name for name in ("MASTER_ADDR", "MASTER_PORT") if not environment.get(name)]
    if lacking and where.size > 1 and not step:
        what = f"{said}, but no {' and no '.join(lacking)}, so that the processes could not meet"
        raise RecipeError(f"{what}. Unset both if they are left over, or start with torchrun, srun or --devices.")
    return where._replace(local=_number(environment, "LOCAL_RANK", where.rank))


def _number(environment: Mapping[str, str], name: str, default: int = 0) -> int:
    text = environment.get(name) or str(default)
    try:
        return int(text)
    except ValueError:
        raise RecipeError(f"{name}: got {text!r}, expected an integer. Unset it, or correct it.") from None


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


def share(value: Any, source: int = 0) -> Any:
    """The value that one rank has, for all; of JSON's types."""
    if size() == 1:
        return value
    text = json.dumps(value).encode() if rank() == source else b""
    length = torch.tensor([len(text)])
    with heartbeat.waiting():
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
        with heartbeat.waiting():
            dist.barrier(group=_State.control)


def total(values: Tensor) -> Tensor:
    """The sum over the ranks, added in their order wherever in `values` it stands."""
    if size() == 1:
        return values.clone()
    shares = [torch.empty_like(values) for _ in range(size())]
    with heartbeat.waiting():
        dist.all_gather(shares, values.contiguous())
    return functools.reduce(torch.add, shares)


def total_of(values: Tensor, summed: Sequence[bool]) -> list[float]:
    """The sums over the ranks of those values `[n]` that are `summed`; the others, which all have, as they are.

    One transfer from the device.
    """
    if size() == 1:
        return list(values.tolist())
    return list(torch.where(torch.tensor(summed, device=values.device), total(values), values).tolist())


def dealt(count: int) -> range:
    """Which of so many samples this rank makes."""
    return range(rank(), count, size())


def gathered(mine: Tensor, count: int) -> Tensor:
    """The rows of all ranks, `[count, ...]`, of which each made those `dealt` to it; one that had none gives any."""
    own = dealt(count)
    whole = mine.new_zeros(count, *mine.shape[1:])
    whole[list(own)] = mine[: len(own)]
    wait()  # for as long as it takes: some may have one more to make
    return total(whole)


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
        with heartbeat.waiting():
            asked[1].wait()
        return bool(asked[0].item())


def first_said(text: str | None) -> str:
    """The text of the first rank that has one; one must."""
    if size() == 1:
        return text or ""
    source = torch.tensor([size() if text is None else rank()])
    with heartbeat.waiting():
        dist.all_reduce(source, dist.ReduceOp.MIN, group=_State.control)
    return str(share(text, int(source)))


# What ranks compute


def wrap(turn: Any) -> Any:
    """A turn whose gradients are the means over the ranks after `backward`.

    The order in which an all-reduce adds depends on where in its buffer a gradient lies, and DDP lays its buffers out
    anew after the first pass of a process. So that one that resumes adds as one that did not, that pass is no step.
    """
    if size() == 1:
        return turn
    wrapped = DistributedDataParallel(turn, gradient_as_bucket_view=True)
    wrapped.module = _Sum(turn)
    wrapped().backward()
    wrapped.module = turn
    wrapped.zero_grad(set_to_none=True)
    return wrapped


class _Sum(torch.nn.Module):
    """Of all parameters: its backward pass comes to the last ones first, as that of a network does."""

    def __init__(self, turn: torch.nn.Module):
        super().__init__()
        self.turn = turn

    def forward(self) -> Tensor:
        return functools.reduce(torch.add, (each.sum() for each in self.parameters() if each.requires_grad))


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


def check_devices(wanted: int, asked_by: str = "training.devices") -> None:
    """Raise RecipeError if this node has GPUs, but fewer than wanted."""
    if 0 < torch.cuda.device_count() < wanted:
        raise RecipeError(f"{asked_by}: got {wanted}, this node has {torch.cuda.device_count()}. Use at most as many.")


def take_device(where: Place) -> None:
    """The GPU of this process: of those it sees the one with its number, or the only one, as clusters may bind them."""
    torch.cuda.set_device(where.local % torch.cuda.device_count())


def _check_apart() -> None:
    """Raise RecipeError, on all ranks, if two of them would use the same GPU, for which NCCL has forty lines."""
    if not torch.cuda.is_available():
        return
    mine = str(torch.cuda.get_device_properties(torch.cuda.current_device()).uuid)
    found = {share(mine, source) for source in range(size())}
    if len(found) < size():
        raise RecipeError(
            f"training.devices: {size()} processes have {len(found)} GPUs between them, expected one each. "
            "Ask for as many GPUs as processes, or start fewer."
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
        _check_apart()
        yield
    except StoppedError:
        if not heartbeat.beats() and not _first_to_fail():
            raise RankError([]) from None
        console.err.quiet = False
        heartbeat.stop()
        raise
    except Exception as error:
        if lost_others(error):
            raise RankError(_about_the_lost()) from error
        heartbeat.leave("failed")
        if not _first_to_fail():
            raise RankError([]) from error
        console.err.quiet = False
        raise
    heartbeat.stop()
    dist.destroy_process_group()
    _State.control, _State.local = None, 0


def watch(folder: Path, timeout: float, step: int) -> None:
    """Show signs of life from now on. Rank 0 watches all, and rank 1 watches rank 0."""
    if size() == 1 or heartbeat.beats():
        return

    def silent(other: int) -> None:
        # only rank 1 tells of rank 0, which may be the one that counts those who tell
        if other == 0 or _first_to_fail():
            _leave_note("told")
            heartbeat.leave("failed")
            console.err.quiet = False
            console.fail(RankError(heartbeat.gone(folder, other, f"has been silent for {timeout:g} s")))
        end(RankError.exit_code)

    if leads():
        heartbeat.sweep(folder)
    wait()
    others = range(1, size()) if leads() else [0] if rank() == 1 else []
    heartbeat.start(folder, timeout, step, rank(), others, silent)
    if leads():
        _leave_note("folder", str(folder))


def end(code: int) -> None:
    """End the process at once after a failure: to leave a group in order, all would have to be there."""
    if dist.is_initialized():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _join(where: Place, recipe: Recipe) -> None:
    end_with_parent()
    for name, value in rendezvous.variables().items():
        os.environ.setdefault(name, value)
    cuda = torch.cuda.is_available()
    if cuda:
        take_device(where)
    meet(where, "nccl" if cuda else "gloo", recipe.distributed.timeout)
    if where.rank:
        console.out.quiet = console.err.quiet = True


def meet(where: Place, backend: str, timeout: float) -> None:
    """Connect to the others. Raises RankError with what to look at, as torch's own words do not help."""
    address, port = os.environ["MASTER_ADDR"], os.environ["MASTER_PORT"]
    try:
        socket.getaddrinfo(address, port)  # torch says in forty lines that there is no such host
        if name := rendezvous.interface(address):
            os.environ.setdefault("GLOO_SOCKET_IFNAME", name)
        allowed = timedelta(seconds=timeout + AFTER)
        dist.init_process_group(backend, timeout=allowed, rank=where.rank, world_size=where.size)
        _State.control, _State.local = dist.new_group(backend="gloo", timeout=allowed), where.local
        dist.distributed_c10d._set_pg_timeout(PATIENCE, _State.control)  # once they are connected
    except (RuntimeError, ValueError, OSError) as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise RankError(
            f"rank {where.rank} of {where.size}: could not join the others at {address}:{port} ({reason}). "
            "See that all were started, that the port is free, and that GLOO_SOCKET_IFNAME, if it is set, names the "
            "network between the nodes."
        ) from error


def end_with_parent() -> None:
    """Who was started by a process that was killed has nobody to report to, and must not go on alone."""
    note = Path(os.environ.get(NOTES, ""), PARENT)
    parent = int(note.read_text()) if NOTES in os.environ and note.exists() else os.getppid()  # it may be gone already

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(heartbeat.TICK)
        os._exit(RankError.exit_code)

    threading.Thread(target=watch, daemon=True).start()


def lost_others(error: BaseException) -> bool:
    """Whether an error only tells that another rank is gone."""
    return isinstance(error, dist.DistError) or (
        isinstance(error, RuntimeError) and re.search("gloo|NCCL|Connection closed", str(error)) is not None
    )


def _about_the_lost() -> list[str]:
    """A line, of one rank, unless medgen itself started the ranks of this node, and tells."""
    if NOTES in os.environ:
        return []
    line = None
    if heartbeat.beats():
        line = heartbeat.lost(size())
    elif _first_to_fail():
        line = f"rank {rank()} lost the others before it trained. Give the same command again."
    if line is None:
        return []
    console.err.quiet = False
    return [line]


def _first_to_fail() -> bool:
    """Whether no other rank has told of an error before."""
    where = place()
    try:
        if dist.is_initialized():
            first = dist.distributed_c10d._get_default_store().add("medgen/failed", 1) == 1
        else:  # one on each node, as they cannot ask each other
            first = where is None or where.local == 0
    except RuntimeError:  # the rank that kept the count is gone
        return False
    if first:
        _leave_note("told")
    return first


def _leave_note(name: str, text: str = "") -> None:
    """For the process that started this one, if that was medgen."""
    if NOTES in os.environ:
        Path(os.environ[NOTES], name).write_text(text, encoding="utf-8", errors="surrogateescape")
