"""Ranks that die, hang, fail, are told to stop, or are kept waiting.

Covers: medgen.ranks.beat_file, medgen.ranks.heartbeat.
"""

from __future__ import annotations

import json
import os
import re
import signal
import time
from datetime import timedelta
from pathlib import Path

import pytest
import torch
from faults import ranks
from faults.forkserver import HANG, Server, differences
from faults.ranks import gone, supervised
from faults.variants import SMALL

from medgen.ranks import beat_file, heartbeat, process_group
from medgen.run import checkpoint

SHORT = (*SMALL, "training.validate_every=0", "callbacks.checkpoints.every_steps=10")
ENDLESS = ("training.steps=1000000", "training.schedule=constant")


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    return Server(tmp_path_factory.mktemp("logs"))


@pytest.fixture(
    params=["bravo_rflow", pytest.param("bravo_rflow_3d", marks=pytest.mark.slow)],
    ids=["slices", "volumes"],
)
def common(request, tiny, medgen, tmp_path):
    given = (request.param, *tiny, *SHORT)
    assert medgen("data", "prepare", *given).code == 0  # else a first rank tells of that
    return ("train", *given, f"run.dir={tmp_path}/r")


def beat_at(folder, rank, step, seconds=HANG):
    """The heartbeat of a rank that has come so far."""
    limit = time.monotonic() + seconds
    while True:
        beat = beat_file.read_beat(folder, rank)
        if beat and beat.step >= step and beat.state in ("working", "waiting"):
            return beat
        assert time.monotonic() < limit, f"never came to step {step}"
        time.sleep(0.05)


def stop_at(rank: int, step: int) -> None:
    """Ask for an end after a step; all come one step further."""
    from medgen.training.trainer import Trainer

    real = Trainer.step

    def stopping(self):
        record = real(self)
        if self.run.step == step and rank == 0:
            self.run.stop("SIGTERM")
        return record

    Trainer.step = stopping


def goes_on_as_if_nothing_had_been(common, server, tmp_path):
    """For some steps more, wherever it ended, which nobody can foresee."""
    until = checkpoint.load(tmp_path / "r/latest.pt")["position"]["step"] + 3
    for words in (
        (*common, *ENDLESS, f"run.dir={tmp_path}/whole"),
        ("train", "--resume", tmp_path / "r"),
    ):
        both = ranks.run(server, *words, hook=stop_at, given=(until,))
        assert [each.code for each in both] == [75, 0], both
    assert differences(tmp_path / "whole", tmp_path / "r") == []


@pytest.mark.row("D1")
def test_a_killed_rank_ends_all_and_the_run_goes_on_to_the_same_end(common, server, tmp_path):
    """Long before torch would end them, which waits for half an hour."""
    process = supervised(*common, *ENDLESS, "--devices", 2)
    first, second = (beat_at(tmp_path / "r", rank, 12) for rank in (0, 1))
    os.kill(second.pid, signal.SIGKILL)
    _, err = process.communicate(timeout=HANG)
    assert process.returncode == 9, err
    what = rf"medgen: {tmp_path}/r: rank 1 \(pid {second.pid}\) was killed by SIGKILL at step (\d+)"
    then = (
        rf"last checkpoint: step (\d+)\. Continue: medgen train --resume {tmp_path}/r --devices 2"
    )
    found = re.fullmatch(f"{what}; {then}\n", err)
    assert found, err
    assert (
        int(found[1])
        >= int(found[2])
        == checkpoint.load(tmp_path / "r/latest.pt")["position"]["step"]
        >= 6
    )
    assert gone(first.pid)
    assert gone(second.pid)
    goes_on_as_if_nothing_had_been(common, server, tmp_path)


@pytest.mark.parametrize(
    ("count", "killed"), [(2, 0), pytest.param(2, 1, marks=pytest.mark.slow), (3, 1)]
)
@pytest.mark.row("D1")
def test_without_a_supervisor_one_that_is_left_names_the_killed_rank(
    count, killed, common, server, tmp_path
):
    children = ranks.start(server, *common, *ENDLESS, "training.batch_size=6", count=count)
    beat = beat_at(tmp_path / "r", killed, 12)
    os.kill(beat.pid, signal.SIGKILL)
    ended = [each.wait() for each in children]
    assert [each.code for each in ended] == [
        -signal.SIGKILL if n == killed else 9 for n in range(count)
    ]
    tellers = [
        n for n, each in enumerate(ended) if each.err
    ]  # of two that are left, the one that noticed first
    assert len(tellers) == 1
    found = re.fullmatch(
        rf"medgen: {tmp_path}/r: rank {killed} \(pid {beat.pid}\) is gone at step \d+; "
        rf"last checkpoint: step (\d+)\. Continue: medgen train --resume {tmp_path}/r\n",
        ended[tellers[0]].err,
    )
    assert found, ended
    saved = checkpoint.load(tmp_path / "r/latest.pt")["position"]["step"]
    # rank 0 may die after it has saved and before it can say so
    assert int(found[1]) == saved or (killed == 0 and int(found[1]) < saved)


