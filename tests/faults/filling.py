"""Processes that fill one slice store at once."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import numpy as np

from medgen.data import store as store_module
from medgen.data.layouts import mask_names
from medgen.data.settings import DataSettings
from medgen.data.store import SliceStore, open_store

CHANNELS = ("bravo", "flair", "seg")


def wanted(scans: Path, **changes: Any) -> DataSettings:
    return DataSettings(**{"root": scans, "image_size": 16, "workers": 1, **changes})


def opened(settings: DataSettings, cache: Path, channels: tuple[str, ...] = CHANNELS) -> SliceStore:
    return open_store(settings, channels, mask_names(settings), None, cache)


def everything(store: SliceStore) -> bytes:
    return store.read(np.arange(len(store)), store.channels).tobytes()


def fill(scans: Path, cache: Path, log: Path, start: Any, answers: Any, slow: float = 0.0) -> None:
    """In a process of its own, which writes what it has to say to a file: make the store and say what is in it."""
    os.dup2(os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT), 2)
    make = store_module._make

    def slowly(job: Any) -> Any:
        time.sleep(slow)
        return make(job)

    store_module._make = slowly
    start.wait()
    answers.put(everything(opened(wanted(scans), cache)))


def blocked(_: Any) -> None:
    """Work that does not end by itself."""
    time.sleep(600)
