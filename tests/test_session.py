"""How a run says that it ended, and when it stops by itself.

Covers: medgen.run.folder, medgen.run.stopping, medgen.training.interruption, medgen.training.time_limit.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from faults.variants import SMALL

from medgen.cli import main
from medgen.config.recipe import load
from medgen.data.store import cache_folder
from medgen.errors import NotFiniteError, Problem, StoppedError, StorageError
from medgen.run import checkpoint, folder, run
from medgen.training import session, trainer

SHORT = (*SMALL, "training.steps=3", "training.validate_every=0")


@pytest.fixture
def common(tiny: tuple[str, ...]) -> tuple[str, ...]:
    return ("bravo_rflow", *tiny, *SHORT)


def about(where: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((where / "metadata.json").read_text())
    return found


def failing(patch: pytest.MonkeyPatch, error: BaseException) -> None:
    """The second step fails."""
    step = trainer.Trainer.step

    def fail(self: trainer.Trainer) -> Any:
        if self.run.step == 1:
            raise error
        return step(self)

    patch.setattr(trainer.Trainer, "step", fail)


ERRORS = [
    (
        NotFiniteError(Problem("/secret/runs/x", "11 steps in a row were not finite")),
        "NotFiniteError",
        6,
    ),
    (RuntimeError("/secret/Mets_001 is a path"), "RuntimeError", 1),
    (MemoryError("/secret"), "MemoryError", 7),
    (OSError(28, "No space left on device", "/secret"), "OSError", 8),
]


@pytest.mark.parametrize(("error", "name", "code"), ERRORS, ids=[name for _, name, _ in ERRORS])
def test_metadata_says_that_a_run_failed_and_how_but_no_path(
    error: BaseException,
    name: str,
    code: int,
    common: tuple[str, ...],
    medgen: Callable[..., Any],
    tmp_path: Path,
) -> None:
    """Point 25; and the run goes on as any other that has not ended."""
    with pytest.MonkeyPatch.context() as patch:
        failing(patch, error)
        assert medgen("train", *common, f"run.root={tmp_path}").code == code
    (where,) = (path.parent for path in tmp_path.glob("**/metadata.json"))
    found = about(where)
    assert (found["status"], found["failure"]["error"], found["failure"]["exit_code"]) == (
        "failed",
        name,
        code,
    )
    assert "secret" not in json.dumps(found)
    recipe = load(common[0], [*common[1:], f"run.root={tmp_path}"])
    assert folder.find_unfinished(recipe) == where
    if name == "NotFiniteError":
        assert medgen("train", "--resume", where).code == 0
        assert (about(where)["status"], "failure" in about(where)) == ("complete", False)


def test_what_was_refused_changes_nothing_of_a_run_that_is_there(
    common: tuple[str, ...], medgen: Callable[..., Any], tmp_path: Path
) -> None:
    """Point 25: a second run in the folder, and a recipe that does not fit."""
    assert medgen("train", *common, f"run.dir={tmp_path}/r").code == 0
    before = about(tmp_path / "r")
    assert medgen("train", *common, f"run.dir={tmp_path}/r").code == 2
    assert (
        medgen(
            "train", "--resume", tmp_path / "r", "training.steps=9", "training.learning_rate=0.5"
        ).code
        == 4
    )
    assert about(tmp_path / "r") == before


@pytest.mark.parametrize("flags", [(), ("--debug",)])
@pytest.mark.usefixtures("stored")
def test_debug_shows_the_traceback_and_changes_no_exit_code(
    flags: tuple[str, ...], common: tuple[str, ...], medgen: Callable[..., Any], tmp_path: Path
) -> None:
    """Point 21: a job that was stopped is queued again for its 75."""
    given = (*common, "training.time_limit=0.000001")
    ended = medgen(*flags, "train", *given, f"run.dir={tmp_path}/r")
    assert (ended.code, "Traceback" in ended.err) == (2, bool(flags))
    ended = medgen(*flags, "train", "--resume", tmp_path / "nothing")
    assert (ended.code, "Traceback" in ended.err) == (4, bool(flags))
    assert medgen(*flags, "train", "nosuch").code == 2


@pytest.mark.parametrize("code", [75, 130, 8])
def test_debug_keeps_the_code_of_whatever_ends_a_command(
    code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """Point 21."""

    def end() -> None:
        raise (
            StorageError(Problem("", "x"))
            if code == 8
            else StoppedError(Problem("x", "stopped"), exit_code=code)
        )

    assert main.guarded(end, debug=True) == code
    err = capsys.readouterr().err
    assert err.startswith("Traceback")
    assert err.splitlines()[-1].startswith("medgen: x")


# Time limits


class Clock:
    """Goes on by what starting, the first step of a process, and each further one take."""

    def __init__(
        self, patch: pytest.MonkeyPatch, start: float, first: float, step: float, save: float = 0.0
    ):
        self.now, self.first = 1000.0, first
        begin, restore, real, write = (
            session.begin,
            session.restore,
            trainer.Trainer.step,
            checkpoint.save,
        )
        steps: list[int] = []

        def starting(work: Callable[..., Any]) -> Callable[..., Any]:
            def call(*given: Any) -> Any:
                steps.clear()
                made = work(*given)
                self.now += start
                return made

            return call

        def stepping(trainer_: trainer.Trainer) -> Any:
            self.now += step if steps else first
            steps.append(1)
            return real(trainer_)

        def saving(*given: Any) -> None:
            self.now += save
            write(*given)

        patch.setattr(run.time, "time", lambda: self.now)
        patch.setattr(session, "begin", starting(begin))
        patch.setattr(session, "restore", starting(restore))
        patch.setattr(trainer.Trainer, "step", stepping)
        patch.setattr(checkpoint, "save", saving)


@pytest.fixture
def stored(
    common: tuple[str, ...], medgen: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The slices are there, and no step has been made."""
    assert medgen("data", "prepare", *common).code == 0
    monkeypatch.setattr(cache_folder, "_built", [])


