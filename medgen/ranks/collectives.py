"""Exchange values between ranks and take decisions together.

With one process, each function returns at once.

All but `rank`, `size`, `is_rank_zero` and `local_indices` are collective: every rank must call
them, in the same order.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor

from medgen.ranks import heartbeat

Result = TypeVar("Result")


def rank() -> int:
    """Return this process's number, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def size() -> int:
    """Return the number of processes that train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def is_rank_zero() -> bool:
    """Return True in the process that writes and prints."""
    return rank() == 0


class State:
    """Hold the process group while connected.

    control: gloo group for all but gradients. local: number of this process on the node.
    """

    control: dist.ProcessGroup | None = None
    local = 0


def broadcast_object(value: Result, source: int = 0) -> Result:
    """Broadcast a value of JSON's types from one rank."""
    if size() == 1:
        return value
    text = json.dumps(value).encode() if rank() == source else b""
    length = torch.tensor([len(text)])
    with heartbeat.waiting():
        dist.broadcast(length, source, group=State.control)
        data = torch.tensor(list(text) or [0] * int(length), dtype=torch.uint8)
        dist.broadcast(data, source, group=State.control)
    return cast("Result", json.loads(bytes(data.tolist())))


def on_rank_zero(work: Callable[[], Result]) -> Result:
    """Run `work` on rank 0 and broadcast the result, which must be of JSON's types."""
    return cast("Result", broadcast_object(work() if is_rank_zero() else None))


def barrier() -> None:
    """Wait for all ranks, without a timeout while a rank saves."""
    if size() > 1:
        with heartbeat.waiting():
            dist.barrier(group=State.control)


def all_reduce_sum(values: Tensor) -> Tensor:
    """Sum over ranks in rank order, so that the bits do not depend on the position in the buffer."""
    if size() == 1:
        return values.clone()
    shares = [torch.empty_like(values) for _ in range(size())]
    with heartbeat.waiting():
        dist.all_gather(shares, values.contiguous())
    return functools.reduce(torch.add, shares)


def all_reduce_selected(values: Tensor, summed: Sequence[bool]) -> list[float]:
    """Sum the `summed` of values `[n]` over ranks; the others, equal on all ranks, stay.

    Reads the device once.
    """
    if size() == 1:
        return list(values.tolist())
    return list(
        torch.where(
            torch.tensor(summed, device=values.device), all_reduce_sum(values), values
        ).tolist()
    )


def local_indices(count: int) -> range:
    """Return the indices, below `count`, of the samples that this rank makes."""
    return range(rank(), count, size())


def all_gather_rows(mine: Tensor, count: int) -> Tensor:
    """Gather the rows of all ranks, `[count, ...]`.

    mine: the rows of `local_indices`, or any row if there are none.
    """
    own = local_indices(count)
    whole = mine.new_zeros(count, *mine.shape[1:])
    whole[list(own)] = mine[: len(own)]
    barrier()  # without a timeout: some ranks have one more row to make
    return all_reduce_sum(whole)


@contextmanager
def first_on_node() -> Iterator[None]:
    """Run the block on the first process of each node, then on the others, which find the result."""
    if State.local:
        barrier()
    yield
    if not State.local:
        barrier()


class AsyncAny:
    """Compute any() over ranks without blocking: a call returns the answer to the call before.

    With one process, a call returns its own answer.
    """

    def __init__(self) -> None:
        self._asked: tuple[Tensor, dist.Work] | None = None

    def __call__(self, mine: bool) -> bool:
        if size() == 1:
            return mine
        before, self._asked = self._asked, self._ask(mine)
        if before is None or not self._answer(before):
            return False
        self._answer(self._asked)  # asked a second time, with the same answer
        self._asked = None
        return True

    def _ask(self, mine: bool) -> tuple[Tensor, dist.Work]:
        flag = torch.tensor([int(mine)])
        return flag, dist.all_reduce(flag, dist.ReduceOp.MAX, group=State.control, async_op=True)

    def _answer(self, asked: tuple[Tensor, dist.Work]) -> bool:
        with heartbeat.waiting():
            asked[1].wait()
        return bool(asked[0].item())


def first_stop_reason(text: str | None) -> str:
    """Return the text of the lowest rank that has a text. At least one rank must."""
    if size() == 1:
        return text or ""
    source = torch.tensor([size() if text is None else rank()])
    with heartbeat.waiting():
        dist.all_reduce(source, dist.ReduceOp.MIN, group=State.control)
    return str(broadcast_object(text, int(source)))
