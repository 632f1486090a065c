"""Signals, time limits, and two processes in one folder."""

from __future__ import annotations

import itertools
import os
import signal
import threading
from contextlib import suppress

import pytest
from faults.forkserver import Server, differences
from faults.variants import SMALL

from medgen.api.tables import TrainingSettings
from medgen.config.recipe import load
from medgen.errors import StoppedError
from medgen.run import checkpoint, folder
from medgen.system import signals
from medgen.training import interruption, time_limit

SHORT = (*SMALL, "training.epoch_steps=3", "training.steps=8")
KINDS = {signal.SIGTERM: 75, signal.SIGUSR1: 75, signal.SIGINT: 130}


@pytest.fixture
def server(tmp_path):
    return Server(tmp_path)


@pytest.fixture
def common(tiny):
    return ("bravo_rflow", *tiny, *SHORT)


def signalled(phase: str, number: int, times: int = 1) -> None:
    """Send this process the signal in a phase of its third step or its first validation."""
    from medgen.data.store.loader import Loader
    from medgen.training.trainer import Trainer
    from medgen.training.validation import Validation

    where = {
        "step": (Trainer, "_descend"),
        "data": (Loader, "at"),
        "update": (Trainer, "_update"),
        "validation": (Validation, "_add"),
        "save": (checkpoint, "_write"),
        "keep": (checkpoint, "_keep"),
    }
    owner, name = where[phase]
    signals.SAME = -1.0 if times > 1 else signals.SAME  # no two are one
    real, calls = getattr(owner, name), []

    def signalling(*given, **named):
        calls.append(1)
        if len(calls) == (2 if phase == "keep" else 3):
            for _ in range(times):
                os.kill(os.getpid(), number)
        return real(*given, **named)

    setattr(owner, name, signalling)


PHASES = ("step", "data", "update", "validation", "save", "keep")
QUICK = {*((phase, signal.SIGTERM) for phase in PHASES), *(("step", number) for number in KINDS)}


@pytest.mark.parametrize(
    ("phase", "number"),
    [
        pytest.param(*case, marks=() if case in QUICK else pytest.mark.slow)
        for case in itertools.product(PHASES, KINDS)
    ],
)
@pytest.mark.row("S1")
def test_a_signal_ends_the_step_saves_it_and_asks_to_be_continued(
    phase, number, server, common, tmp_path
):
    ended = server.run(
        "train", *common, f"run.dir={tmp_path}/r", hook=signalled, given=(phase, number)
    )
    assert ended.code == KINDS[number], ended.err
    assert ended.err.splitlines()[-1].endswith(
        f"saved. Continue: medgen train --resume {tmp_path}/r"
    )
    step = checkpoint.load(tmp_path / "r/latest.pt")["position"]["step"]
    assert f"at step {step}, saved" in ended.err
    assert step >= (3 if phase in ("step", "data", "update") else 1)


@pytest.mark.row("S1")
def test_what_was_signalled_and_resumed_equals_what_was_not(server, common, tmp_path):
    assert server.run("train", *common, f"run.dir={tmp_path}/whole").code == 0
    given = ("validation", signal.SIGTERM)
    assert (
        server.run("train", *common, f"run.dir={tmp_path}/r", hook=signalled, given=given).code
        == 75
    )
    assert server.run("train", "--resume", tmp_path / "r").code == 0
    assert differences(tmp_path / "whole", tmp_path / "r") == []


def early(number: int) -> None:
    """Send the signal as the data are opened, before there is anything to save."""
    from medgen.run import assemble

    real = assemble.open_store

    def signalling(*given, **named):
        os.kill(os.getpid(), number)
        return real(*given, **named)

    assemble.open_store = signalling


@pytest.mark.row("S1")
def test_a_signal_before_training_loses_nothing_and_the_same_command_starts_it(
    server, common, tmp_path
):
    given = ("train", *common, f"run.dir={tmp_path}/r")
    ended = server.run(*given, hook=early, given=(signal.SIGTERM,))
    assert (ended.code, len(ended.err.splitlines())) == (75, 1)
    assert "before it trained. Give the same command again." in ended.err
    assert server.run(*given).code == 0


@pytest.mark.parametrize("phase", ["save", "keep"])
@pytest.mark.row("S2")
def test_a_second_signal_while_saving_ends_at_once_and_leaves_a_whole_checkpoint(
    phase, server, common, tmp_path
):
    given = (phase, signal.SIGTERM, 2)
    ended = server.run("train", *common, f"run.dir={tmp_path}/r", hook=signalled, given=given)
    assert ended.code == 128 + signal.SIGTERM
    checkpoint.load(tmp_path / "r/latest.pt")
    assert server.run("train", "--resume", tmp_path / "r").code == 0
    assert list((tmp_path / "r").glob(".tmp-*")) == []