@pytest.mark.row("D1")
def test_ranks_whose_supervisor_is_killed_at_once_do_not_go_on_alone(common):
    process = supervised(*common, *ENDLESS, "--devices", 2)
    started = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    limit = time.monotonic() + HANG
    while len(started.read_text().split()) < 2:
        assert time.monotonic() < limit
        time.sleep(0.01)
    process.kill()
    process.communicate(timeout=HANG)  # until nobody holds its output any more


def dies_in_the_save_of(_: int, step: int) -> None:
    from medgen.run import saving

    real = saving.write

    def killing(run, path):
        real(run, path)
        if run.step == step:
            os.kill(beat_file.read_beat(run.dir, 1).pid, signal.SIGKILL)

    saving.write = killing


@pytest.mark.row("D1")
def test_a_save_during_which_a_rank_dies_counts(common, server, tmp_path):
    first, second = ranks.run(server, *common, *ENDLESS, hook=dies_in_the_save_of, given=(10,))
    assert (first.code, second.code) == (9, -signal.SIGKILL)
    assert checkpoint.load(tmp_path / "r/latest.pt")["position"]["step"] == 10
    assert "last checkpoint: step 10." in str(heartbeat.gone(tmp_path / "r", 1, "was killed"))


def impatient_after(_: int, file: Path) -> None:
    """The timeout is that of the recipe until there is such a file, and 2 s from then on."""
    watch = beat_file.Heartbeat._watch

    def watching(self, other):
        if file.exists():
            self.timeout = 2.0
        watch(self, other)

    beat_file.Heartbeat._watch = watching


@pytest.mark.row("D2")
def test_a_rank_that_hangs_is_named_and_all_end(common, server, tmp_path):
    """The one that is not stopped may be slow; only from then on it is a matter of seconds."""
    given = {"hook": impatient_after, "given": (tmp_path / "stopped",)}
    children = ranks.start(server, *common, *ENDLESS, f"distributed.timeout={HANG}", **given)
    beat = beat_at(tmp_path / "r", 1, 3)
    os.kill(children[1].pid, signal.SIGSTOP)
    (tmp_path / "stopped").touch()
    try:
        ended = children[0].wait(HANG / 2)
    finally:
        children[1].process.kill()
    assert ended.code == 9, ended
    assert re.search(
        rf"rank 1 \(pid {beat.pid}\) has been silent for {HANG:g} s at step \d+; last checkpoint: step",
        ended.err,
    )
    assert len(ended.err.splitlines()) == 1


def fails_at(rank: int, step: int) -> None:
    from medgen.training.trainer import Trainer

    real = Trainer.step

    def failing(self):
        if rank == 1 and self.run.step == step:
            raise ValueError("a fault of its own")
        return real(self)

    Trainer.step = failing


@pytest.mark.row("D3")
def test_the_first_error_is_the_only_line_and_its_code_counts(common, server):
    first, second = ranks.run(server, *common, *ENDLESS, hook=fails_at, given=(3,))
    assert (first.code, first.err) == (9, "")
    assert second.code == 1
    assert second.err.startswith("medgen: ValueError: a fault of its own.")
    assert len(second.err.splitlines()) == 1


