"""What all tests share: a tiny made-up cohort, a tiny recipe, the command line in this process, and no network."""

from __future__ import annotations

import gc
import os
import random
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

os.environ.setdefault(
    "OMP_NUM_THREADS", "1"
)  # tensors depend on it; torch reads it when it is imported

import numpy as np
import pytest
import torch
from data.cohort import write_cohort
from faults.variants import AUTOENCODER, SMALL, overrides
from latents import write_volume_autoencoder

# a shell without job control starts what it puts in the background with Ctrl-C ignored, and children inherit that
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

RECIPES = Path(__file__).parents[1] / "recipes"
TINY = (
    "data.image_size=16",
    "data.workers=1",
    "data.min_foreground=0.02",
    "network.unet.channels=[8,16]",
    "network.unet.num_res_blocks=1",
    "training.precision=fp32",
    "training.batch_size=4",
    "training.compile=false",
    "training.learning_rate=1e-3",
    "callbacks.previews.count=2",
    "callbacks.previews.steps=2",
)


class Result(NamedTuple):
    """What a command left: its exit code, and what it printed."""

    code: int
    out: str
    err: str


@pytest.fixture(autouse=True, scope="module")
def nothing_imported_is_garbage() -> None:
    """Half a million objects of libraries are not looked through again and again, which takes an eighth of all time."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """No command opens a socket beyond this machine."""
    connect = socket.socket.connect

    def guarded(self: socket.socket, address: object) -> None:
        host = address[0] if isinstance(address, tuple) else None
        if self.family != socket.AF_UNIX and host not in ("127.0.0.1", "::1", "localhost"):
            raise AssertionError(f"a socket to {address} was opened")
        connect(self, address)  # type: ignore[arg-type]

    monkeypatch.setattr(socket.socket, "connect", guarded)


@pytest.fixture(autouse=True)
def same_numbers() -> None:
    """Random numbers that nobody seeds do not depend on which tests ran before."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Slice stores of tests stay out of the user's cache, and are shared by the tests of a session."""
    folder = tmp_path_factory.getbasetemp() / "cache"
    monkeypatch.setenv("MEDGEN_CACHE", str(folder))
    return folder


@pytest.fixture
def no_hang() -> Iterator[None]:
    """A test that waits for what never comes, as for a writer of a pipe, fails after five minutes."""

    def fail(*_: object) -> None:
        raise AssertionError("it hangs")

    before = signal.signal(signal.SIGALRM, fail)
    signal.alarm(300)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture(scope="session")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four made-up patients, a folder each."""
    root = tmp_path_factory.mktemp("cohort")
    write_cohort(root)
    return root


@pytest.fixture
def medgen(capsys: pytest.CaptureFixture[str]) -> Callable[..., Result]:
    """`medgen(*arguments)` as on the command line, in this process."""
    from medgen.cli.main import main

    def run(*arguments: object) -> Result:
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main([str(each) for each in arguments])
        captured = capsys.readouterr()
        return Result(int(ended.value.code or 0), captured.out, captured.err)

    return run


@pytest.fixture
def tiny(cohort: Path) -> tuple[str, ...]:
    """Overrides that make any shipped recipe small, on the cohort."""
    return (f"data.root={cohort}", *TINY)


@pytest.fixture(scope="session")
def train(
    tmp_path_factory: pytest.TempPathFactory, cohort: Path
) -> Callable[[Path, str, tuple[str, ...]], Path]:
    """`train(folder, recipe, overrides)`: a tiny run on the cohort, for what several tests share; gives its folder."""
    from medgen.cli.main import main

    def run(folder: Path, recipe: str, overrides: tuple[str, ...] = ()) -> Path:
        given = (recipe, f"data.root={cohort}", *TINY, *overrides, f"run.dir={folder}")
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("MEDGEN_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
            with pytest.raises(SystemExit) as ended:
                main(["train", *given])
        assert not ended.value.code
        return folder

    return run


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory, train: Callable[..., Path]) -> Path:
    """A folder with `seg`, `bravo` and `dual`: models after a few steps."""
    folder = tmp_path_factory.mktemp("trained")
    for mode in ("seg", "bravo", "dual"):
        train(folder / mode, f"{mode}_rflow", ("training.steps=4", "callbacks.previews=false"))
    return folder


@pytest.fixture(scope="session")
def autoencoder(tmp_path_factory: pytest.TempPathFactory, train: Callable[..., Path]) -> Path:
    """The folder of an autoencoder's run of one step, that halves bravo images.

    Beside it are autoencoders of volumes as they are before training: `volumes.pt`, pooled, and
    `bravo_volumes.pt`.
    """
    folder = tmp_path_factory.mktemp("autoencoder")
    given = (*TINY, *overrides("vae_bravo_3d", folder))
    write_volume_autoencoder(folder / "volumes.pt", *given)
    write_volume_autoencoder(folder / "bravo_volumes.pt", *given, "mode=bravo")
    options = (*SMALL, *AUTOENCODER, "training.steps=1")
    return train(folder / "run", "vae_bravo", options)
