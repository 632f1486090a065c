"""What is printed may be lost; the work and its exit code are not."""

from __future__ import annotations

import errno
import io
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from faults.forkserver import HANG

from medgen.cli.main import guarded
from medgen.errors import Problem, StoppedError
from medgen.system import console, streams

FULL = Path("/dev/full")
full_disk = pytest.mark.skipif(not FULL.exists(), reason="needs /dev/full")


class Failing(io.StringIO):
    """A stream that cannot be written any more."""

    def __init__(self, code: int):
        super().__init__()
        self.code = code

    def write(self, _: str) -> int:
        raise OSError(self.code, os.strerror(self.code))

    flush = lambda self: self.write("")  # noqa: E731


LOST = [errno.ENOSPC, errno.EDQUOT, errno.EPIPE, errno.EIO, errno.EBADF]
each_error = pytest.mark.parametrize("lost", LOST, ids=errno.errorcode.get)


def log(code: int = 0) -> int:
    """Long work, of which what it prints is a log."""
    streams.only_log()
    for step in range(3):
        console.say(f"step {step}")
    print("of a plugin")  # noqa: T201
    if code:
        raise StoppedError(Problem("runs/x", "stopped by SIGTERM, saved"), exit_code=code)
    return 0


@pytest.mark.parametrize("code", [0, 75, 130])
@each_error
def test_a_log_that_cannot_be_written_changes_no_exit_code_and_is_told_once(
    code, lost, capsys, monkeypatch
):
    """Point 14: the message is about the log, and not about the run's folder."""
    monkeypatch.setattr(sys, "stdout", Failing(lost))
    assert guarded(lambda: log(code), debug=False) == code
    err = capsys.readouterr().err
    said = f"medgen: warning: stdout: cannot be written ({os.strerror(lost)}). The work goes on without it."
    assert (err.splitlines()[0], err.count("warning")) == (said, 1)


@each_error
def test_a_result_that_cannot_be_printed_is_an_error_unless_its_reader_has_seen_enough(
    lost, capsys, monkeypatch
):
    """Point 14: `medgen recipe show X > file` on a full disk, and `medgen recipe show X | head`."""
    monkeypatch.setattr(sys, "stdout", Failing(lost))
    code = guarded(lambda: console.say("a result"), debug=False)
    assert code == (0 if lost == errno.EPIPE else 8)
    assert capsys.readouterr().err.startswith("medgen: stdout: cannot be written (") == (code == 8)


def test_with_both_streams_lost_the_work_goes_on(monkeypatch):
    """Point 14: `medgen train ... 2>&1 | tee log`, and Ctrl-C ends tee."""
    for name in streams.NAMES:
        monkeypatch.setattr(sys, name, Failing(errno.EPIPE))
    assert guarded(lambda: log(130), debug=True) == 130
    assert guarded(log, debug=False) == 0


@full_disk
def test_a_disk_that_was_full_for_a_moment_takes_the_log_again(tmp_path, monkeypatch):
    """Point 14."""
    handle = os.open(FULL, os.O_WRONLY)
    file = open(handle, "w", buffering=1)  # noqa: SIM115 - closed below
    monkeypatch.setattr(sys, "stdout", file)
    with streams.steady():
        streams.only_log()
        console.say("lost")
        os.dup2(os.open(tmp_path / "log", os.O_WRONLY | os.O_CREAT), handle)
        console.say("written")
    file.close()
    assert (tmp_path / "log").read_text().endswith("written\n")


def run(words: list[str], shell: str) -> subprocess.CompletedProcess[str]:
    command = f'"{sys.executable}" -m medgen {" ".join(words)} {shell}'
    return subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=HANG)


@pytest.mark.parametrize(
    ("shell", "code"),
    [
        (">&-", 0),
        ("2>&-", 0),
        (">&- 2>&- <&-", 0),
        ("| true; exit ${PIPESTATUS[0]}", 0),
        pytest.param("> /dev/full", 8, marks=full_disk),
    ],
)
def test_a_process_with_a_closed_full_or_unread_stdout_ends_in_order(shell: str, code: int) -> None:
    """Point 14: not with 120, as Python does, nor with `Exception ignored`."""
    ended = run(["recipe", "list"], shell)
    assert (ended.returncode, len(ended.stderr.splitlines())) == (code, code // 8), ended
    assert "Exception ignored" not in ended.stderr


@full_disk
@pytest.mark.parametrize("sound", [True, False])
def test_a_result_as_json_that_does_not_fit_on_stdout_names_stdout(
    sound: bool, cohort: Path, tmp_path: Path
) -> None:
    """Whatever it says of the scans."""
    (tmp_path / "Mets_001").mkdir()
    for name in ("bravo", "seg"):
        (tmp_path / f"Mets_001/{name}.nii.gz").write_bytes(b"damaged")
    ended = run(["data", "check", str(cohort if sound else tmp_path), "--json", "-"], "> /dev/full")
    assert ended.returncode == 8, ended
    [line] = [
        each
        for each in ended.stderr.splitlines()
        if each.startswith("medgen: ") and "warning" not in each
    ]
    assert line.startswith("medgen: stdout: cannot be written (No space left on device).")


def test_a_file_that_is_opened_does_not_become_a_closed_stdout(tmp_path: Path) -> None:
    """Point 14: a checkpoint must not hold what a library prints."""
    code = (
        "import os, sys; from medgen.system import streams\n"
        "with streams.steady():\n"
        f"    file = open({str(tmp_path / 'checkpoint')!r}, 'wb')\n"
        "    os.write(1, b'printed by a library'); file.close()"
    )
    ended = subprocess.run(
        ["bash", "-c", f'"{sys.executable}" -c "$0" >&-', code], capture_output=True, text=True
    )
    assert (ended.returncode, ended.stderr, (tmp_path / "checkpoint").read_bytes()) == (0, "", b"")


def test_a_mistake_of_encoding_is_no_lost_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    """Point 14."""
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), encoding="ascii"))
    with streams.steady(), pytest.raises(UnicodeEncodeError):
        sys.stdout.write("\u00e4")


def test_streams_are_as_before_afterwards(capsys: Any) -> None:
    """Point 14."""
    before = sys.stdout, sys.stderr
    with streams.steady():
        assert isinstance(sys.stdout, streams.Steady)
    assert (sys.stdout, sys.stderr) == before
