"""What starts workers leaves its own process as it was.

Covers: medgen.ranks.agent, medgen.ranks.supervisor.
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from faults.forkserver import HANG

from medgen.generation import workers
from medgen.ranks import agent, supervisor


def surroundings() -> tuple[object, ...]:
    handlers = [
        signal.getsignal(each)
        for each in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP)
    ]
    return dict(os.environ), logging.root.manager.disable, handlers


class Meeting:
    """Where agents meet."""

    ended = 0

    def shutdown(self) -> None:
        Meeting.ended += 1


class Agent:
    """Stands for torch's, which changes environment and handlers as it runs."""

    fails = False

    def get_worker_group(self) -> object:
        spec = type("Spec", (), {"rdzv_handler": Meeting()})
        return type("Group", (), {"workers": [], "spec": spec})

    def run(self) -> object:
        assert os.environ["TORCHELASTIC_SIGNALS_TO_HANDLE"] == "SIGQUIT"
        assert Path(os.environ["MEDGEN_NOTES"], "pid").read_text() == str(os.getpid())
        assert not logging.getLogger("torch.distributed").isEnabledFor(logging.ERROR)
        os.environ["TORCHELASTIC_LEFT"] = os.environ["OMP_NUM_THREADS"] = "7"
        signal.signal(signal.SIGQUIT, signal.SIG_IGN)
        if self.fails:
            raise RuntimeError("the agent failed")
        return type("Result", (), {"failures": {}})


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("kind", ["train", "generate"])
def test_environment_logging_and_signals_are_as_before(kind, fails, tmp_path, monkeypatch):
    """Point 28: whether the workers were run or something failed."""
    monkeypatch.delenv("GLOO_SOCKET_IFNAME", raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    monkeypatch.setattr(Agent, "fails", fails)
    monkeypatch.setattr(agent, "make_agent", lambda *_: Agent())
    monkeypatch.setattr(supervisor, "require_equal_shares", lambda *_: None)
    before, ended = surroundings(), Meeting.ended
    training = type("Training", (), {"devices": 2})
    recipe = type("Recipe", (), {"training": training})

    def work() -> int:
        if kind == "train":
            return supervisor.supervise(["train"], recipe)
        return workers.supervise(["generate"], 2, 4, tmp_path, "the same command")

    if fails:
        with pytest.raises(RuntimeError, match="the agent failed"):
            work()
    else:
        assert work() == 0
    assert surroundings() == before
    assert Meeting.ended == ended + 1


class Waiting(Agent):
    """One whose workers end with the number of a signal, and that hears one itself meanwhile."""

    WORKER = """
import signal, sys, time
signal.signal(signal.SIGTERM, lambda number, _: sys.exit(number))
print(flush=True)
while True:
    time.sleep(1)
"""

    def __init__(self) -> None:
        words = [sys.executable, "-c", self.WORKER]
        self.workers = [subprocess.Popen(words, stdout=subprocess.PIPE) for _ in range(2)]

    def get_worker_group(self) -> object:
        group = super().get_worker_group()
        group.workers = [type("Worker", (), {"id": each.pid}) for each in self.workers]
        return group

    def run(self) -> object:
        for each in self.workers:
            each.stdout.readline()
        os.kill(os.getpid(), signal.SIGTERM)
        try:
            self.codes = [each.wait(HANG) for each in self.workers]
        finally:
            for each in self.workers:
                each.kill()
        return type("Result", (), {"failures": {}})


def test_a_signal_reaches_every_worker(tmp_path, monkeypatch):
    monkeypatch.setattr(agent, "make_agent", lambda *_: Waiting())
    starts = supervisor.Supervisor(["train"], 2, tmp_path)
    assert starts.run() == 0
    assert starts.agent.codes == [signal.SIGTERM, signal.SIGTERM]


def test_a_python_that_cannot_be_run_is_told_in_one_line(tiny, medgen, tmp_path, monkeypatch):
    """As on a node where the environment is not mounted."""
    monkeypatch.setattr(sys, "executable", f"{tmp_path}/python")
    ended = medgen(
        "train", "bravo_rflow", *tiny, "training.steps=1", "--devices", 2, f"run.dir={tmp_path}/r"
    )
    [line] = ended.err.splitlines()
    said = f"medgen: {tmp_path}/python: a process could not be started (No such file or directory). See that Python"
    assert (ended.code, line.startswith(said)) == (9, True), line
