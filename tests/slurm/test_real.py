"""The jobs on a Slurm of one node: signal, requeue, resume and arrays as they really are."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
START = ROOT / "tests/slurm/start"
MISSING = [
    name for name in ("munged", "slurmctld", "slurmd", "sbatch", "srun") if not shutil.which(name)
]
pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can start a Slurm"),
    pytest.mark.skipif(
        bool(MISSING), reason=f"no {', '.join(MISSING)}; `tests/slurm/start install` has Debian's"
    ),
]
STEPS = 40
FEW = (f"training.steps={STEPS}", "callbacks.previews=false", "callbacks.tensorboard=false")
HELD = """#!{python}
import os, sys, time
from pathlib import Path

if "train" in sys.argv and "SLURM_RESTART_COUNT" not in os.environ:  # train until a signal comes, however slow all is
    from medgen.training import interruption, trainer
    heard, step, first = [], trainer.Trainer.step, interruption.RepeatFilter.first
    def held(self):
        while self.run.step == {hold} and not heard:
            Path(f"held-{{os.environ['SLURM_PROCID']}}").touch()
            time.sleep(0.05)
        return step(self)
    trainer.Trainer.step = held
    interruption.RepeatFilter.first = lambda ear, number: (heard.append(number), first(ear, number))[1]
from medgen.cli.main import main
main()
"""
HOLD = 3
LONG = 900.0
"""Seconds after which something is wrong, however busy the machine."""
Run = Callable[..., Any]


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The slurm.conf of one that runs."""
    folder = tmp_path_factory.mktemp("slurm")
    started = subprocess.run([START, folder], capture_output=True, text=True)
    try:
        assert started.returncode == 0, started.stderr
        yield started.stdout.strip()
    finally:
        subprocess.run([START, folder, "stop"])


