"""verify-resume ends with a code that says what happened."""

from __future__ import annotations

import errno
import os
import signal
import time
from pathlib import Path

import pytest
from faults.forkserver import Server
from medgen_builtins.commands import _verify_resume as verify_resume

from medgen.errors import (
    MedgenError,
    OutOfMemoryError,
    PluginError,
    Problem,
    RankError,
    StoppedError,
    StorageError,
)
from medgen.run import checkpoint


@pytest.fixture(autouse=True)
def forked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Processes that start at once."""
    Server(tmp_path)
    monkeypatch.setattr(verify_resume, "START", "forkserver")


def signals(pid: int, number: int) -> None:
    """What trains, while another process is asked to end."""
    os.kill(pid, number)
    time.sleep(60)


def stopped() -> None:
    def work() -> None:
        raise StoppedError(
            Problem(
                "/tmp/xyz",
                "stopped by SIGTERM at step 1, saved",
                "Continue: medgen train --resume /tmp/xyz",
            )
        )

    verify_resume._guarded(work)


def killed() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 75), (signal.SIGUSR1, 75), (signal.SIGINT, 130)]
)
def test_a_signal_ends_what_trains_too_and_the_command_with_the_code_of_a_stop(
    number: int, code: int
) -> None:
    """Point 27: what trains was left to itself, or its stop was taken for the one in the middle."""
    with pytest.raises(
        StoppedError, match=r"verify-resume: stopped by .* Give the same command again"
    ) as ended:
        verify_resume._in_a_process("1/3", signals, (os.getpid(), number))
    assert ended.value.exit_code == code


def test_a_stop_of_what_trains_is_a_stop_and_names_no_temporary_folder(
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Point 27."""
    with pytest.raises(StoppedError) as ended:
        verify_resume._in_a_process("1/3", stopped, ())
    assert (ended.value.exit_code, capfd.readouterr().err) == (75, "")


def test_what_trains_and_is_killed_is_told() -> None:
    """Point 27: not by a code of its own that is in no table."""
    with pytest.raises(RankError, match="the process of 2/3, 3 steps was killed by SIGKILL"):
        verify_resume._in_a_process("2/3, 3 steps", killed, ())


def unheard() -> None:
    os._exit(255)


def test_what_trains_and_ends_with_a_code_of_the_system_is_told() -> None:
    with pytest.raises(
        RankError,
        match=r"the process of 1/3 could not be started .* ended with code 255\)\. See that",
    ):
        verify_resume._in_a_process("1/3", unheard, ())


def test_a_python_that_cannot_be_run_is_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As on a node where the environment is not mounted: the exit code was 255, without a word."""
    monkeypatch.setattr(verify_resume, "START", "spawn")
    monkeypatch.setattr("multiprocessing.spawn._python_exe", os.fsencode(tmp_path / "python"))
    with pytest.raises(
        RankError, match=r"the process of 1/3 could not be started .*/python.* ended with code 255"
    ):
        verify_resume._in_a_process("1/3", print, ())


@pytest.mark.parametrize(
    ("number", "kind"),
    [(errno.EAGAIN, RankError), (errno.ENOMEM, OutOfMemoryError), (errno.EMFILE, StorageError)],
)
def test_a_process_that_the_system_refuses_to_start_is_told(
    number: int, kind: type[MedgenError], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(verify_resume.multiprocessing.process.BaseProcess, "start", refuse)
    with pytest.raises(kind, match=os.strerror(number)):
        verify_resume._in_a_process("1/3", print, ())


def test_a_difference_has_the_code_of_a_plugin_that_cannot_be_used() -> None:
    """Point 27: and not the class of a checkpoint with the code of a plugin."""
    assert issubclass(verify_resume.NotIdenticalError, PluginError)
    assert verify_resume.NotIdenticalError(Problem("", "x")).exit_code == 5


def test_a_line_that_one_run_lacks_is_a_difference(tmp_path: Path) -> None:
    """Point 27."""
    for name, lines in (("one", 3), ("two", 2)):
        (tmp_path / name).mkdir()
        checkpoint.save({"position": {"step": 3}}, tmp_path / name / "latest.pt")
        (tmp_path / name / "metrics.jsonl").write_text(
            '{"step": 1, "epoch": 1, "loss/train": 1.0}\n' * lines
        )
    assert verify_resume.differences(tmp_path / "one", tmp_path / "two") == [
        "loss of line 3 differs"
    ]
