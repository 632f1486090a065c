"""All randomness is a pure function of the seed, a purpose and a position. Nothing else draws."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock

import torch

_GLOBALS = Lock()


def derive(seed: int, purpose: str, *index: int) -> int:
    """Return a 63-bit seed for a purpose and a position; others give unrelated seeds."""
    text = "/".join([str(seed), purpose, *map(str, index)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") >> 1


def stream(
    seed: int, purpose: str, *index: int, device: torch.device | str = "cpu"
) -> torch.Generator:
    """Return a generator for one purpose and position, such as `stream(0, "draws", step)`."""
    return torch.Generator(device).manual_seed(derive(seed, purpose, *index))


def seed_globals(seed: int, purpose: str, *index: int) -> None:
    """Seed torch's global generators, for initial weights and dropout, which accept no generator."""
    torch.manual_seed(derive(seed, purpose, *index))


@contextmanager
def seeded(number: int) -> Iterator[None]:
    """Seed torch's global generator for what is done within, and leave it as it was. Other threads
    that do so wait.
    """
    with _GLOBALS, torch.random.fork_rng(devices=[]):
        torch.manual_seed(number)
        yield


def permutation(seed: int, epoch: int, size: int) -> torch.Tensor:
    """Return `[size]` int64: the order in which an epoch (from 0) visits the samples."""
    return torch.randperm(size, generator=stream(seed, "shuffle", epoch))