@pytest.mark.parametrize(("start", "first"), [(50, 1), (1, 50), (25, 25)])
@pytest.mark.usefixtures("stored")
def test_a_slow_start_and_a_slow_first_step_are_no_measure_of_the_next_step(
    start: float,
    first: float,
    common: tuple[str, ...],
    medgen: Callable[..., Any],
    tmp_path: Path,
    monkeypatch: Any,
) -> None:
    """Point 22: 60 seconds are enough for 51 of starting or compiling and two steps of one second."""
    Clock(monkeypatch, start, first, 1)
    ended = medgen("train", *common, "training.time_limit=1", f"run.dir={tmp_path}/r")
    assert ended.code == 0, ended.err


@pytest.mark.usefixtures("stored")
def test_each_time_that_a_run_with_a_short_limit_is_resumed_it_comes_further(
    common: tuple[str, ...], medgen: Callable[..., Any], tmp_path: Path, monkeypatch: Any
) -> None:
    """Point 22: of 60 seconds, starting takes 30, a step 20 and a save 9."""
    Clock(monkeypatch, 30, 20, 20, 9)
    given = ("train", *common, "training.time_limit=1", f"run.dir={tmp_path}/r", "--resume", "auto")
    codes = [medgen(*given).code for _ in range(3)]
    assert codes == [75, 75, 0]
    assert about(tmp_path / "r")["status"] == "complete"


@pytest.mark.parametrize("slurm", [False, True])
@pytest.mark.usefixtures("stored")
def test_a_limit_that_no_step_fits_into_is_told_and_is_no_reason_to_be_queued_again(
    slurm: bool,
    common: tuple[str, ...],
    medgen: Callable[..., Any],
    tmp_path: Path,
    monkeypatch: Any,
) -> None:
    """Point 22."""
    Clock(monkeypatch, 70, 1, 1)
    limit: tuple[str, ...] = ("training.time_limit=1",)
    if slurm:
        monkeypatch.setenv("SLURM_JOB_END_TIME", "1060")
        limit = ()
    for more in ((), ("--resume", "auto")):
        ended = medgen("train", *common, *limit, f"run.dir={tmp_path}/r", *more)
        assert ended.code == 2, ended.err
        [line] = [each for each in ended.err.splitlines() if "warning: data:" not in each]
        key = "SLURM_JOB_END_TIME" if slurm else "training.time_limit"
        assert line.startswith(f"medgen: {key}: ")
        assert "starting took 70 s, and no step fits" in line
        assert line.endswith(f"continue: medgen train --resume {tmp_path}/r")


def test_a_job_whose_time_went_into_the_slice_store_is_queued_again(
    common: tuple[str, ...], medgen: Callable[..., Any], tmp_path: Path, monkeypatch: Any
) -> None:
    """Point 22: the next one finds the store."""
    monkeypatch.setenv("MEDGEN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(cache_folder, "_built", [])
    Clock(monkeypatch, 70, 1, 1)
    assert medgen("train", *common, "training.time_limit=1", f"run.dir={tmp_path}/r").code == 75