@pytest.fixture
def ends(monkeypatch):
    """The codes with which the process would have ended at once."""
    codes = []
    monkeypatch.setattr(signals.os, "_exit", codes.append)
    return codes


@pytest.mark.row("S2")
def test_a_second_signal_of_another_kind_is_no_reason_to_hurry(ends):
    answers = interruption.Signals("r")
    answers.run = type("Run", (), {"stop": lambda self, reason: None})()
    answers(signal.SIGUSR1, None)
    answers(signal.SIGTERM, None)
    assert ends == []


@pytest.mark.row("S2")
def test_a_signal_that_is_delivered_twice_within_a_second_is_one_and_one_that_is_sent_again_is_not(
    ends,
):
    clock = iter([5.0, 5.3, 5.9, 6.1])
    ear = signals.RepeatFilter(lambda: next(clock))
    assert [ear.first(signal.SIGINT) for _ in range(3)] == [True, False, False]
    assert ends == []
    ear.first(signal.SIGINT)
    assert ends == [130]


@pytest.mark.row("S2")
def test_a_signal_that_is_delivered_twice_before_training_ends_it_once(ends, monkeypatch):
    monkeypatch.setattr(signals, "SAME", float("inf"))  # however slowly it is delivered
    answers = interruption.Signals("r")
    with pytest.raises(StoppedError):
        answers(signal.SIGTERM, None)
    answers(signal.SIGTERM, None)
    assert ends == []


@pytest.mark.row("S2")
def test_a_signal_that_a_library_swallows_before_training_is_not_lost():
    answers, asked = interruption.Signals("r"), []
    with suppress(Exception):  # as optional imports do
        answers(signal.SIGTERM, None)
    answers.attach(type("Run", (), {"stop": lambda self, reason: asked.append(reason)})())
    assert asked == ["SIGTERM"]


@pytest.mark.row("S4")
def test_the_limit_is_the_recipes_or_slurms_whichever_is_first(monkeypatch):
    settings = TrainingSettings(steps=1, time_limit=10)
    monkeypatch.delenv("SLURM_JOB_END_TIME", raising=False)
    assert time_limit.deadline(settings, 1000.0) == 1600.0
    assert time_limit.deadline(TrainingSettings(steps=1), 1000.0) == float("inf")
    monkeypatch.setenv("SLURM_JOB_END_TIME", "1300")
    assert time_limit.deadline(settings, 1000.0) == 1300.0


@pytest.mark.row("S4")
def test_a_run_stops_while_there_is_time_for_a_step_and_three_saves(
    medgen, common, tmp_path, monkeypatch
):
    """On a clock of its own, a step takes 10 s and a save 4 s: after 44 of 60 s there is no time for 22 more."""
    from medgen.run import run
    from medgen.training import trainer

    clock = [1000.0]
    monkeypatch.setattr(run.time, "time", lambda: clock[0])
    step, write = trainer.Trainer.step, checkpoint.save

    def slow_step(self):
        clock[0] += 10
        return step(self)

    def slow_save(*given):
        clock[0] += 4
        write(*given)

    monkeypatch.setattr(trainer.Trainer, "step", slow_step)
    monkeypatch.setattr(checkpoint, "save", slow_save)
    options = (
        "training.time_limit=1",
        "training.validate_every=0",
        "training.epoch_steps=0",
        f"run.dir={tmp_path}/r",
    )
    result = medgen("train", *common, *options)
    assert (result.code, "stopped by the time limit at step 4, saved" in result.err) == (
        75,
        True,
    ), result.err
    assert clock[0] < 1060


@pytest.mark.row("S6")
def test_a_second_process_is_told_who_has_the_folder_and_a_kill_frees_it(server, common, tmp_path):
    given = ("train", *common, "training.steps=100000", f"run.dir={tmp_path}/r")
    first = server.start(*given)
    first.wait_for("run      ")
    second = server.run(*given)
    assert second.code == 10
    assert (
        f"{tmp_path}/r: in use by pid {first.pid} on node {os.uname().nodename} since" in second.err
    )
    assert "Wait, or train into another folder." in second.err
    first.process.kill()
    assert first.wait().code == -9
    third = server.start(*given, "--resume", "auto")
    third.wait_for("run      ")
    os.kill(third.pid, signal.SIGTERM)
    assert third.wait().code == 75


@pytest.mark.row("S7")
def test_fifty_runs_that_start_at_once_have_fifty_folders(common, tmp_path):
    recipe = load(common[0], [*common[1:], f"run.root={tmp_path}"])
    found, barrier = [], threading.Barrier(50)

    def create():
        barrier.wait()
        found.append(folder.create(recipe))

    threads = [threading.Thread(target=create) for _ in range(50)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert len(set(found)) == 50