@pytest.fixture
def job(
    slurm: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., str]]:
    """`job(*command)` runs what submits a job, whose `medgen` first waits for a signal; gives its id."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/medgen").write_text(HELD.format(python=sys.executable, hold=HOLD))
    (tmp_path / "bin/medgen").chmod(0o755)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SLURM_CONF", slurm)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{Path(sys.executable).parent}:{os.environ['PATH']}")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # tensors depend on it
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    ids: list[str] = []

    def submit(*command: object) -> str:
        said = output(*command)
        ids.append(re.findall(r"Submitted batch job (\d+)", said)[0])
        return ids[-1]

    yield submit
    subprocess.run(
        ["scancel", "--quiet", "--full", "--signal=KILL", *ids]
    )  # what a failed test leaves would wait long
    subprocess.run(["scancel", "--quiet", *ids])


def output(*command: object) -> str:
    done = subprocess.run([str(each) for each in command], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def state(job: str) -> str:
    """Its state and why it waits; empty when Slurm has forgotten it."""
    done = subprocess.run(
        ["squeue", "-h", "-j", job, "-t", "all", "-o", "%T %r"], capture_output=True, text=True
    )
    return done.stdout.strip()


def told(log: Path) -> str:
    """What a job wrote, and what Slurm did with it, which is all there is of a job that could not be started."""
    about = Path(os.environ["SLURM_CONF"]).with_name("slurmctld.log").read_text().splitlines()[-20:]
    return "\n".join([log.read_text() if log.exists() else "it never started", *about])


def wait_for(condition: Callable[[], bool], log: Path, job: str = "") -> None:
    """Until then; at once an error if a job ends and there is nothing more to wait for."""
    limit = time.monotonic() + LONG
    while not condition():
        assert not (job and ended(job)) or condition(), told(log)
        assert time.monotonic() < limit, told(log)
        time.sleep(0.2)


def ended(job: str) -> bool:
    return state(job).split(" ")[0] in (
        "",
        "COMPLETED",
        "FAILED",
        "CANCELLED",
        "TIMEOUT",
        "NODE_FAIL",
    )


def held(folder: Path, ranks: int) -> Callable[[], bool]:
    """Whether all wait for a signal."""
    return lambda: all((folder / f"held-{rank}").exists() for rank in range(ranks))


def meets_its_limit(job: str) -> None:
    """Lower the limit of a job that runs so that Slurm gives it notice, of four minutes, now."""
    shown = output("scontrol", "show", "job", job)
    hours, minutes, _ = re.findall(r"RunTime=(\d+):(\d+):(\d+)", shown)[0]
    output("scontrol", "update", f"JobId={job}", f"TimeLimit={60 * int(hours) + int(minutes) + 4}")


@pytest.mark.parametrize("devices", [1, pytest.param(2, marks=pytest.mark.slow)])
@pytest.mark.row("S5")
def test_a_job_that_meets_its_limit_goes_on_and_equals_one_that_did_not(
    devices: int, job: Callable[..., str], tiny: tuple[str, ...], tmp_path: Path, medgen: Run
) -> None:
    from medgen_builtins.commands._verify_resume import differences

    common = ("bravo_rflow", *tiny, *FEW, f"training.devices={devices}")
    asks = (
        "slurm.gpu=none",
        "slurm.cpus=1",
        "slurm.hours=1",
        "slurm.notice=240",
        "run.folder=of job {timestamp}",
    )
    number = job("medgen", "slurm", *common, *asks, "--submit")
    log, folder = tmp_path / f"medgen-bravo_rflow-{number}.out", tmp_path / f"runs/of job {number}"
    wait_for(held(tmp_path, devices), log, number)
    meets_its_limit(number)
    assert medgen("train", *common, "run.dir=whole").code == 0
    wait_for(lambda: state(number) == "PENDING BeginTime", log, number)
    assert (folder / "latest.pt").exists(), told(log)
    assert f"stopped by SIGUSR1 at step {saved(folder)}, saved" in log.read_text()
    assert HOLD < saved(folder) < STEPS
    assert (
        f"medgen: job {number}: stopped, all is saved (exit code 75). It is queued again, 1 of "
        in log.read_text()
    )
    go_on(number)
    wait_for(lambda: ended(number), log, number)
    assert state(number).startswith("COMPLETED"), told(log)
    assert log.read_text().endswith(f"medgen: job {number}: done (exit code 0).\n")
    assert saved(folder) == STEPS
    assert differences(tmp_path / "whole", folder) == []


def go_on(job: str) -> None:
    """Start it without the two minutes that Slurm waits before it starts a job again.

    Not in the second in which its former self ended: its credential would count as revoked, and Slurm would end it
    before it starts, without a word in its log. That is what the two minutes are for.
    """
    output("scontrol", "update", f"JobId={job}", "StartTime=now+5", "TimeLimit=60")


def saved(folder: Path) -> int:
    """The step of its newest checkpoint."""
    from medgen.run import checkpoint

    return int(checkpoint.load(folder / "latest.pt")["position"]["step"])


@pytest.mark.row("S5")
def test_a_job_that_is_cancelled_saves_and_stays_away(
    job: Callable[..., str], tiny: tuple[str, ...], tmp_path: Path
) -> None:
    words = ("bravo_rflow", *tiny, *FEW, "run.dir=a run")
    asks = ("--gpus-per-node=0", "--cpus-per-task=1")
    number = job("sbatch", *asks, ROOT / "slurm/train.slurm", *words)
    log = tmp_path / f"medgen-{number}.out"
    wait_for(held(tmp_path, 1), log, number)
    output("scancel", number)
    wait_for(lambda: ended(number), log, number)
    assert state(number).startswith("CANCELLED"), told(log)
    assert f"stopped by SIGTERM at step {saved(tmp_path / 'a run')}, saved" in log.read_text()
    assert f"medgen: job {number}: was asked to end (SIGTERM" in log.read_text()


@pytest.mark.parametrize("script", ["written", "train", "generate"])
def test_a_job_that_inherits_no_environment_has_that_of_its_set_up(
    script: str, job: Callable[..., str], tiny: tuple[str, ...], tmp_path: Path
) -> None:
    """Point 15: its own PATH, here from /etc and `slurm.setup`, is that of its tasks."""
    asks = ("--export=NONE", "--gpus-per-node=0", "--cpus-per-task=1", "--job-name=none")
    path = f"export PATH={tmp_path}/bin:/usr/bin:/bin"
    (tmp_path / "bin/medgen").write_text('#!/bin/bash\necho "I am $SLURM_PROCID: $*"\n')
    if script == "written":
        settings = (
            'slurm.options=["--export=NONE"]',
            f"slurm.setup=[{json.dumps(path)}]",
            "slurm.gpu=none",
        )
        words = ("bravo_rflow", *tiny, *settings, "slurm.cpus=1")
        number = job(sys.executable, "-m", "medgen", "slurm", *words, "--submit")
    else:
        text = (
            (ROOT / f"slurm/{script}.slurm")
            .read_text()
            .replace("\nset -u\n", f"\n{path}\nset -u\n")
        )
        (tmp_path / "job").write_text(text)
        number = job("sbatch", *asks, "job", "x")
    name = "medgen-bravo_rflow" if script == "written" else "none"
    log = tmp_path / f"{name}-{number}.out"
    wait_for(lambda: ended(number), log, number)
    assert state(number).startswith("COMPLETED"), told(log)
    assert "I am 0: " in log.read_text()


@pytest.mark.slow
@pytest.mark.row("S5")
def test_an_array_of_jobs_of_two_tasks_makes_the_pairs_that_one_process_would(
    job: Callable[..., str], trained: Path, tmp_path: Path
) -> None:
    models = ("--seg-model", trained / "seg", "--image-model", trained / "bravo")
    words = (
        *models,
        "--num-images",
        12,
        "--max-area",
        1,
        "--steps",
        2,
        "--batch-size",
        3,
        "--inside",
        "off",
    )
    asks = ("--array=1-2", "--ntasks-per-node=2", "--gpus-per-node=0", "--cpus-per-task=1")
    number = job(
        "sbatch", *asks, ROOT / "slurm/generate.slurm", *words, "--output-dir", "parts of it"
    )
    wait_for(
        lambda: array_ended(number), tmp_path / f"medgen-generate-{number}.out"
    )  # its tasks end one by one
    for log in tmp_path.glob("medgen-generate-*.out"):
        assert "done (exit code 0)" in log.read_text(), told(log)
    output(sys.executable, "-m", "medgen", "generate", *words, "--output-dir", "whole")
    assert len(list((tmp_path / "whole/train").iterdir())) == 12
    assert files(tmp_path / "parts of it") == files(tmp_path / "whole")


def array_ended(number: str) -> bool:
    return ended(f"{number}_1") and ended(f"{number}_2")


def files(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }
