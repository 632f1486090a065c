"""Processes that fill one slice store at once."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import numpy as np

from medgen.api.tables import DataSettings
from medgen.data.scans.layouts import mask_names
from medgen.data.store import store_building
from medgen.data.store.slice_store import SliceStore
from medgen.data.store.store import open_store

CHANNELS = ("bravo", "flair", "seg")


def wanted(scans: Path, **changes: Any) -> DataSettings:
    return DataSettings(**{"root": scans, "image_size": 16, "workers": 1, **changes})


def opened(settings: DataSettings, cache: Path, channels: tuple[str, ...] = CHANNELS) -> SliceStore:
    return open_store(settings, channels, mask_names(settings), None, cache)


def everything(store: SliceStore) -> bytes:
    return store.read(np.arange(len(store)), store.channels).tobytes()


def fill(
    settings: DataSettings, cache: Path, log: Path, start: Any, answer: Path, stop_at: int = 0
) -> None:
    """In a process of its own, which writes what it has to say to a file: make the store and say what is in it.

    answer: the file for that. stop_at: at which patient, from 1, to wait to be killed, which `answer` then says.
    """
    os.dup2(os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT), 2)
    make, calls = store_building._make, iter(range(1, 1 << 30))

    def making(job: Any) -> Any:
        if next(calls) == stop_at:
            answer.write_text("stopped")
            blocked(job)
        time.sleep(0.02)  # so that others make it too
        return make(job)

    store_building._make = making
    start.wait()
    answer.write_bytes(everything(opened(settings, cache)))


def blocked(_: Any) -> None:
    """Work that does not end by itself."""
    time.sleep(600)


def begun(file: Path) -> None:
    """The same, which leaves a file as it begins."""
    file.touch()
    blocked(file)
