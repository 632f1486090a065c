"""A made-up cohort of patients with brain metastases: a folder each, written by several processes."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

from medgen.errors import Problem, RecipeError, StorageError
from medgen_builtins.commands.demo.atlas import Grid, atlas_files
from medgen_builtins.commands.demo.patient import TISSUE, make_patient, write_patient
from medgen_builtins.commands.demo.randomised import make_randomised


class Job(NamedTuple):
    """A patient to make; see `make_demo`."""

    folder: Path
    seed: int
    number: int
    spacing: float
    randomised: bool
    tissue: bool


def make_demo(
    out: Path,
    patients: int,
    seed: int = 0,
    workers: int | None = None,
    spacing: float = 2.0,
    advance: Callable[[], None] | None = None,
    randomised: bool = False,
    tissue: bool = False,
) -> list[Path]:
    """Write `out/Mets_001/{bravo,t1_pre,t1_gd,flair,seg}.nii.gz` and so on, and return the
    patients' folders.

    Patient i is a function of (seed, i, spacing, randomised) alone, byte for byte. spacing: mm.
    randomised: see `make_randomised`. tissue: write `tissue.nii.gz` too, see `Tissue.image`. advance:
    called after each patient. Raises RecipeError without nilearn, for fewer than one patient, or if
    `out` is not empty.
    """
    _check(out, patients, seed)
    atlas_files()
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(
            Problem(out, f"cannot be made ({error.strerror})", "Name another folder")
        ) from error
    folders = [out / f"Mets_{i:03d}" for i in range(1, patients + 1)]
    jobs = [
        Job(folder, seed, i, spacing, randomised, tissue)
        for i, folder in enumerate(folders, start=1)
    ]
    _write_all(jobs, min(workers or os.cpu_count() or 1, patients), advance or (lambda: None))
    return folders


def _check(out: Path, patients: int, seed: int) -> None:
    if patients < 1:
        raise RecipeError(
            Problem("patients", f"{patients} is not a number of patients", "Ask for 1 or more")
        )
    if seed < 0:
        raise RecipeError(Problem("seed", f"{seed} is negative", "Give 0 or more"))
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise RecipeError(
            Problem(
                out, "already exists and is not an empty folder", "Name a new one, or delete it"
            )
        )


def _write(job: Job) -> None:
    if job.randomised:
        volumes = make_randomised(job.seed, job.number)
        grid = Grid(volumes["seg"].shape, job.spacing)
    else:
        grid = Grid.of(job.spacing)
        volumes = make_patient(job.seed, job.number, grid)
    if not job.tissue:
        del volumes[TISSUE]
    write_patient(job.folder, volumes, grid)


def _write_all(jobs: list[Job], workers: int, advance: Callable[[], None]) -> None:
    if workers == 1:
        for job in jobs:
            _write(job)
            advance()
        return
    # Not forked: the caller may draw its progress bar in a thread.
    with ProcessPoolExecutor(
        workers, get_context("spawn"), signal.signal, (signal.SIGINT, signal.SIG_IGN)
    ) as pool:
        try:
            for done in as_completed([pool.submit(_write, job) for job in jobs]):
                done.result()
                advance()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
