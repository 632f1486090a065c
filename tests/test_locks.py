"""A folder has one process at a time; where the file system has no locks, one of each machine."""

from __future__ import annotations

import errno
import fcntl
import json
import os
from pathlib import Path
from typing import Any

import pytest

from medgen.errors import RunInUseError
from medgen.run import folder
from medgen.system import file_systems, locks

LACKING = [errno.ENOSYS, errno.EPERM, errno.EINVAL, errno.EOPNOTSUPP, errno.ENOLCK, errno.EACCES]


@pytest.fixture(params=LACKING, ids=errno.errorcode.get)
def no_locks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """As of a file system without locks."""

    def refuse(*_: Any) -> None:
        raise OSError(request.param, os.strerror(request.param))

    monkeypatch.setattr(fcntl, "flock", refuse)
    monkeypatch.setattr(fcntl, "lockf", refuse)


def owner(path: Path, **other: Any) -> None:
    """Let the file name the process that started this one, or another."""
    alive = {
        "pid": os.getppid(),
        "node": os.uname().nodename,
        "born": locks.born(os.getppid()),
        "since": "12:03",
    }
    path.write_text(json.dumps(alive | other))


def test_without_locks_a_folder_is_held_by_a_file_and_that_is_told_once(no_locks, tmp_path, capsys):
    """Point 5."""
    with folder.lock(tmp_path):
        assert json.loads((tmp_path / ".lock-owner").read_text())["pid"] == os.getpid()
    assert os.listdir(tmp_path) == [".lock"]
    err = capsys.readouterr().err
    assert (
        err.count("warning"),
        "no locks: two processes in one folder are noticed only" in err,
    ) == (1, True), err


def test_without_locks_a_process_of_this_machine_that_lives_has_the_folder(no_locks, tmp_path):
    """Point 5."""
    owner(tmp_path / ".lock-owner")
    with (
        pytest.raises(
            RunInUseError, match=rf"in use by pid {os.getppid()} on node .* since 12:03\. Wait"
        ),
        folder.lock(tmp_path),
    ):
        pass


@pytest.mark.parametrize(
    "other", [{"pid": 1 << 22 | 1}, {"born": "another"}, {"node": "elsewhere"}, {"pid": None}]
)
def test_without_locks_an_owner_that_has_ended_or_cannot_be_seen_has_it_no_longer(
    other, no_locks, tmp_path, capsys
):
    """Point 5: a killed job that is queued again, maybe on another node, must find its folder free."""
    owner(tmp_path / ".lock-owner", **other)
    os.utime(tmp_path / ".lock-owner", (0, 0))
    with folder.lock(tmp_path):
        pass
    assert ("was in use by" in capsys.readouterr().err) == ("node" in other)


def test_without_locks_numbers_are_held_by_files(no_locks, tmp_path):
    """Point 5: what processes that make pairs in one folder share."""
    mine = locks.Locks(tmp_path / ".lock")
    owner(tmp_path / ".lock-5")
    assert [mine.take(5), mine.take(6), mine.take(7, shared=True)] == [False, True, True]
    owner(tmp_path / ".lock-7-other")
    assert not mine.take(7)
    (tmp_path / ".lock-7-other").unlink()
    assert mine.take(7)
    mine.release(6)
    owner(tmp_path / ".lock-5", pid=1 << 22 | 1)
    mine.wait(5)
    mine.close()
    assert os.listdir(tmp_path) == [".lock"]
    assert mine.lacking


def test_with_locks_no_owner_file_is_written(tmp_path, monkeypatch):
    """Point 5."""
    monkeypatch.setattr(file_systems, "_told", set())
    mine = locks.Locks(tmp_path / ".lock")
    assert [mine.take(5), mine.take(7, shared=True)] == [True, True]
    mine.release(5)
    mine.close()
    assert (os.listdir(tmp_path), mine.lacking) == ([".lock"], False)