@pytest.mark.parametrize("told", [0, 1])
@pytest.mark.row("D4")
def test_a_signal_to_one_rank_stops_all_at_the_same_step(told, common, server, tmp_path):
    children = ranks.start(server, *common, *ENDLESS)
    beat_at(tmp_path / "r", told, 3)
    os.kill(children[told].pid, signal.SIGUSR1)
    first, second = (each.wait() for each in children)
    assert (first.code, second.code, second.err) == (75, 0, ""), first.err + second.err
    step = checkpoint.load(tmp_path / "r/latest.pt")["position"]["step"]
    how = f"stopped by SIGUSR1 at step {step}, saved. Continue: medgen train --resume {tmp_path}/r"
    assert first.err == f"medgen: {tmp_path}/r: {how}\n"
    lines = (tmp_path / "r/metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == list(range(1, step + 1))


@pytest.mark.slow
@pytest.mark.row("D4")
def test_a_signal_to_the_supervisor_reaches_its_ranks_and_the_run_goes_on_with_as_many(
    common, server, tmp_path
):
    common = (*common, "callbacks.checkpoints.every_steps=0", "training.epoch_steps=1000")
    process = supervised(*common, *ENDLESS, "--devices", 2)
    beat_at(tmp_path / "r", 1, 3)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=HANG)
    assert process.returncode == 75, err
    assert re.search(r"stopped by SIGTERM at step \d+, saved. Continue: medgen train --resume", err)
    goes_on_as_if_nothing_had_been(common, server, tmp_path)


def slow(rank: int, timeout: float, seconds: float, where: tuple[str, ...]) -> None:
    """Rank 0 takes long to measure the device, for its second save, and to validate; rank 1 for its previews.

    Once each: the time is real, and has to be long for a step on a slow machine to be short beside it.
    """
    from medgen_builtins.callbacks._previews import Previewing

    from medgen.training.throughput import Throughput
    from medgen.training.validation import Validation

    apart = process_group._check_apart

    def joined():  # gradients have no more time than the watch, joining has
        apart()
        torch.distributed.distributed_c10d._set_pg_timeout(timedelta(seconds=timeout))

    process_group._check_apart = joined

    def delay(owner, name, call=1):
        real, calls = getattr(owner, name), iter(range(1, 1 << 30))

        def delayed(*given):
            time.sleep(seconds if next(calls) == call and name in where else 0)
            return real(*given)

        setattr(owner, name, delayed)

    delay(Throughput, "calibrate")
    if rank:
        delay(Previewing, "_sample")
        return
    delay(checkpoint, "save", 2)
    delay(Validation, "_add")


LONG = ("save", "calibrate", "_add", "_sample")


@pytest.mark.parametrize(
    "where", [LONG[:1], pytest.param(LONG, marks=pytest.mark.slow)], ids=["save", "all"]
)
@pytest.mark.row("D5")
def test_a_rank_may_save_validate_and_sample_for_longer_than_the_timeout(
    where, common, server, tmp_path
):
    options = (
        "training.steps=3",
        "training.validate_every=1",
        "training.val_batches=1",
        "distributed.timeout=8",
    )
    more = (
        "callbacks.checkpoints.every_steps=2",
        "callbacks.previews.count=2",
        "callbacks.previews.steps=2",
    )
    both = ranks.run(server, *common, *options, *more, hook=slow, given=(8.0, 11.0, where))
    assert [each.code for each in both] == [0, 0], both
    assert (tmp_path / "r/previews").is_dir()
    assert checkpoint.load(tmp_path / "r/latest.pt")["position"]["step"] == 3


def not_finite_at(rank: int, steps: tuple[int, ...]) -> None:
    from medgen.training.trainer import Trainer

    real = Trainer._descend

    def spoilt(self, name, result, *more):
        if rank == 1 and self.run.step in steps:
            result = result._replace(
                losses={loss: each * float("nan") for loss, each in result.losses.items()}
            )
        real(self, name, result, *more)

    Trainer._descend = spoilt


@pytest.mark.row("D7")
def test_all_ranks_leave_out_a_step_that_is_not_finite_on_one(common, server, tmp_path):
    both = ranks.run(server, *common, "training.steps=6", hook=not_finite_at, given=((2,),))
    assert [each.code for each in both] == [0, 0], both
    assert "step 3 was not finite and is left out" in both[0].err
    assert both[1].err == ""
    state = checkpoint.load(tmp_path / "r/latest.pt")
    assert all(torch.isfinite(each).all() for each in state["network"].values())
    assert {int(each["step"]) for each in state["optimizers"]["network"]["state"].values()} == {5}


@pytest.mark.row("D7")
def test_all_ranks_stop_where_one_is_not_finite_for_too_long(common, server):
    options = ("training.steps=60", "training.max_skipped=2", "callbacks.checkpoints.every_steps=4")
    both = ranks.run(server, *common, *options, hook=not_finite_at, given=(tuple(range(3, 60)),))
    assert sorted(each.code for each in both) == [6, 9]
    told = "".join(each.err for each in both)
    assert told.count("steps in a row were not finite, last good: step 3") == 1, told
