"""Pairs made by several processes: what one process would make, told of by one.

Covers: medgen.generation.workers.
"""

from __future__ import annotations

import json
import logging
import os
import re
import shlex
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from faults import ranks
from faults.forkserver import HANG, Server
from faults.ranks import gone, supervised
from faults.test_generation import BATCH, command, files, pair_folders

from medgen.errors import MedgenError, Problem, RankError, RecipeError, StoppedError
from medgen.generation import workers
from medgen.generation.indices import Indices
from medgen.generation.workers import GenerateWorkers
from medgen.ranks import place, process_group
from medgen.system.signals import NAMES

MANY = 99_999
"""More than there is time for."""
Run = Callable[..., Any]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Server:
    return Server(tmp_path_factory.mktemp("logs"))


@pytest.mark.parametrize("count", [pytest.param(2, marks=pytest.mark.slow), 3])
def test_ranks_make_the_pairs_that_one_process_would(
    count: int, server: Server, trained: Path, tmp_path: Path
) -> None:
    assert server.run(*command(trained, tmp_path / "one")).code == 0
    ended = ranks.run(server, *command(trained, tmp_path / "several"), count=count)
    assert [each.code for each in ended] == [0] * count
    assert files(tmp_path / "several") == files(tmp_path / "one")


@pytest.mark.parametrize(("parts", "count"), [(1, 1), (1, 3), (3, 1), (2, 4), (5, 3)])
def test_ranks_of_an_arrays_jobs_have_each_block_once(
    parts: int, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[int] = []
    for part in range(1, parts + 1):
        own = Indices(100, 7, part, parts)
        for rank in range(count):
            monkeypatch.setattr(place, "place", lambda rank=rank: place.Place(rank, count, rank))
            indices = Indices(100, 7, *workers.share(part, parts))
            assert set(indices) <= set(own)
            made += indices
    assert sorted(made) == list(range(100))


def median_area(out: Path) -> float:
    return float(
        np.median([nib.load(each / "seg.nii.gz").get_fdata().mean() for each in pair_folders(out)])
    )


def test_devices_make_the_folder_that_one_does_and_what_is_left_out_is_told_once(
    server: Server, trained: Path, tmp_path: Path
) -> None:
    assert server.run(*command(trained, tmp_path / "all")).code == 0
    limits = ("--max-area", median_area(tmp_path / "all"), "--max-attempts", 1)
    one = server.run(*command(trained, tmp_path / "one", 12, *limits))
    process = supervised(*command(trained, tmp_path / "two", 12, *limits, "--devices", 2))
    out, err = process.communicate(timeout=HANG)
    assert process.returncode == one.code == 12
    assert out == one.out.replace(f"{tmp_path}/one", f"{tmp_path}/two")
    assert told(err) == [
        each.replace(f"{tmp_path}/one", f"{tmp_path}/two") for each in told(one.err)
    ]
    assert "pairs  12/12 tried  100%" in err
    assert 0 < len(pair_folders(tmp_path / "two")) < 12
    assert files(tmp_path / "two") == files(tmp_path / "one")


def worker_pids(process: subprocess.Popen[str]) -> list[int]:
    listed = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()
    return [int(each) for each in listed.split()]


def wait_for_pairs(process: subprocess.Popen[str], out: Path, count: int) -> None:
    limit = time.monotonic() + HANG
    while len(pair_folders(out)) < count:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < limit, "no pairs were made"
        time.sleep(0.002)


@pytest.mark.slow
def test_a_worker_that_is_killed_ends_all_and_the_same_command_goes_on(
    server: Server, trained: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    words = command(trained, out, MANY, "--devices", 2)
    process = supervised(*words)
    wait_for_pairs(process, out, 1)
    first, second = worker_pids(process)
    os.kill(second, signal.SIGKILL)
    _, err = process.communicate(timeout=HANG)
    assert process.returncode == 9, err
    what = f"rank 1 (pid {second}) was killed by SIGKILL, every pair there is whole"
    assert told(err) == [f"medgen: {out}: {what}. Continue: {shlex.join(['medgen', *words])}"]
    assert gone(first)
    count = (
        int(pair_folders(out)[-1].name.removeprefix("syn_")) + 1 + BATCH
    )  # no gap is left, and some are new
    for folder in (out, tmp_path / "whole"):
        assert server.run(*command(trained, folder, count)).code == 0
    assert len(pair_folders(out)) == count
    assert files(out) == files(tmp_path / "whole")


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGUSR1, 75), (signal.SIGINT, 130)])
def test_a_signal_stops_all_at_the_end_of_a_block(
    trained: Path, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    words = command(trained, tmp_path, MANY, "--devices", 2)
    process = supervised(*words)
    wait_for_pairs(process, tmp_path, 1)
    process.send_signal(number)
    _, err = process.communicate(timeout=HANG)
    assert process.returncode == code, err
    what = f"stopped by {NAMES[number]}, every pair there is whole"
    assert told(err) == [f"medgen: {tmp_path}: {what}. Continue: {shlex.join(['medgen', *words])}"]
    assert 0 < len(pair_folders(tmp_path)) < MANY
    assert len(pair_folders(tmp_path)) % BATCH == 0


def told(err: str) -> list[str]:
    return [line for line in err.splitlines() if line.startswith("medgen: ")]


@pytest.fixture
def makers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[GenerateWorkers]:
    """The process that starts two, and has not."""
    for name in (
        place.NOTES,
        "OMP_NUM_THREADS",
        "GLOO_SOCKET_IFNAME",
        "TORCHELASTIC_SIGNALS_TO_HANDLE",
    ):
        monkeypatch.setenv(name, os.environ.get(name, ""))  # which it sets
    yield GenerateWorkers(["generate"], 2, tmp_path, 9, Path("out"), "medgen generate")
    logging.disable(logging.NOTSET)


def failure(code: int) -> Any:
    return type("Failure", (), {"exitcode": code, "pid": 7})()


@pytest.mark.parametrize("failures", [[], [(1, failure(-signal.SIGUSR1))]])
def test_a_stop_is_told_by_who_started_them_also_where_a_signal_came_before_all_could_answer(
    failures: list[tuple[int, Any]], makers: GenerateWorkers
) -> None:
    makers.asked = signal.SIGUSR1
    workers._tell(makers.notes, StoppedError(Problem("out", "stopped")))
    with pytest.raises(MedgenError, match=r"^out: stopped\.$") as raised:
        makers._judge(failures)
    assert raised.value.exit_code == 75


def test_a_signal_before_any_worker_could_answer_is_a_stop(makers: GenerateWorkers) -> None:
    makers.asked = signal.SIGUSR1
    with pytest.raises(
        StoppedError,
        match=r"^out: stopped by SIGUSR1, every pair there is whole\. Continue: medgen",
    ):
        makers._judge([(0, failure(-signal.SIGUSR1)), (1, failure(-signal.SIGTERM))])


def test_a_killed_worker_is_named_with_the_command_that_goes_on(makers: GenerateWorkers) -> None:
    what = "out: rank 1 (pid 7) was killed by SIGKILL, every pair there is whole. Continue: medgen generate"
    with pytest.raises(RankError, match=f"^{re.escape(what)}"):
        makers._judge([(1, failure(-signal.SIGKILL))])


def test_a_signal_that_came_too_late_is_none(makers: GenerateWorkers) -> None:
    makers.asked = signal.SIGTERM
    assert makers._judge([]) == 0


def test_of_several_that_fail_the_first_leaves_its_error_for_who_started_them(
    server: Server, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "file").touch()
    monkeypatch.setenv(place.NOTES, str(tmp_path / "notes"))
    ended = ranks.run(server, *command(trained, tmp_path / "file/out"))
    assert [(each.code, each.out, each.err) for each in ended] == [(9, "", "")] * 2
    code, problem = json.loads((tmp_path / "notes/told").read_text())
    assert code == 8
    assert (problem[0], problem[2]) == (
        f"{tmp_path}/file/out",
        "Free space or choose another --output-dir",
    )


def test_there_are_no_more_processes_than_blocks_and_none_besides_those_of_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert [workers.processes(4, Indices(count, 3, 1, 1)) for count in (1, 3, 4, 9, 90)] == [
        1,
        1,
        2,
        3,
        4,
    ]
    monkeypatch.setattr(place, "place", lambda: place.Place(0, 2, 0))
    assert workers.processes(4, Indices(90, 3, 1, 1)) == 1


def test_ranks_take_the_devices_in_turn_and_more_than_there_are_are_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    chosen: list[int] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    monkeypatch.setattr(process_group, "exit_with_parent", lambda: None)
    for rank in range(4):
        monkeypatch.setattr(place, "place", lambda rank=rank: place.Place(rank, 4, rank))
        with workers.joined():
            pass
    assert chosen == [0, 1, 0, 1]
    with pytest.raises(
        RecipeError, match=r"^--devices: got 3, this node has 2\. Use at most as many\.$"
    ):
        workers.supervise(["generate"], 3, 9, tmp_path, "medgen generate")
